"""The newest final bar: what the table says of each, else what was asked for once it was settled."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from assetbatch import bars_table
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


NOT_TOLD = """
alter table market_data.ohlcv_5m alter is_final drop not null;
update market_data.ohlcv_5m set is_final = null
"""
LACKING = "alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at"


@pytest.mark.parametrize(("otherwise", "final"), [("", 8), (LACKING, 4), (NOT_TOLD, 4)], ids=["told", "bare", "null"])
def test_a_final_bar_counts_where_no_job_has_asked(
    connection: Connection, database: str, otherwise: str, final: int
) -> None:
    """Jobs asked for 4 bars; `backfill` stored 6 more, the last two of which are open."""
    says_which = not otherwise
    add_assets(connection, "X:BTCUSD")
    connection.execute(ADD_SYMBOL)
    connection.execute(ADD_STATE, [TUESDAY, TUESDAY + 4 * LENGTH])
    connection.execute(ADD_BARS, [TUESDAY])
    if says_which:
        connection.execute("update market_data.ohlcv_5m set is_final = ts < %s", [TUESDAY + final * LENGTH])
    else:
        connection.execute(otherwise.encode())
    newest = TUESDAY + (final - 1) * LENGTH

    charted = connection.answer(points.charted("BTCUSD"))
    assert charted is not None
    assert charted.newest == newest
    span = Span(TUESDAY, TUESDAY + 10 * LENGTH)
    assert [one.ts for one in connection.answer(points.points("BTCUSD", span, length=LENGTH))] == [
        TUESDAY + number * LENGTH for number in range(final)
    ]
    assert bars_table("BTCUSD", database=database)["is_final"].to_pylist() == final * [True]
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
    missing = 10 - final if says_which else 0
    assert (counted.newest, counted.missing) == (newest, missing)
    found = holes.holes(connection, "BTCUSD", span, now=span.until, told="")
    assert sum((hole.until - hole.since) // LENGTH for hole in found) == missing

    with connection.moment():
        lines = b"".join(export.Export(connection, export.Selection()).blocks()).splitlines()
    assert len(lines) == final
    told = history.read(connection, "BTCUSD").bars
    assert told is not None
    assert told["watermark"] == newest


@pytest.mark.parametrize("ts", ["20000-01-01 00:00:00+00", "infinity"])
def test_a_time_that_nobody_can_have_meant_ends_no_reading(connection: Connection, database: str, ts: str) -> None:
    """Milliseconds that a platform took for seconds."""
    add_assets(connection, "X:BTCUSD")
    connection.execute(ADD_SYMBOL)
    connection.execute(ADD_BARS, [TUESDAY])
    connection.execute(
        "update market_data.ohlcv_5m set is_final = true, ts = case ts when %s then %s else ts end",
        [TUESDAY + 9 * LENGTH, ts],
    )

    charted = connection.answer(points.charted("BTCUSD"))
    assert charted is not None
    assert charted.newest == datetime(9999, 12, 30, tzinfo=UTC)
    assert bars_table("BTCUSD", database=database).num_rows == 9
    read = connection.execute("select timestamptz '-infinity' a, date '0044-03-15 BC' b, date 'infinity' c").fetchall()
    assert [*read[0].values()] == [datetime(1, 1, 2, tzinfo=UTC), date(1, 1, 2), date(9999, 12, 30)]
