"""Where values come from, and which one wins."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.config import data_folder, folders_named, load, sources
from tests.unit.configs import EMBEDDED, faults_in, load_in

if TYPE_CHECKING:
    pass

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "etc")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_each_source_goes_before_the_next(tmp_path: Path) -> None:
    text = EMBEDDED + "provider: {plan: developer}\n"
    steps: list[tuple[dict[str, Any], str, str]] = [
        ({"text": EMBEDDED}, "free", "default"),
        ({"text": text}, "developer", "config.yaml:2"),
        ({"text": text, "dotenv": "# a comment\n\nPOLYGON_TIER=starter\n"}, "starter", ".env:3"),
        ({"text": text, "environ": {"POLYGON_TIER": "advanced"}}, "advanced", "POLYGON_TIER"),
    ]
    for arguments, plan, origin in steps:
        config = load_in(tmp_path, **arguments)
        assert (config.plan_words, config.origins["provider.plan"]) == (plan, origin)


def test_set_but_empty_counts_as_unset(tmp_path: Path) -> None:
    config = load_in(
        tmp_path,
        environ={"POLYGON_TIER": "", "DATABASE_URL": " ", "POLYGON_API_KEY": "", "ASSETBATCH_CONFIG": ""},
        dotenv="POLYGON_TIER=starter\nDB_HOST=\n",
    )
    assert config.plan_words == "starter"
    assert config.api_key is None
    assert config.database.embedded


@pytest.mark.parametrize(
    ("variable", "text", "read", "value"),
    [
        ("POLYGON_BASE_URL", "http://127.0.0.1:8080", lambda s: s.provider.base_url, "http://127.0.0.1:8080"),
        ("POLYGON_TIER", "business", lambda s: s.provider.plan, "business"),
        ("POLYGON_RATE_LIMIT", "3", lambda s: s.rate_limiting.calls_per_minute, 3),
        ("POLYGON_RATE_LIMIT", "unlimited", lambda s: s.rate_limiting.calls_per_minute, None),
        ("POLYGON_RATE_LIMIT", "null", lambda s: s.rate_limiting.calls_per_minute, None),
        ("BATCH_INTERVAL_MINUTES", "0.5", lambda s: s.batch.interval_minutes, 0.5),
        ("BATCH_INTERVAL_MINUTES", "2", lambda s: s.batch.interval_minutes, 2.0),
        ("PRIORITY_ASSETS_ENABLED", "false", lambda s: s.batch.priority_assets_enabled, False),
        ("PRIORITY_ASSETS_ENABLED", "0", lambda s: s.batch.priority_assets_enabled, False),
        ("PRIORITY_ASSETS_ENABLED", "Yes", lambda s: s.batch.priority_assets_enabled, True),
        ("QUEUE_MAX_SIZE", "77", lambda s: s.queue.max_size, 77),
    ],
)
def test_environment_names(tmp_path: Path, variable: str, text: str, read: Any, value: Any) -> None:
    config = load_in(tmp_path, environ={variable: text})
    assert read(config.settings) == value
    assert variable in config.origins.values()


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "POLYGON_RATE_LIMIT",
            "many",
            'expected a whole number from 1 to 100000 or "unlimited", not "many"',
        ),
        ("POLYGON_RATE_LIMIT", "5.5", "expected a whole number"),
        ("POLYGON_RATE_LIMIT", "٥", "expected a whole number"),
        ("POLYGON_TIER", "5", "expected one of free"),
        ("BATCH_INTERVAL_MINUTES", "nan", "expected a number above 0, at most 1440"),
        ("PRIORITY_ASSETS_ENABLED", "maybe", 'expected true or false, not "maybe"'),
        ("QUEUE_MAX_SIZE", "null", "expected a whole number from 1 to 10000000"),
        ("QUEUE_MAX_SIZE", "1_000", "expected a whole number"),
    ],
)
def test_a_wrong_variable_is_told_like_a_wrong_key(tmp_path: Path, variable: str, text: str, message: str) -> None:
    (fault,) = faults_in(tmp_path, environ={variable: text})
    assert fault.startswith(f"{variable}: ")
    assert message in fault
    (fault,) = faults_in(tmp_path, environ={}, dotenv=f"\n{variable}={text}\n")
    assert fault.startswith(f".env:2: {variable}: ")
    assert message in fault


def test_faults_of_all_sources_come_together(tmp_path: Path) -> None:
    faults = faults_in(
        tmp_path,
        EMBEDDED + "batch: {interval_minutes: 0}\n",
        {"QUEUE_MAX_SIZE": "0"},
        dotenv="POLYGON_TIER=x\n",
    )
    assert [fault.split(": ")[0] for fault in faults] == [".env:1", "config.yaml:2", "QUEUE_MAX_SIZE"]


def test_the_first_file_that_is_there_is_read(tmp_path: Path) -> None:
    work, system, user = tmp_path / "work", tmp_path / "etc", tmp_path / "xdg" / "assetbatch"
    for folder in (work, system, user):
        folder.mkdir(parents=True)
    named, by_variable = tmp_path / "named.yaml", tmp_path / "variable.yaml"
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    places = [system / "config.yaml", user / "config.yaml", work / "config.yaml"]
    for path in places:
        path.write_text(EMBEDDED)
        assert load(file=None, environ=environ, cwd=work).file == path
    for path in (by_variable, named):
        path.write_text(EMBEDDED)
    environ["ASSETBATCH_CONFIG"] = str(by_variable)
    assert load(file=None, environ=environ, cwd=work).file == by_variable
    config = load(file=Path("../named.yaml"), environ=environ, cwd=work)
    assert config.file is not None
    assert config.file.samefile(named)
    assert config.origins["database"] == "../named.yaml:1"


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    assert faults_in(tmp_path, file=Path("gone.yaml")) == ["--config: gone.yaml does not exist"]
    assert faults_in(tmp_path, environ={"ASSETBATCH_CONFIG": "gone.yaml"}) == [
        "ASSETBATCH_CONFIG: gone.yaml does not exist"
    ]
    assert faults_in(tmp_path, file=tmp_path) == [f"--config: {tmp_path} is a folder"]


def test_without_any_file_the_environment_must_name_the_database(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://h/other\n")
    (fault,) = faults_in(tmp_path, None)
    assert "no database is named: set DATABASE_URL" in fault
    config = load_in(tmp_path, None, {"DB_HOST": "db.example", "DB_NAME": "trading"})
    assert config.file is None
    assert config.database.name == "trading"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"batch:\n  \xff: 1\n", "is not UTF-8 text: byte 0xff in line 2"),
        (b"#" * ((1 << 20) + 1), "is larger than 1 MiB: is it the right file?"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    assert faults_in(tmp_path, None) == [f"config.yaml: {message}"]


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # root, as which tests may run, reads whatever its mode is
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "config.yaml").write_text(EMBEDDED)
    monkeypatch.setattr(Path, "open", refuse)
    assert faults_in(tmp_path, None) == ["config.yaml: cannot be read: Permission denied"]
    assert faults_in(tmp_path, None, file=Path("config.yaml")) == [
        "--config: config.yaml cannot be read: Permission denied"
    ]


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xef\xbb\xbf" + EMBEDDED.encode())
    assert load_in(tmp_path, None).database.embedded


def test_dotenv_reads_only_known_names_and_interpolates_nothing(tmp_path: Path) -> None:
    config = load_in(
        tmp_path,
        dotenv="export POLYGON_API_KEY='abc${HOME}'\r\nNONSENSE='open\nPGHOST=elsewhere\nPOLYGON_TIER=starter # why\n",
    )
    assert config.api_key is not None
    assert config.api_key.reveal() == "abc${HOME}"
    assert config.plan_words == "starter"
    assert config.origins["api_key"] == ".env:1"
    assert config.origins["provider.plan"] == ".env:4"


def test_the_last_line_of_dotenv_counts(tmp_path: Path) -> None:
    assert load_in(tmp_path, dotenv="POLYGON_TIER=starter\nPOLYGON_TIER=developer\n").plan_words == "developer"
    assert load_in(tmp_path, dotenv="POLYGON_TIER=starter\nPOLYGON_TIER=\n").plan_words == "free"


def test_a_broken_dotenv_line_is_told_without_its_text(tmp_path: Path) -> None:
    (fault,) = faults_in(tmp_path, dotenv='# x\nPOLYGON_API_KEY="abc123\n')
    assert fault.startswith(".env:2: POLYGON_API_KEY: cannot be read")
    assert "abc123" not in fault
    (tmp_path / ".env").write_bytes(b"POLYGON_TIER=\xff")
    assert faults_in(tmp_path) == [".env: is not UTF-8 text: byte 0xff in line 1"]


def test_dotenv_lies_beside_the_file_that_was_found(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "my.yaml").write_text(EMBEDDED)
    (tmp_path / "conf" / ".env").write_text("POLYGON_TIER=starter\n")
    (tmp_path / ".env").write_text("POLYGON_TIER=developer\n")
    config = load_in(tmp_path, file=Path("conf/my.yaml"))
    assert (config.plan_words, config.origins["provider.plan"]) == ("starter", "conf/.env:1")


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for uid, own in ((0, Path("/var/lib/assetbatch")), (1000, tmp_path)):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert data_folder({"XDG_DATA_HOME": str(tmp_path / "d")}) == tmp_path / "d" / "assetbatch"
        for environ in ({}, {"XDG_DATA_HOME": "relative"}):
            assert data_folder(environ).is_relative_to(own)
    monkeypatch.delenv("HOME")
    accounts: dict[int, pwd.struct_passwd] = {}
    monkeypatch.setattr(pwd, "getpwuid", accounts.__getitem__)
    assert data_folder({}) == Path("/.local/share/assetbatch")


def test_of_folders_all_are_named_that_are_not_where_the_account_alone_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    named = {"XDG_DATA_HOME": str(tmp_path / "d"), "XDG_STATE_HOME": str(tmp_path / "s")}
    for name, folder in named.items():
        monkeypatch.setenv(name, folder)
    account = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(pwd, "getpwuid", lambda _: account)
    for uid in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert folders_named({"HOME": home}) == {}
        assert folders_named({"HOME": home, "XDG_DATA_HOME": "relative"}) == {}
        assert folders_named({"HOME": home, **named}) == named
        assert folders_named({"HOME": "/elsewhere"}) == (
            {"XDG_DATA_HOME": "/elsewhere/.local/share", "XDG_STATE_HOME": "/elsewhere/.local/state"} if uid else {}
        )


def test_the_shipped_file_is_right_and_short() -> None:
    path = REPOSITORY / "config.yaml"
    config = load(file=path, environ={}, cwd=REPOSITORY)
    assert len(path.read_text().splitlines()) <= 30
    assert config.database.embedded
    assert (config.plan_words, config.calls_per_window(config.types), config.window_seconds) == ("free", 5, 60)
    assert [asset.symbol for asset in config.priority_assets] == ["XAUUSD", "EURUSD", "BTCUSD"]
    assert [asset.symbol for asset in config.secondary_assets] == ["ETHUSDT", "GBPUSD", "USDJPY", "XAGUSD"]


def test_starting_imports_nothing_that_costs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(EMBEDDED)
    program = (
        "import sys, pathlib, assetbatch.config as c; "
        "c.load(file=None, environ={}, cwd=pathlib.Path()); "
        "costly = {'requests', 'rich', 'redis', 'psycopg', 'dotenv', 'difflib', 'typer'}; "
        "print(*(costly & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
