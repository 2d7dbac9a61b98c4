"""The key and the passwords appear nowhere: not printed, logged, stored, announced, sent in a URL or listed."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from assetbatch.sandbox.server import Sandbox
from tests.conftest import Commands, RedisServer, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from assetbatch.database.connection import Connection

# With what needs codes in URLs, escapes in JSON and quotes in libpq's strings.
KEY = 'k9Zq/4+T%x="7B\\mP'
DATABASE_PASSWORD = "d8Wn/6+R%y='5C\\hL"
REDIS_PASSWORD = 'r7Vt/3+S%z="2D\\jN'
SECRETS = (KEY, DATABASE_PASSWORD, REDIS_PASSWORD)
FORMATS = ["plain", "json", "journald"]


def dresses(secret: str) -> set[str]:
    """A secret as it may be written: plain, percent-encoded, in JSON, in Python, in a connection string."""
    plain = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote(secret, safe="").lower()}
    libpq = secret.replace("\\", "\\\\").replace("'", "\\'")
    written = plain | {libpq, repr(secret)[1:-1], secret[:6], secret[-6:]}
    return written | {json.dumps(text)[1:-1] for text in written}


def assert_no_secret(place: str, text: str) -> None:
    for secret in SECRETS:
        for dress in dresses(secret):
            assert dress not in text, f"a secret stands in {place}"


def assert_silent(done: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in done.stderr
    assert_no_secret("stdout", done.stdout)
    assert_no_secret("stderr", done.stderr)


def assert_none_stored(connection: Connection) -> None:
    """Look through every row of every table, and through what the server knows of its clients."""
    tables = connection.execute(
        """
        select table_schema as schema, table_name as name from information_schema.tables
        where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')
        """
    ).fetchall()
    assert {table["schema"] for table in tables} >= {"assetbatch", "trading", "data_sources"}
    for table in [*tables, {"schema": "pg_catalog", "name": "pg_stat_activity"}]:
        place = sql.Identifier(table["schema"], table["name"])
        for row in connection.execute(sql.SQL("select t::text as shown from {} t").format(place)):
            assert_no_secret(f"{table['schema']}.{table['name']}", row["shown"])


def assert_none_in_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert_no_secret(str(path), path.read_bytes().decode(errors="replace"))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(key=KEY, plan="starter") as server:
        yield server


@pytest.fixture
def commands(tmp_path: Path, database: str, sandbox: Sandbox, redis_server: RedisServer) -> Commands:
    """The commands with a secret wherever there can be one; the Redis asks for its password."""
    import redis

    with redis.Redis(port=redis_server.port) as administrator:
        administrator.config_set("requirepass", REDIS_PASSWORD)
    return Commands(
        tmp_path,
        {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "DATABASE_URL": make_conninfo(database, password=DATABASE_PASSWORD),
            "POLYGON_API_KEY": KEY,
            "POLYGON_BASE_URL": sandbox.url,
            "POLYGON_TIER": "starter",
            "POLYGON_RATE_LIMIT": "5",
            "REDIS_URL": redis_url(redis_server.port),
        },
    )


@pytest.fixture
def bare(tmp_path: Path) -> Commands:
    """The commands where there is no server at all."""
    variables = {"POLYGON_API_KEY": KEY, "REDIS_URL": redis_url(9)}
    return Commands(tmp_path, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | variables)


def redis_url(port: int) -> str:
    return f"redis://:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:{port}/0"


def database_uri(conninfo: str, **changes: str) -> str:
    """The same connection as a URI, its password with % codes."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value} | changes
    options = "&".join(f"{name}={quote(parts[name], safe='')}" for name in ("host", "port", "requirepeer"))
    password = quote(DATABASE_PASSWORD, safe="")
    return f"postgresql://{parts['user']}:{password}@/{parts['dbname']}?{options}"


