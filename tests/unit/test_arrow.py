"""Numbers of bars as Arrow reads them: exactly, or an error that names the row."""

from __future__ import annotations

from decimal import Decimal

import pytest

from assetbatch.arrow import bars_table, table_of
from assetbatch.errors import UnfitNumberError

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


def test_times_that_are_none_are_told() -> None:
    with pytest.raises(ValueError, match="since is not before until"):
        bars_table(since="2026-02-01", until="2026-01-01", changed_since="any")
