"""What a stream looks like by hand: the vendor's own client, and an update of the table for each message.

    python scripts/bench/stream_by_hand.py HOST:PORT NAMES CONNINFO

NAMES is a file with what to subscribe to, one name a line. It runs until it is ended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from massive import WebSocketClient
from massive.websocket.models import Market

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

UPDATE = """
update trading.symbols set metadata = metadata || jsonb_build_object('last_update', %s::jsonb), updated_at = now()
where symbol = %s
"""


def main() -> None:
    address, file, conninfo = sys.argv[1:]
    with psycopg.connect(conninfo, autocommit=True) as connection:

        def store(quotes: Sequence[Any]) -> None:
            for quote in quotes:
                update = {
                    "bid": quote.bid_price,
                    "ask": quote.ask_price,
                    "last_price": quote.bid_price,
                    "timestamp": quote.timestamp,
                }
                connection.execute(UPDATE, [json.dumps(update), quote.pair.replace("/", "")])

        client = WebSocketClient("bench", feed=address, market=Market.Forex, secure=False)
        client.subscribe(*Path(file).read_text().split())
        client.run(store)


if __name__ == "__main__":
    main()
