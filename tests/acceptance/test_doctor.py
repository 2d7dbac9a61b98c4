"""`doctor`: each thing that can be wrong is a line with what fixes it, and hides no other."""

from __future__ import annotations

import io
import json
import os
import pwd
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from assetbatch.config.loading import survey
from assetbatch.database import opening
from assetbatch.database.connection import Connection
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.embedded.place import SERVICE_ACCOUNT, Place
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.database.setup import schema
from assetbatch.report import doctor, tables
from assetbatch.report.doctor import Finding, Level, cron, host
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, Commands, RedisServer, free_port
from tests.integration.test_pgbouncer import pgbouncer  # noqa: F401 - a fixture
from tests.world import add_assets

KEY = key_fingerprint(API_KEY)

ADD_RUN = """
insert into assetbatch.runs
  (job, host, started_at, ends_by, finished_at, status, version, plan, error_kind, error)
select %(job)s, %(host)s, t, t, case when %(status)s <> 'running' then t end, %(status)s, %(version)s, %(plan)s,
       %(error_kind)s, %(error)s
from (select clock_timestamp() - make_interval(secs => 60 * %(minutes)s::float8)) v (t)
"""

ADD_DEAD_LETTERS = """
insert into assetbatch.queue
  (symbol, state, priority, waiting_since, rank, enqueued_at, available_at, died_at, error_kind, error)
select 'S' || n, 'dead', 3, t, t, t, t, t - n * interval '1 s', 'unknown_ticker', 'who is S' || n
from clock_timestamp() as t, generate_series(1, 7) n
"""

ADD_HOSTS = """
insert into assetbatch.rate_limit_hosts
select %(key)s, host, calls, '60 s', '1 s', '0 s', clock_timestamp()
from (values ('h1', 5), ('h2', 4)) v (host, calls)
"""


class Patient:
    """A host with a configuration and a database of its own, for `doctor` to look at."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self.file.write_text("")
        self.environ = {
            "DATABASE_URL": database,
            "POLYGON_API_KEY": API_KEY,
            "POLYGON_BASE_URL": "http://127.0.0.1:9",
            "POLYGON_TIER": "starter",
            "XDG_DATA_HOME": str(folder),
        }

    def examine(self, *, ahead: timedelta = timedelta(0), **environ: str) -> dict[str, list[Finding]]:
        """Tell by name what was found; the host's clock is `ahead` of the right time."""
        seen = survey(file=self.file, environ=self.environ | environ, cwd=self.folder)
        found: dict[str, list[Finding]] = {}
        for one in doctor.examine(seen, self.folder, clock=lambda: datetime.now(UTC) + ahead):
            found.setdefault(one.name, []).append(one)
        return found

    def one(self, name: str, *, ahead: timedelta = timedelta(0), **environ: str) -> Finding:
        """Give the only finding of that name."""
        (found,) = self.examine(ahead=ahead, **environ)[name]
        assert (found.level is Level.OK) == (found.hint == "")
        return found


@pytest.fixture
def patient(tmp_path: Path, database: str) -> Patient:
    return Patient(tmp_path, database)


def add_run(connection: Connection, job: str, *, minutes: float = 0, host: str = "here", **columns: object) -> None:
    values = {"status": "ok", "version": "0.1.0", "plan": "starter", "error_kind": None, "error": None} | columns
    connection.execute(ADD_RUN, values | {"job": job, "host": host, "minutes": minutes})


# The whole command