# Good runs


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_good_run_tells_stores_and_announces_no_secret(
    commands: Commands, connection: Connection, sandbox: Sandbox, redis_server: RedisServer, log_format: str
) -> None:
    import redis

    with redis.Redis(port=redis_server.port, password=REDIS_PASSWORD) as subscriber:
        pubsub = subscriber.pubsub(ignore_subscribe_messages=True)
        pubsub.psubscribe("*")
        pubsub.get_message(timeout=5)

        done = commands("-vv", "--log-format", log_format, "run-priority", "--json")

        messages = [pubsub.get_message(timeout=5) for _ in range(3)]
        pubsub.close()
    assert done.returncode == 0
    assert done.stderr
    assert_silent(done)
    assert len(sandbox.arrivals) == 1
    assert_no_secret("the URLs", sandbox.arrivals[0].path)
    assert {message["channel"] for message in messages if message} == {
        f"asset:update:{symbol}".encode() for symbol in ("XAUUSD", "EURUSD", "BTCUSD")
    }
    assert_no_secret("events", repr(messages))
    assert_none_stored(connection)
    assert_none_in_files(commands.folder)


def test_a_notification_has_no_secret(commands: Commands, connection: Connection) -> None:
    connection.execute('listen "asset:update"')

    done = commands("-vv", "run-priority", REDIS_URL="")

    assert done.returncode == 0
    assert_silent(done)
    payloads = [event.payload for event in connection.plain.notifies(timeout=10, stop_after=3)]
    assert len(payloads) >= 3
    assert_no_secret("NOTIFY", " ".join(payloads))


COMMANDS = [
    ["init"],
    ["run-priority"],
    ["status"],
    ["status", "--json"],
    ["status", "--check"],
    ["config", "show"],
    ["config", "show", "--json"],
    ["config", "show", "--defaults"],
    ["config", "check"],
    ["config", "check", "--json"],
    ["database", "stop"],
]


def test_no_command_tells_a_secret(commands: Commands, connection: Connection, database: str) -> None:
    commands.environment["DATABASE_URL"] = database_uri(database)
    for number, command in enumerate(COMMANDS):
        done = commands("-vv", "--log-format", FORMATS[number % 3], *command)

        # `status` finds jobs that are not there yet; all others do what they are asked.
        assert done.returncode in ({0, 1, 2} if "status" in command else {0}), (command, done.stderr)
        assert done.stdout or command == ["run-priority"]
        assert_silent(done)
    assert_none_stored(connection)
    assert_none_in_files(commands.folder)


def test_the_configuration_shows_that_there_are_secrets(bare: Commands) -> None:
    bare.environment["DATABASE_URL"] = f"postgresql://u:{quote(DATABASE_PASSWORD, safe='')}@127.0.0.1:9/db"

    values = json.loads(bare("config", "show", "--json").stdout)["values"]

    shown = {row["key"]: row["value"] for row in values}
    assert shown["api_key"] == "***"
    assert shown["redis_url"] == "***"


# Trouble


@pytest.mark.parametrize(
    ("trouble", "exit_code", "log_format"),
    [
        ({"POLYGON_BASE_URL": "http://127.0.0.1:9"}, 69, "plain"),
        ({"POLYGON_BASE_URL": f"http://x:{KEY}@127.0.0.1:9"}, 78, "json"),
        ({"POLYGON_BASE_URL": f"http://127.0.0.1:9/?apiKey={KEY}"}, 78, "journald"),
        ({"POLYGON_TIER": KEY}, 78, "plain"),
        ({"POLYGON_API_KEY": f"{KEY} {KEY}"}, 78, "json"),
    ],
    ids=["unreachable", "in the base URL", "in the query of the base URL", "in the wrong place", "twice"],
)
def test_trouble_with_the_api_tells_no_secret(
    commands: Commands, connection: Connection, trouble: dict[str, str], exit_code: int, log_format: str
) -> None:
    commands.environment |= trouble

    done = commands("-vv", "--log-format", log_format, "run-priority", "--json")

    assert done.returncode == exit_code
    assert done.stderr
    assert_silent(done)
    assert_none_stored(connection)


