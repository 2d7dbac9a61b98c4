#!/bin/sh
# massive (the vendor's Python client): to subscribe to all of a channel ends other channels whose names begin alike.
#
# Software   massive 2.9.1 with websockets 15.0.1
# Input      a client that holds CA.* (minutes of forex) and CAS.EUR/USD, then subscribe("C.*") (quotes)
# Expected   three subscriptions: C.*, CA.* and CAS.EUR/USD
# Seen       the server is told to subscribe to C.*, and right after it to unsubscribe from CA.* and CAS.EUR/USD
# Why        a star replaces what it covers, and that is looked for by the beginning of the name, without its dot
# Way out    give all subscriptions to the constructor, or never use a star: name each pair
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

heard = []


async def vendor(connection):
    async def tell(status, message):
        await connection.send(json.dumps([{"ev": "status", "status": status, "message": message}]))

    await tell("connected", "Connected Successfully")
    async for frame in connection:
        asked = json.loads(frame)
        if asked["action"] == "auth":
            await tell("auth_success", "authenticated")
        else:
            heard.append((asked["action"], sorted(asked["params"].split(","))))
            await tell("success", f"{asked['action']}d to: {asked['params']}")


async def main():
    async with serve(vendor, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = WebSocketClient(
            "a-key", feed=f"127.0.0.1:{port}", market=Market.Forex, secure=False, subscriptions=["CA.*", "CAS.EUR/USD"]
        )
        task = asyncio.create_task(client.connect(lambda _: asyncio.sleep(0)))
        for _ in range(100):
            await asyncio.sleep(0.05)
            if len(heard) == 1:
                client.subscribe("C.*")
            if len(heard) >= 3:
                break
        await client.close()
        task.cancel()
    print(heard)


asyncio.run(main())
expected = [
    ("subscribe", ["CA.*", "CAS.EUR/USD"]),
    ("subscribe", ["C.*"]),
    ("unsubscribe", ["CA.*", "CAS.EUR/USD"]),
]
if heard[:3] != expected:
    sys.exit("this has changed")
END
timeout 60 venv/bin/python try.py || exit 1
