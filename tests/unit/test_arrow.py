"""Numbers of bars as Arrow reads them: exactly, or an error that names the row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from assetbatch import bars_table
from assetbatch.arrow import bars_schema, table_of
from assetbatch.errors import ConfigurationError, UnfitNumberError

LINE = "BTCUSD,2026-01-01 00:00:00+00,{},1,1,1,1,1,1,true,2026-01-01 00:00:00+00\n"


@pytest.mark.parametrize(
    "number",
    ["0", "-1.50", "1e-07", "1e+19", "1.5e+05", "99999999999999999999.999999999999999999", "0.10000000000000000000000"],
)
def test_what_fits_is_exact(number: str) -> None:
    assert table_of(LINE.format(number).encode())["open"].to_pylist() == [Decimal(number)]


@pytest.mark.parametrize(
    "number", ["1e+20", "1.5e+20", "1e+25", "-1e+25", "1e+300", "1e-30", "100000000000000000000", "NaN", "Infinity"]
)
def test_what_does_not_fit_is_told(number: str) -> None:
    with pytest.raises(UnfitNumberError, match=r"BTCUSD 2026-01-01 00:00:00\+00: open .* does not fit"):
        table_of(LINE.format(number).encode())


TRADES = LINE.replace(",1,true", ",{},true").format(1, "{}")


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("number", ["412", "412.00", "4.12e+02", "9223372036854775807"])
def test_trades_are_whole_numbers_in_whatever_type_a_platform_has_them(number: str, floats: bool) -> None:
    table = table_of(TRADES.format(number).encode(), floats=floats)

    assert table["trades"].to_pylist() == [int(Decimal(number))]
    assert table["open"].to_pylist() == [1]
    assert table.schema.equals(bars_schema(floats=floats))


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("number", ["2.5", "9223372036854775808", "1e+19", "NaN"])
def test_trades_that_are_no_whole_number_are_told(number: str, floats: bool) -> None:
    with pytest.raises(UnfitNumberError, match=r"BTCUSD 2026-01-01 00:00:00\+00: trades .* does not fit"):
        table_of(TRADES.format(number).encode(), floats=floats)


NEW_YORK = ZoneInfo("America/New_York")
ONE = datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-02-01", "2026-01-01"),
        (date(2026, 2, 1), date(2026, 2, 1)),
        (date(2026, 2, 1), datetime(2026, 2, 1, tzinfo=UTC)),
        (ONE.replace(fold=1), ONE.replace(minute=45)),
    ],
)
def test_times_that_are_none_are_told(since: date | str, until: date | str) -> None:
    with pytest.raises(ValueError, match="since is not before until"):
        bars_table(since=since, until=until, changed_since="any")


@pytest.mark.parametrize(
    ("since", "until"), [(ONE, ONE.replace(fold=1)), (date(2026, 2, 1), datetime(2026, 2, 1, 0, 5, tzinfo=UTC))]
)
def test_a_database_that_is_none_is_told(since: date, until: date) -> None:
    with pytest.raises(ConfigurationError, match="no connection string"):
        bars_table(since=since, until=until, database="postgresql+psycopg://trader:secret@host/name")