def test_after_runs_that_went_well_nothing_fails_and_no_call_is_made(commands: Commands, sandbox: Sandbox) -> None:
    for job in ("run-priority", "enqueue-secondary", "drain-queue"):
        assert commands(job).returncode == 0
    calls = len(sandbox.arrivals)

    done = commands("doctor", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(sandbox.arrivals) == calls
    assert API_KEY not in done.stdout
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.doctor/1"
    assert all(set(one) == {"level", "name", "found", "hint"} for one in document["findings"])
    # The tests' database is a superuser's.
    assert [one["name"] for one in document["findings"] if one["level"] != "ok"] == ["role"]
    assert document["status"] == "warn"
    assert {one["name"] for one in document["findings"]} == {
        "program", "configuration", "key", "plan", "database", "role", "clock", "schema", "privileges", "numbers",
        "run-priority", "drain-queue", "enqueue-secondary", "assets", "prices", "calls", "queue", "bars", "events",
    }  # fmt: skip


def test_faults_of_the_configuration_are_told_and_the_database_is_looked_at_all_the_same(commands: Commands) -> None:
    (commands.folder / "config.yaml").write_text("provider:\n  plann: starter\nbatch:\n  intervall_minutes: 5\n")

    done = commands("-v", "doctor")

    assert done.returncode == 78
    lines = done.stdout.splitlines()
    assert [line.split(": ")[1] for line in lines if line.startswith("fail  configuration")] == [
        "config.yaml:2",
        "config.yaml:4",
    ]
    assert "did you mean plan?" in done.stdout
    assert [line.split(":")[0] for line in lines if line.startswith("ok")] == [
        f"ok    {name}" for name in ("program", "key", "database", "clock", "schema", "privileges", "numbers")
    ]
    assert not any("Traceback" in line for line in lines)
    assert (API_KEY in done.stdout, KEY in done.stdout) == (False, True)


def test_the_database_away_fails_with_3(commands: Commands) -> None:
    secret = "pass-word-of-mine"

    done = commands("doctor", DATABASE_URL=f"postgresql://nobody:{secret}@127.0.0.1:{free_port()}/nothing")

    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "is PostgreSQL running" in line
    assert secret not in done.stdout


# What the command shows


def test_the_table_fits_a_terminal_and_tells_all() -> None:
    findings = [
        Finding(Level.OK, "clock", "right"),
        Finding(Level.FAIL, "enqueue-secondary", "word " * 60, "mend " * 40),
    ]
    console = Console(file=io.StringIO(), width=100)

    console.print(tables.findings_view(findings))

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 100
    assert [shown.count(word) for word in ("clock", "right", "enqueue-secondary", "word", "mend")] == [1, 1, 1, 60, 40]


def test_what_fails_comes_first_and_what_is_well_is_one_line(commands: Commands) -> None:
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    (commands.folder / ".env").write_text("POLYGON_API_KEY=other\n")
    (commands.folder / ".env").chmod(0o644)

    folded = commands("doctor", DATABASE_URL=away).stdout.splitlines()
    whole = commands("-v", "doctor", DATABASE_URL=away).stdout.splitlines()

    levels = ["fail", "warn", "ok"]
    told, whole_told = ([line.split()[0] for line in lines[:-1]] for lines in (folded, whole))
    assert told == sorted(told, key=levels.index)
    assert whole_told == sorted(whole_told, key=levels.index)
    assert [told.count(level) for level in levels] == [1, 1, 1]
    well = [line.split(": ")[0].split()[1] for line in whole if line.startswith("ok")]
    assert folded[-2] == f"ok    {len(well)} checks: {', '.join(well)}"
    assert folded[-1] == f"1 failure, 1 warning, {len(well)} ok; `assetbatch -v doctor` tells what is well"
    assert whole[-1] == f"1 failure, 1 warning, {len(well)} ok"
    assert len(whole) == len(well) + 3


JOB = "*/5 * * * * /opt/assetbatch run-priority"


@pytest.mark.parametrize(
    ("table", "has_sendmail", "level"),
    [
        (JOB, False, Level.WARN),
        (f"MAILTO=me@example.com\n{JOB}", False, Level.WARN),
        (f"MAILTO=me@example.com\n{JOB}", True, Level.OK),
        (f'MAILTO=""\n{JOB}', False, None),
        (f'MAILTO=""\n{JOB}\nMAILTO = me\n{JOB}', False, Level.WARN),
        (f"{JOB} >>/var/log/assetbatch.log 2>&1", False, None),
        (f"{JOB} >/dev/null", False, Level.WARN),
        (f"# {JOB}\n* * * * * /usr/bin/other", False, None),
        ("", False, None),
        ("ASSETBATCH_CONFIG=/etc/assetbatch/config.yaml", False, None),
    ],
    ids=str,
)
def test_what_cron_mails_needs_somebody_who_takes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, has_sendmail: bool, level: Level | None
) -> None:
    for name, script in {"crontab": f"cat <<'END'\n{table}\nEND", "sendmail": "exit 0"}.items():
        if name == "crontab" or has_sendmail:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cron, "MAIL_FOLDERS", str(tmp_path))
    monkeypatch.setattr(cron, "SYSTEM_TABLES", ())

    found = [(one.level, bool(one.hint)) for one in cron.mail()]

    assert found == ([] if level is None else [(level, level is Level.WARN)])