def test_a_wrong_key_is_not_repeated(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    with Sandbox(key="another") as other:
        done = commands("-vv", "run-priority", POLYGON_BASE_URL=other.url)

    assert done.returncode == 77
    assert_silent(done)
    assert_none_stored(connection)


def broken_urls() -> Iterator[tuple[str, str, int]]:
    """DATABASE_URL as people get it wrong: (how, value, exit code)."""
    encoded = quote(DATABASE_PASSWORD, safe="")
    yield "nobody listens", f"postgresql://u:{encoded}@127.0.0.1:9/db", 69
    yield "password without codes", f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:9/db", 78
    yield "a port that is none", f"postgresql://u:{encoded}@127.0.0.1:port/db", 78
    yield "no host", f"postgresql://u:{encoded}@/db", 78
    yield "an unknown option", f"postgresql://u@127.0.0.1:9/db?passwort={encoded}", 78
    yield "words", f"host=127.0.0.1 port=9 dbname=db password={DATABASE_PASSWORD} {DATABASE_PASSWORD}", 78
    yield "the password alone", DATABASE_PASSWORD, 78


@pytest.mark.parametrize(("url", "exit_code"), [pytest.param(url, code, id=how) for how, url, code in broken_urls()])
def test_trouble_with_the_database_tells_no_secret(bare: Commands, url: str, exit_code: int) -> None:
    # `status` waits for nobody; a job does.
    done = bare("-vv", "--log-format", "json", "status", DATABASE_URL=url)

    assert done.returncode == exit_code, done.stderr
    assert done.stderr
    assert_silent(done)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
@pytest.mark.parametrize("sign", ["@", "/", "?", "#", "%"])
def test_a_password_without_codes_is_refused_and_no_part_of_it_is_told(bare: Commands, name: str, sign: str) -> None:
    scheme = "postgresql" if name == "DATABASE_URL" else "redis"
    bare.environment["DATABASE_URL"] = "postgresql://u@127.0.0.1:9/db"
    bare.environment[name] = f"{scheme}://u:hun{sign}ter@127.0.0.1:9/0"
    for command in (
        ["status", "-vv"],
        ["status", "--check"],
        ["doctor", "-vv"],
        ["config", "show"],
        ["init", "--json"],
    ):
        done = bare(*command)

        assert done.returncode == (3 if "--check" in command else 78)
        told = done.stdout + done.stderr
        assert "% codes" in told
        assert "hun" not in told
        assert "ter@" not in told


def test_a_role_that_does_not_exist_tells_no_secret(commands: Commands, database: str) -> None:
    done = commands("-vv", "status", "--json", DATABASE_URL=database_uri(database, user="nobody_here"))

    assert done.returncode == 69
    assert "nobody_here" in done.stderr
    assert_silent(done)


def test_parts_of_a_database_with_a_password_tell_no_secret(bare: Commands) -> None:
    parts = {"DB_HOST": "127.0.0.1", "DB_PORT": "9", "DB_NAME": "db", "DB_USER": "u", "DB_PASSWORD": DATABASE_PASSWORD}
    bare.environment |= parts
    for command in (["status"], ["config", "show"]):
        done = bare("-vv", *command)

        assert done.returncode == (69 if command == ["status"] else 0)
        assert_silent(done)


@pytest.mark.parametrize(
    ("url", "exit_codes"),
    [
        (f"redis://:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:9/0", {0}),
        (f"redis://user:{quote(REDIS_PASSWORD, safe='')}@PORT/0", {0}),
        (f"redis://:{REDIS_PASSWORD}@PORT/0", {0, 78}),
        (f"redis://:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:port/0", {0, 78}),
    ],
    ids=["nobody listens", "wrong user", "password without codes", "no port"],
)
def test_trouble_with_redis_tells_no_secret(
    commands: Commands, connection: Connection, redis_server: RedisServer, url: str, exit_codes: set[int]
) -> None:
    url = url.replace("PORT", f"127.0.0.1:{redis_server.port}")

    done = commands("-vv", "--log-format", "json", "run-priority", REDIS_URL=url)

    assert done.stderr
    assert_no_secret("stderr", done.stderr)
    assert_none_stored(connection)
    assert done.returncode in exit_codes, done.stderr
    assert_silent(done)


# A server that repeats what it was sent


@contextmanager
def echo(answer: Callable[[str], tuple[int, dict[str, str], dict[str, Any]]]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with what `answer(authorization)` makes; gives its address and the request lines."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.requestline)
            status, headers, document = answer(self.headers["Authorization"])
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def encoded(authorization: str) -> str:
    return quote(authorization, safe="")


ECHOES: dict[str, tuple[int, Callable[[str], tuple[int, dict[str, str], dict[str, Any]]]]] = {
    "message": (3, lambda sent: (403, {}, {"status": "NOT_AUTHORIZED", "message": f"you sent Authorization: {sent}."})),
    "error": (77, lambda sent: (401, {}, {"status": "ERROR", "error": f"unknown: {sent}"})),
    "long": (3, lambda sent: (403, {}, {"status": "NOT_AUTHORIZED", "message": "words " * 47 + f"{sent} " * 5})),
    "status": (3, lambda sent: (200, {}, {"status": sent})),
    "row": (
        3,
        lambda sent: (
            200,
            {},
            {"status": "OK", "results": [{"ticker": "X:BTCUSD", "error": sent, "message": sent}, {"ticker": sent}]},
        ),
    ),
    "location": (3, lambda sent: (302, {"Location": f"/{encoded(sent)}?apiKey={encoded(sent)}"}, {})),
}


@pytest.mark.parametrize("name", ECHOES)
def test_what_the_server_repeats_is_told_and_stored_without_the_key(
    commands: Commands, connection: Connection, name: str
) -> None:
    exit_code, answer = ECHOES[name]
    with echo(answer) as (url, seen):
        done = commands("-vv", "--log-format", "json", "run-priority", "--json", POLYGON_BASE_URL=url)

    assert done.returncode == exit_code, done.stderr
    assert seen
    assert_no_secret("the URLs", " ".join(seen))
    assert_silent(done)
    assert_none_stored(connection)
    errors = connection.execute("select error from assetbatch.sync_state where symbol = 'BTCUSD'").fetchall()
    assert errors[0]["error"]
    assert_none_in_files(commands.folder)
    if name == "message":
        assert_silent(commands("status"))
        assert_silent(commands("status", "--json"))


# While it runs


def test_the_process_list_shows_no_secret(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    sandbox.fail = ["timeout"]
    with commands.start("-vv", "run-priority") as running:
        try:
            wait_until(lambda: sandbox.arrivals)
            shown = Path(f"/proc/{running.pid}/cmdline").read_bytes() + Path(f"/proc/{running.pid}/comm").read_bytes()
            activity = connection.execute("select application_name, query from pg_stat_activity").fetchall()
        finally:
            running.send_signal(signal.SIGTERM)
            stdout, stderr = running.communicate(timeout=10)

    assert b"run-priority" in shown
    assert_no_secret("the process list", shown.decode())
    assert any("assetbatch" in row["application_name"] for row in activity)
    assert_no_secret("pg_stat_activity", repr(activity))
    assert running.returncode == 143
    assert_no_secret("what an interrupted run says", stdout + stderr)
    assert_none_stored(connection)


def test_this_test_would_see_a_secret(connection: Connection) -> None:
    connection.execute("insert into assetbatch.meta values ('leak', %s)", [quote(KEY, safe="")])

    with pytest.raises(AssertionError, match=r"a secret stands in assetbatch\.meta"):
        assert_none_stored(connection)
    with pytest.raises(AssertionError, match="a secret stands in stderr"):
        assert_no_secret("stderr", json.dumps({"reason": f"password={DATABASE_PASSWORD}"}))


def test_a_conninfo_error_of_the_driver_is_what_it_is_feared_to_be() -> None:
    # Why the configuration never repeats the driver's words: they hold the password.
    with pytest.raises(psycopg.ProgrammingError, match=r"6\+R%y"):
        conninfo_to_dict(f"postgresql://u:{DATABASE_PASSWORD}@127.0.0.1:9/db")
