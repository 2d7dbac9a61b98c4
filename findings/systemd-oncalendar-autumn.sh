#!/bin/sh
# systemd: OnCalendar leaves out the hour that comes twice when the clock is set back.
#
# Software   systemd 252.39-1~deb12u2 (Debian 12, amd64); 252.38-1~deb12u1 does the same
# Input      OnCalendar=*:0/5 in the zone Europe/Berlin, on 25 October 2026: at 01:00 UTC 3:00 becomes 2:00
# Expected   a start every 5 minutes
# Seen       00:55 UTC, then 02:00 UTC: a gap of 65 minutes; 61 for *:*, 90 for *:0/30. In spring there is none.
# Way out    OnCalendar=*:0/5 UTC
#
# Unpacks the package into a temporary folder, and has its own `systemd-analyze calendar` reckon. Needs Debian 12 on amd64
# and its package index. Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

version=252.39-1~deb12u2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

apt-get download "systemd=$version" "libsystemd-shared=$version" >log 2>&1 || { cat log >&2; exit 2; }
for package in ./*.deb; do dpkg-deb -x "$package" root || exit 2; done

# Prints the hours and minutes, in UTC, of the first five starts from 00:45 UTC on.
starts() {
    TZ=Europe/Berlin LC_ALL=C LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu/systemd \
        root/usr/bin/systemd-analyze calendar --iterations=5 --base-time='2026-10-25 00:44 UTC' "$1" >starts || exit 2
    sed -n 's/.* \(..:..\):00 UTC$/\1/p' starts | tr '\n' ' '
}

local=$(starts '*:0/5')
utc=$(starts '*:0/5 UTC')
printf '%s\n' "systemd $version" "*:0/5      $local" "*:0/5 UTC  $utc"
if [ "$local" != '00:45 00:50 00:55 02:00 02:05 ' ] || [ "$utc" != '00:45 00:50 00:55 01:00 01:05 ' ]; then
    echo "this has changed" >&2
    exit 1
fi