def test_the_systems_own_tables_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "assetbatch").write_text(f"{JOB}\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cron, "MAIL_FOLDERS", str(tmp_path))
    monkeypatch.setattr(cron, "SYSTEM_TABLES", (tmp_path, tmp_path / "nothing"))

    (found,) = cron.mail()

    assert str(tmp_path / "assetbatch") in found.found


def test_a_line_is_one_line() -> None:
    finding = Finding(Level.WARN, "tables", "two\nlines", "ALTER a;\nALTER b;")

    assert finding.line == "warn  tables: two lines; fix: ALTER a; ALTER b;"


# This host


@pytest.mark.parametrize(("mode", "level"), [(0o600, Level.OK), (0o640, Level.WARN), (0o604, Level.WARN)])
def test_files_with_secrets_are_their_owners_alone(patient: Patient, mode: int, level: Level) -> None:
    files = {".env": patient.folder / ".env", "key file": patient.folder / "key"}
    files[".env"].write_text("QUEUE_MAX_SIZE=9\n")
    files["key file"].write_text(API_KEY)
    for file in files.values():
        file.chmod(mode)

    found = patient.examine(POLYGON_API_KEY="", POLYGON_API_KEY_FILE="key")

    for name, file in files.items():
        assert (found[name][0].level, f"{mode:o}" in found[name][0].found) == (level, True)
        assert found[name][0].hint in {"", f"chmod 600 {file}"}
    assert found["key"][0].found == f"given by POLYGON_API_KEY_FILE, fingerprint {KEY}"


def test_no_key_fails_with_the_ways_to_give_one(patient: Patient) -> None:
    found = patient.one("key", POLYGON_API_KEY="")

    assert found.level is Level.FAIL
    assert all(way in found.hint for way in (".env", "POLYGON_API_KEY_FILE", "systemd credential", "sandbox"))


def test_a_limit_above_that_of_the_free_plan_and_a_key_in_the_clear_are_told(patient: Patient) -> None:
    patient.environ["POLYGON_TIER"] = "free"
    vendor = "http://api.polygon.io"
    found = patient.examine(POLYGON_BASE_URL=vendor, POLYGON_RATE_LIMIT="6")

    assert (found["plan"][0].level, found["address"][0].level) == (Level.WARN, Level.WARN)
    assert "POLYGON_RATE_LIMIT" in found["plan"][0].hint
    assert patient.one("plan", POLYGON_BASE_URL=vendor).level is Level.OK
    assert patient.one("plan", POLYGON_RATE_LIMIT="unlimited").level is Level.OK  # the sandbox


@pytest.mark.parametrize(
    ("text", "environ", "level", "told"),
    [
        ("{enabled: true}", {}, Level.OK, "forex at ws://127.0.0.1:1009/forex, crypto at ws://127.0.0.1:1009/crypto"),
        ("{clusters: [crypto]}", {}, Level.OK, "stream.enabled is false: nobody is told when none runs"),
        ("{enabled: true}", {"POLYGON_TIER": "free"}, Level.FAIL, "the free plan has no WebSocket"),
        ("{clusters: [crypto]}", {"POLYGON_TIER": "free"}, Level.WARN, "the free plan has no WebSocket"),
        ("{enabled: true, urls: {forex: 'wss://socket.massive.com/forex'}}", {}, Level.FAIL, "is of another source"),
        ("{enabled: true}", {"POLYGON_BASE_URL": "https://proxy.example"}, Level.FAIL, "stream.urls.forex: is missing"),
    ],
)
def test_a_stream_that_is_configured_has_a_plan_and_addresses(
    patient: Patient, text: str, environ: dict[str, str], level: Level, told: str
) -> None:
    patient.file.write_text(f"stream: {text}\n")

    patient.environ |= environ
    found = patient.one("stream addresses")

    assert (found.level, told in found.found) == (level, True)


def test_where_no_stream_is_configured_its_addresses_are_not_looked_at(patient: Patient) -> None:
    assert "stream addresses" not in patient.examine(POLYGON_TIER="free")


def embedded_folder(base: Path, mode: int) -> Path:
    home = Place.below(base).home
    home.mkdir()
    home.chmod(mode)
    if os.geteuid() == 0:
        os.chown(home, pwd.getpwnam(SERVICE_ACCOUNT).pw_uid, -1)
    return home


def test_an_embedded_server_that_is_not_there_or_open_to_others_fails(
    patient: Patient, postgres: EmbeddedServer
) -> None:
    patient.file.write_text("database: {embedded: true}\n")
    absent = patient.one("embedded server", DATABASE_URL="")
    home = embedded_folder(patient.folder, 0o750)

    found = patient.examine(DATABASE_URL="")

    assert (absent.level, "assetbatch init" in absent.hint) == (Level.FAIL, True)
    assert [one.hint for one in found["embedded server"]] == [f"chmod 700 {home}, once you know why"]
    assert "database" not in found


def test_a_full_disk_is_told_of_a_server_that_runs(
    postgres: EmbeddedServer, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = list(host.embedded(short_folder / "postgres"))
    monkeypatch.setattr(host, "LEAST_FREE_BYTES", 1 << 62)

    narrow = list(host.embedded(short_folder / "postgres"))

    assert [(one.level, ", running; " in one.found) for one in roomy] == [(Level.OK, True)]
    assert [(one.level, one.name) for one in narrow] == [(Level.WARN, "disk"), (Level.OK, "embedded server")]


def test_redis_answers_with_the_length_of_the_stream_or_is_told_to_be_away(
    patient: Patient, redis_server: RedisServer
) -> None:
    patient.file.write_text("events: {stream: true}\n")
    there = patient.one("redis", REDIS_URL=redis_server.url)
    redis_server.stop()

    away = patient.one("redis", REDIS_URL=redis_server.url)

    assert (there.level, there.found) == (Level.OK, "takes events; 0 in the stream asset:updates")
    assert (away.level, "is Redis running" in away.hint) == (Level.FAIL, True)


def test_servers_that_take_a_connection_and_never_answer_hold_nobody_up(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CONNECT_TIMEOUT_SECONDS", 2)
    monkeypatch.setattr(host, "REDIS_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = patient.examine(DATABASE_URL=f"postgresql://nobody@{address}/nothing", REDIS_URL=f"redis://{address}/0")

    assert (found["database"][0].level, found["redis"][0].level) == (Level.FAIL, Level.FAIL)
    assert re.search("Timeout|no answer within 0.5 s", found["redis"][0].found)
    assert "timeout" in found["database"][0].found


# The database


@pytest.mark.parametrize(
    ("seconds", "level"), [(2, Level.OK), (-2, Level.OK), (8, Level.WARN), (-8, Level.WARN), (65, Level.FAIL)]
)
def test_clocks_that_differ_are_told(patient: Patient, seconds: int, level: Level) -> None:
    found = patient.one("clock", ahead=timedelta(seconds=seconds))

    assert (found.level, f"{abs(seconds)}." in found.found or seconds in {2, -2}) == (level, True)


def test_a_database_without_schema_says_init(patient: Patient, empty_database: str) -> None:
    found = patient.examine(DATABASE_URL=empty_database)

    assert (found["database"][0].level, found["schema"][0].level) == (Level.OK, Level.FAIL)
    assert "assetbatch init" in found["schema"][0].hint
    assert "run-priority" not in found


def test_a_schema_of_another_version_and_a_column_that_is_gone_fail(patient: Patient, connection: Connection) -> None:
    connection.execute("alter table data_sources.data_sync_status drop column updated_at")
    tables = patient.one("tables")
    connection.execute(
        "delete from assetbatch.migrations where version = (select max(version) from assetbatch.migrations)"
    )
    version = patient.one("schema")

    assert (tables.level, "data_sync_status.updated_at" in tables.found) == (Level.FAIL, True)
    assert (version.level, "assetbatch init" in version.hint) == (Level.FAIL, True)


@pytest.fixture
def role(connection: Connection) -> Iterator[str]:
    """An ordinary role; its privileges go with it."""
    name = f"role_{time.monotonic_ns()}"
    connection.execute(f"create role {name} login")
    yield name
    connection.execute(f"drop owned by {name}")
    connection.execute(f"drop role {name}")


def test_the_grants_are_all_that_is_needed_and_each_that_is_missing_is_named(
    patient: Patient, connection: Connection, database: str, role: str
) -> None:
    url = psycopg.conninfo.make_conninfo(database, user=role)
    before = patient.one("privileges", DATABASE_URL=url)
    connection.execute(schema.grants(role).encode())
    granted = patient.examine(DATABASE_URL=url)
    connection.execute(f"revoke update (metadata) on trading.symbols from {role}")
    connection.execute(f"revoke delete on assetbatch.queue from {role}")
    connection.execute(f"revoke execute on function assetbatch.keep_partitions from {role}")

    revoked = patient.one("privileges", DATABASE_URL=url)

    assert (before.level, "usage on schema assetbatch" in before.found) == (Level.FAIL, True)
    assert (granted["privileges"][0].level, granted["role"][0]) == (Level.OK, Finding(Level.OK, "role", role))
    assert not any("could not be checked" in one.found for found in granted.values() for one in found)
    assert revoked.found == (
        "missing: delete on assetbatch.queue; update (metadata) on trading.symbols;"
        " execute on function assetbatch.keep_partitions"
    )
    assert f"`assetbatch init --grants {role}`" in before.hint
    assert revoked.hint.startswith("as the tables' owner: GRANT delete on assetbatch.queue TO ")


def test_a_serial_id_needs_its_sequence(patient: Patient, connection: Connection, database: str, role: str) -> None:
    connection.execute(schema.grants(role).encode())
    connection.execute("alter table trading.symbols alter id drop identity")
    connection.execute(
        "create sequence trading.ids; alter table trading.symbols alter id set default nextval('trading.ids')"
    )

    found = patient.one("privileges", DATABASE_URL=psycopg.conninfo.make_conninfo(database, user=role))

    assert (found.found, found.hint) == (
        "missing: usage on sequence trading.ids",
        f'as the tables\' owner: GRANT usage on sequence trading.ids TO "{role}"',
    )


def test_columns_that_round_are_named(patient: Patient, connection: Connection) -> None:
    connection.execute("create domain public.money8 as numeric(20, 8)")
    connection.execute(
        "alter table market_data.ohlcv_5m alter open type numeric(20, 8), alter volume type bigint,"
        " alter close type double precision, alter high type public.money8"
    )

    found = patient.one("numbers")

    assert found.level is Level.WARN
    assert found.found.endswith(": open numeric(20,8), high money8, volume bigint")


def test_a_pooler_is_told_and_nothing_breaks_behind_it(patient: Patient, database: str, pgbouncer: int) -> None:  # noqa: F811
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    found = patient.examine(DATABASE_URL=f"postgresql://assetbatch@127.0.0.1:{pgbouncer}/{name}")

    assert found["database"][0].found.endswith(", through a pooler")
    assert not any("could not be checked" in one.found for each in found.values() for one in each)
    assert "pooler" not in patient.one("database").found


def test_a_database_of_another_source_fails(patient: Patient, connection: Connection) -> None:
    none = patient.examine()["database"]
    schema.claim_source(connection, "api.massive.com")

    other = patient.examine()["database"]
    same = patient.examine(POLYGON_BASE_URL="https://api.polygon.io")["database"]

    assert [len(none), len(same)] == [1, 1]
    assert (other[1].level, "provider.base_url is of sandbox" in other[1].found) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("alter table assetbatch.outbox rename column published_at to announced_at", "UndefinedColumn"),
        ("lock table assetbatch.bar_state in access exclusive mode", "LockNotAvailable"),
    ],
)
def test_a_check_that_breaks_or_has_to_wait_is_a_line_and_hides_no_other(
    patient: Patient, connection: Connection, harm: str, words: str
) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(harm.encode())
        if "lock" not in harm:
            connection.execute("commit")
        found = patient.examine()

    assert (found["status"][0].level, words in found["status"][0].found) == (Level.FAIL, True)
    assert [found[name][0].level for name in ("clock", "schema", "privileges")] == [Level.OK] * 3


def test_a_connection_that_breaks_off_is_told_once(
    patient: Patient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(broken: Connection) -> Iterator[Finding]:
        connection.execute("select pg_terminate_backend(%s, 5000)", [broken.info.backend_pid])
        broken.execute("select 1")
        yield from ()

    monkeypatch.setattr(doctor.database, "privileges", end)

    found = patient.examine()

    assert found["privileges"][0].level is Level.FAIL
    assert found["database"][-1].found == "the connection broke off"
    assert not found.keys() & {"numbers", "status", "bars"}


# How things go


def test_jobs_that_never_ran_or_stopped_are_told(patient: Patient, connection: Connection) -> None:
    names = ("run-priority", "drain-queue", "enqueue-secondary")
    connection.execute(
        "insert into assetbatch.assets"
        " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
        " values ('BTCUSD', 'X:BTCUSD', 'crypto', 'priority', 1, 300, 'config')"
    )
    never = patient.examine(POLYGON_RATE_LIMIT="5")
    for name, minutes in reversed(list(zip(names, (11, 6, 61), strict=True))):
        add_run(connection, name, minutes=minutes)
    idle = patient.examine(POLYGON_RATE_LIMIT="5")
    busy = patient.examine()  # without a limit, there are bars to be asked for
    for name, minutes in zip(names, (9, 4, 59), strict=True):
        add_run(connection, name, minutes=minutes)

    well = patient.examine()

    assert [never[name][0].level for name in names] == [Level.FAIL, Level.OK, Level.OK]
    assert "assetbatch install cron" in never["run-priority"][0].hint
    assert [idle[name][0].level for name in names] == [Level.FAIL, Level.OK, Level.WARN]
    assert "running on here," in idle["run-priority"][0].hint
    assert [busy[name][0].level for name in names] == [Level.FAIL, Level.WARN, Level.WARN]
    assert [well[name][0].level for name in names] == [Level.OK] * 3


def test_items_that_are_due_want_a_drain(patient: Patient, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at)"
        " select 'ETHUSDT', 3, t, t, t, t from (select clock_timestamp() - interval '6 minutes' as t) v"
    )

    assert patient.one("drain-queue", POLYGON_RATE_LIMIT="5").level is Level.WARN


@pytest.mark.parametrize(
    ("job", "status", "minutes", "level"),
    [
        ("run-priority", "failed", (7, 2), Level.WARN),
        ("run-priority", "failed", (11, 6, 1), Level.FAIL),
        ("run-priority", "running", (7, 2), Level.WARN),
        ("drain-queue", "failed", (1.5, 0.5), Level.WARN),
        ("drain-queue", "failed", (2.5, 1.5, 0.5), Level.FAIL),
        ("enqueue-secondary", "failed", (59, 29), Level.WARN),
        ("enqueue-secondary", "failed", (61, 31, 1), Level.FAIL),
    ],
)
def test_runs_that_fail_are_told_with_their_mend_and_fail_a_job_after_two_intervals(
    patient: Patient, connection: Connection, job: str, status: str, minutes: tuple[float, ...], level: Level
) -> None:
    kind, error = ("unreachable", "no route") if status != "running" else (None, None)
    add_run(connection, job, minutes=minutes[0] + 1)
    for ago in minutes:
        add_run(connection, job, minutes=ago, status=status, error_kind=kind, error=error)
    # One that is going on now has not ended, and tells nothing.
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, ends_by)"
        " values (%s, 'here', '0.1.0', 'starter', clock_timestamp() + interval '1 minute')",
        [job],
    )

    found = patient.examine()[job][0]

    assert (found.level, (error or "killed") in found.found) == (level, True)
    assert f"the last {len(minutes)} runs of {job} failed" in found.found
    assert ("provider.base_url" if kind else f"-v {job}") in found.hint


