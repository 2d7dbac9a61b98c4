"""Variables that nothing reads, though they were meant for us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.errors import ConfigurationError
from tests.unit.configs import load_in

if TYPE_CHECKING:
    from pathlib import Path

NAMED = {"DB_HOST": "h", "DB_NAME": "d"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("POLYGON_APIKEY", "POLYGON_API_KEY"),
        ("POLYGON_KEY", "POLYGON_API_KEY"),
        ("POLYGON_API_TOKEN", "POLYGON_API_KEY"),
        ("MASSIVE_API_KEY", "POLYGON_API_KEY"),
        ("POLYGON_IO_API_KEY", "POLYGON_API_KEY"),
        ("POLYGN_API_KEY", "POLYGON_API_KEY"),
        ("polygon_api_key", "POLYGON_API_KEY"),
        ("POLYGON_APIKEY_FILE", "POLYGON_API_KEY_FILE"),
        ("POLYGON_RATELIMIT", "POLYGON_RATE_LIMIT"),
        ("POLYGON_PLAN", "POLYGON_TIER"),
        ("POLYGON_BASEURL", "POLYGON_BASE_URL"),
        ("QUEUE_MAXSIZE", "QUEUE_MAX_SIZE"),
        ("PRIORITY_ASSET_ENABLED", "PRIORITY_ASSETS_ENABLED"),
        ("REDIS_URI", "REDIS_URL"),
        ("DB_PASS", "DB_PASSWORD"),
        ("DB_PASS_FILE", "DB_PASSWORD_FILE"),
        ("DB_USERNAME", "DB_USER"),
        ("ASSETBATCH_CONF", "ASSETBATCH_CONFIG"),
    ],
)
def test_a_name_that_was_plainly_meant_for_us_is_told_of_wherever_it_stands(
    tmp_path: Path, name: str, meant: str
) -> None:
    told = "is not read by anything here: did you mean"
    (doubt,) = load_in(tmp_path, "", {**NAMED, name: "hunter22"}).doubts
    assert doubt.told == f"{name} {told} {meant}?"
    (doubt,) = load_in(tmp_path, "", NAMED, dotenv=f"# some\n{name}=hunter22\n").doubts
    assert doubt.told == f"{name} (.env:2) {told} {meant}?"


@pytest.mark.parametrize(
    "name",
    [
        "POLYGON_WALLET",
        "POLYGON_RPC_URL",
        "POLYGONSCAN_API_KEY",
        "DB_POOL_SIZE",
        "DATABASE_URL_TEST",
        "REDIS_HOST",
        "PATH",
        "PASS",
        "KEY",
        "BATCH_SIZE",
        "ASSETBATCH_HOME",
        "QUEUE_URL",
        "PRIORITY",
        "SANDBOX_KEY",
    ],
)
def test_names_of_other_programs_are_their_business(tmp_path: Path, name: str) -> None:
    assert load_in(tmp_path, "", {**NAMED, name: "x"}, dotenv=f"{name}=x\n").doubts == ()


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({**NAMED, "POLYGON_APIKEY": "x", "POLYGON_API_KEY": "thekey"}, ""),
        ({**NAMED, "DB_PASS": "x", "DB_PASSWORD": "pw"}, ""),
        ({**NAMED, "POLYGON_APIKEY": " "}, ""),
        ({**NAMED, "DATABASE_URI": "x"}, ""),
        ({"DATABASE_URL": "postgresql://h/d", "DB_PASS": "x", "DB_URL": "x"}, ""),
        ({"DB_PASS": "x", "DB_USERNAME": "x", "DATABASE_URI": "x"}, "database: {embedded: true}"),
    ],
)
def test_where_the_right_one_is_there_or_is_not_needed_nothing_is_told(
    tmp_path: Path, environ: dict[str, str], text: str
) -> None:
    assert load_in(tmp_path, text, environ).doubts == ()


def test_who_misses_the_key_or_the_database_is_told_of_its_lookalike(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_in(tmp_path, "", {**NAMED, "MASSIVE_API_KEY": "hunter22"}).require_api_key()
    assert caught.value.hint.startswith("MASSIVE_API_KEY is not read by anything here: did you mean POLYGON_API_KEY?\n")
    with pytest.raises(ConfigurationError) as caught:
        load_in(tmp_path, "", {"POLYGON_APIKEY": "x"}, dotenv="DATABASE_URI=postgresql://u:hunter22@h/d\n")
    assert caught.value.hint == "DATABASE_URI (.env:1) is not read by anything here: did you mean DATABASE_URL?"
