"""The newest final bar: what the table says of each, else what was asked for once it was settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.bars import LENGTH
from assetbatch.database.bars import export, holes, points
from assetbatch.database.read import history
from assetbatch.model import Span
from tests.world import TUESDAY, add_assets

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

ADD_SYMBOL = "insert into trading.symbols (symbol, metadata) values ('BTCUSD', '{}')"
ADD_STATE = "insert into assetbatch.bar_state (symbol, wanted_since, asked_until) values ('BTCUSD', %s, %s)"
ADD_BARS = """
insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume, is_final, fetched_at)
select id, %s + n * interval '5 minutes', 1, 1, 1, 1, 0, false, now() from trading.symbols, generate_series(0, 9) n
"""


@pytest.mark.parametrize(("says_by", "final"), [("is_final", 8), ("time", 4), ("null", 4)])
def test_a_final_bar_counts_where_no_job_has_asked(connection: Connection, says_by: str, final: int) -> None:
    """Jobs asked for 4 bars; `backfill` stored 6 more, the last two of which are open."""
    add_assets(connection, "X:BTCUSD")
    connection.execute(ADD_SYMBOL)
    connection.execute(ADD_STATE, [TUESDAY, TUESDAY + 4 * LENGTH])
    connection.execute(ADD_BARS, [TUESDAY])
    if says_by == "is_final":
        connection.execute("update market_data.ohlcv_5m set is_final = ts < %s", [TUESDAY + final * LENGTH])
    elif says_by == "time":
        connection.execute("alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at")
    else:
        connection.execute("alter table market_data.ohlcv_5m alter is_final drop not null")
        connection.execute("update market_data.ohlcv_5m set is_final = null")
    newest = TUESDAY + (final - 1) * LENGTH

    charted = connection.answer(points.charted("BTCUSD"))
    assert charted is not None
    assert charted.newest == newest
    assert connection.answer(points.open_bars("BTCUSD", TUESDAY)) == 10 - final
    (counted,) = connection.answer(
        holes.coverage(
            {"BTCUSD": TUESDAY + 10 * LENGTH},
            counted={"BTCUSD"},
            closed={},
            since=TUESDAY,
            now=TUESDAY + 10 * LENGTH,
            told={"BTCUSD": ""},
        )
    ).values()
    missing = 10 - final if says_by == "is_final" else 0
    assert (counted.newest, counted.missing) == (newest, missing)
    span = Span(TUESDAY, TUESDAY + 10 * LENGTH)
    found = holes.holes(connection, "BTCUSD", span, now=span.until, told="")
    assert sum((hole.until - hole.since) // LENGTH for hole in found) == missing
    drawn = connection.answer(points.points("BTCUSD", span, length=LENGTH))
    assert len(drawn) == 10 - missing
    with connection.moment():
        lines = b"".join(export.Export(connection, export.Selection()).blocks()).splitlines()
    assert len(lines) == final
    told = history.read(connection, "BTCUSD").bars
    assert told is not None
    assert told["watermark"] == newest