def test_dead_letters_and_bars_that_failed_are_named(patient: Patient, connection: Connection) -> None:
    connection.execute(ADD_DEAD_LETTERS)
    add_assets(connection, "C:EURUSD")
    connection.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, error_kind, error)"
        " values ('EURUSD', 'epoch', 'invalid', 'a bar without a close'), ('BTCUSD', 'epoch', null, null)"
    )

    found = patient.examine()

    assert found["queue"][0].level is Level.WARN
    assert found["queue"][0].found == (
        "7 dead letters, the last one within a day: S1, S2, S3, S4, S5 and 2 more; who is S1"
    )
    assert found["queue"][0].hint.endswith("`assetbatch queue retry S1` once it is fixed")
    assert (found["bars"][0].level, found["bars"][0].found) == (
        Level.WARN,
        "the last call for bars failed for EURUSD; EURUSD: a bar without a close",
    )


def test_bars_of_assets_that_are_gone_are_no_trouble(patient: Patient, connection: Connection) -> None:
    add_assets(connection, "C:GONEUSD")
    connection.execute("update assetbatch.assets set enabled = false where symbol = 'GONEUSD'")
    connection.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, error_kind, error)"
        " values ('GONEUSD', 'epoch', 'timeout', 'too slow'), ('REMOVED', 'epoch', 'timeout', 'too slow')"
    )

    assert patient.one("bars").level is Level.OK


