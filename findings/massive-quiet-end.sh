#!/bin/sh
# massive (the vendor's Python client): a server that says good-bye ends the program quietly, and as if all were well.
#
# Software   massive 2.9.1 with websockets 15.0.1
# Input      a healthy session, which the server ends by a close frame: 1000 (done), then 1001 (it goes away, restarting)
# Expected   another connection, as after a break; or at least an exception
# Seen       connect() returns None after the one connection, and so does run(): the process exits with 0
# Why        a close that the library calls OK is taken for the caller's own
# Way out    loop around connect() whatever it returns, with a pause of one's own
#
# Installs both packages into a temporary folder and talks to a server of its own on 127.0.0.1; needs Python 3.11 or
# newer and a package index. Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"${PYTHON:-python3}" -m venv venv >log 2>&1 &&
    venv/bin/python -m pip install --quiet massive==2.9.1 websockets==15.0.1 >log 2>&1 ||
    { cat log >&2; exit 2; }

cat >try.py <<'END'
import asyncio
import json
import sys

from massive import WebSocketClient
from massive.websocket import Market
from websockets.asyncio.server import serve


async def session(code):
    connections = 0

    async def vendor(connection):
        nonlocal connections
        connections += 1
        await connection.send('[{"ev":"status","status":"connected","message":"Connected Successfully"}]')
        async for frame in connection:
            if json.loads(frame)["action"] == "auth":
                await connection.send('[{"ev":"status","status":"auth_success","message":"authenticated"}]')
            else:
                await connection.send('[{"ev":"status","status":"success","message":"subscribed to: C.EUR/USD"}]')
                await connection.close(code)

    async with serve(vendor, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = WebSocketClient(
            "a-key", feed=f"127.0.0.1:{port}", market=Market.Forex, secure=False, subscriptions=["C.EUR/USD"]
        )
        try:
            ended = await asyncio.wait_for(client.connect(lambda _: asyncio.sleep(0)), 20)
        except Exception as error:
            ended = type(error).__name__
    return code, ended, connections


async def main():
    return [await session(code) for code in (1000, 1001)]


seen = asyncio.run(main())
print(seen)
if seen != [(1000, None, 1), (1001, None, 1)]:
    sys.exit("this has changed")
END
timeout 120 venv/bin/python try.py || exit 1
