"""Stocks as rows: tickers that differ by case, tickers of tests, lists of tickers alone, and missing prefixes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assetbatch.config.assets import Row, Table, read_csv
from assetbatch.errors import ConfigurationError, Fault
from assetbatch.jobs.symbols import unheard_of
from assetbatch.markets import TRAITS, is_for_tests, type_of, with_prefix
from assetbatch.model import Asset, AssetType, Priority, Role
from assetbatch.words import named
from tests.world import load_config


def read(text: str) -> Table:
    return read_csv(text.encode(), name="some.csv", priority="MEDIUM", frequency_seconds=1800)


def told(faults: list[Fault]) -> list[tuple[str, str, str]]:
    return [(fault.place, fault.key, fault.message) for fault in faults]


def test_a_column_of_tickers_names_symbols_too() -> None:
    found = read("ticker,priority\nAAPL,HIGH\nBRK.B,\nKIMpL,\nI:SPX,\n")

    assert found.faults == []
    assert [(one.asset.symbol, one.asset.polygon_ticker, one.asset.asset_type.value) for one in found.rows] == [
        ("AAPL", "AAPL", "stocks"),
        ("BRK.B", "BRK.B", "stocks"),
        ("KIMpL", "KIMpL", "stocks"),
        ("SPX", "I:SPX", "indices"),
    ]
    assert found.rows[0].asset.rank == Priority.HIGH


def test_a_column_of_tickers_goes_with_one_of_symbols() -> None:
    (row,) = read("ticker,symbol\nBRK.B,BRK/B\n").rows

    assert (row.asset.symbol, row.asset.polygon_ticker) == ("BRK/B", "BRK.B")


@pytest.mark.parametrize("header", ["polygon_ticker", "ticker,polygon_ticker", "ticker,ticker"])
def test_no_other_column_stands_for_the_symbol(header: str) -> None:
    assert read(f"{header}\nAAPL,AAPL\n").faults


def test_tickers_that_differ_by_case_live_beside_each_other() -> None:
    assert read("ticker\nAMPB\nAMpB\n").faults == []
    assert told(read("ticker,symbol\nAMPB,AMP\nAMpB,AMP\n").faults) == [
        ("some.csv:3", "symbol", "AMP is there twice; the first one is at some.csv:2")
    ]


def test_symbols_of_pairs_do_not_differ_by_case() -> None:
    assert told(read("symbol,polygon_ticker\nEURUSD,C:EURUSD\neurusd,C:EURJPY\n").faults) == [
        ("some.csv:3", "symbol", "eurusd is there twice; the first one is at some.csv:2, as EURUSD")
    ]


def test_the_ticker_of_one_may_be_the_symbol_of_another() -> None:
    assert read("symbol,ticker\nMETA,FB\nFB,META\n").faults == []


@pytest.mark.parametrize("ticker", ["ZVZZT", "ZWZZT", "ZXZZT", "ZJZZT", "NTEST", "NTEST.A", "ZTST", "ZEXIT"])
def test_exchanges_test_with(ticker: str) -> None:
    assert is_for_tests(ticker)


@pytest.mark.parametrize("ticker", ["AAPL", "TEST", "ZZT", "ATESTX", "KIMpL", "C:ZVZZT", "X:ZTST", "I:NTEST"])
def test_exchanges_do_not_test_with(ticker: str) -> None:
    assert not is_for_tests(ticker)


def test_examples_are_of_their_types() -> None:
    assert {type_of(traits.example): traits for traits in TRAITS.values()} == TRAITS


@pytest.mark.parametrize(
    ("ticker", "meant"),
    [("EURUSD", ["C:EURUSD", "X:EURUSD"]), ("SPX", ["I:SPX"]), ("KIMpL", []), ("C:NOSUCH", []), ("I:SPXX", [])],
)
def test_a_prefix_may_be_missing(ticker: str, meant: list[str]) -> None:
    assert with_prefix(ticker) == meant


def test_an_unknown_ticker_is_told_with_what_it_may_be_meant_for() -> None:
    def row(ticker: str) -> Row:
        return Row("", Asset("EURUSD", ticker, type_of(ticker), Role.SECONDARY, 3, 1800))

    assert told(unheard_of([row("EURUSD"), row("C:EURUSD"), row("C:NOSUCH")], {"C:EURUSD": ""})) == [
        (
            "",
            "polygon_ticker",
            "EURUSD is not in the vendor's reference list; did you mean C:EURUSD or X:EURUSD?",
        ),
        ("", "polygon_ticker", "C:NOSUCH is not in the vendor's reference list"),
    ]
    assert row("EURUSD").asset.asset_type is AssetType.STOCKS


def test_the_documented_list_is_one() -> None:
    """What docs/guide/stocks.md shows is read as it is there."""
    text = (Path(__file__).parents[2] / "docs/guide/stocks.md").read_text()
    (block,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)

    found = read(block)

    assert (found.faults, found.repeated) == ([], [])
    assert len(found.rows) == block.count("\n") - 1 == 6
    # The configuration that is shown above it lists one of them.
    added = sorted({row.asset.symbol for row in found.rows} - {"BRK.B"})
    assert f"{len(added)} added: {named(added)}" in text


def test_a_ticker_without_its_prefix_is_told_with_it(tmp_path: Path) -> None:
    asset = "{symbol: EURUSD, polygon_ticker: EURUSD, asset_type: forex}"

    with pytest.raises(
        ConfigurationError, match="forex does not go with EURUSD, which is stocks: did you mean C:EURUSD"
    ):
        load_config(tmp_path, f"batch: {{priority_assets: [{asset}]}}\ndatabase: {{embedded: true}}\n")