def test_events_that_wait_for_long_are_told(patient: Patient, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.outbox (symbol, seq, payload, created_at)"
        " values ('EURUSD', 1, '{}', clock_timestamp() - interval '4 minutes')"
    )
    fresh = patient.one("events")
    connection.execute("update assetbatch.outbox set created_at = created_at - interval '2 minutes'")

    assert (fresh.level, fresh.found) == (Level.OK, "1 waiting, the oldest for 4 min; published by postgres")
    assert patient.one("events").level is Level.WARN


def test_a_plan_that_the_key_contradicts_fails_and_one_that_says_so_does_not(
    patient: Patient, connection: Connection
) -> None:
    before = patient.examine()["plan"]
    connection.execute(
        "insert into assetbatch.entitlements (key_fingerprint, plan, access, allowed, asked_at, reason)"
        " select %s, plan, 'snapshots', false, clock_timestamp(), 'not in your plan' from unnest(%s::text[]) plan",
        [KEY, ["starter", "free"]],
    )

    refused = patient.examine()["plan"]

    assert [one.level for one in before] == [Level.OK]
    assert [one.level for one in refused] == [Level.OK, Level.FAIL]
    assert all(word in refused[1].found for word in ("starter", "snapshots", "not in your plan"))
    assert "probe" in refused[1].hint
    assert len(patient.examine(POLYGON_TIER="free")["plan"]) == 1


def test_refused_calls_and_hosts_that_disagree_are_told(patient: Patient, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.api_calls (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets)"
        " values (1, 'snapshot', 'rate_limited', 429, true, 1, 1, 1)"
    )
    connection.execute(ADD_HOSTS, {"key": KEY})
    add_run(connection, "run-priority", host="h1", version="0.1.0")
    add_run(connection, "run-priority", host="h2", version="0.2.0", plan="free")

    found = patient.examine()

    assert (found["calls"][0].level, "1 call " in found["calls"][0].found) == (Level.WARN, True)
    assert [one.level for one in found["hosts"]] == [Level.WARN] * 3
    assert [one.found for one in found["hosts"]] == [
        "hosts have different limits, the strictest holds: h1 5 in 60 s, h2 4 in 60 s",
        "versions differ: h1 0.1.0, h2 0.2.0",
        "plans differ: h1 starter, h2 free",
    ]
