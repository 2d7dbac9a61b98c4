"""The database is named, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from tests.unit.configs import EMBEDDED, faults_in, load_in

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://u:hunter22@db.example:6432/trading?sslmode=require"
PARTS = {"DB_HOST": "db.example", "DB_NAME": "trading"}


def test_embedded(tmp_path: Path) -> None:
    database = load_in(tmp_path, EMBEDDED).database
    assert (database.embedded, database.name, database.conninfo) == (True, "assetbatch", None)
    assert database.described == "embedded PostgreSQL, database assetbatch"
    assert load_in(tmp_path, "database: {embedded: true, name: other}").database.name == "other"


def test_url(tmp_path: Path) -> None:
    config = load_in(tmp_path, "", {"DATABASE_URL": URL})
    assert config.database.conninfo is not None
    assert config.database.conninfo.reveal() == URL
    assert config.database.name == "trading"
    assert config.database.described == "trading on db.example:6432 (DATABASE_URL)"
    assert config.origins["database"] == "DATABASE_URL"


@pytest.mark.parametrize(
    ("url", "described"),
    [
        ("postgres://h/d", "d on h:5432"),
        ("postgresql:///d?host=/run/postgresql", "d on /run/postgresql"),
        ("host=h dbname=d password='x y' port=5433", "d on h:5433"),
        ("hostaddr=10.0.0.1 dbname=d", "d on 10.0.0.1:5432"),
        ("postgresql://h1:5432,h2:5433/d", "d on h1,h2"),
        ("postgresql://h1,h2/d", "d on h1,h2"),
        ("postgresql://u:a%40b%2Fc%25@h1:1,[::1]:2/d", "d on h1,::1"),
        ("postgresql://u:a:b@[::1]:5433/d", "d on ::1:5433"),
        ("postgresql://u:pw@%2Frun%2Fpostgresql/d", "d on /run/postgresql"),
        ("postgresql://h/d?user=me@tenant&password=a@b&options=-c%20geqo%3Doff", "d on h:5432"),
        ("postgresql://h?dbname=d&application_name=a#b", "d on h:5432"),
        ("host=@abstract dbname=d password=a@b", "d on @abstract:5432"),
    ],
)
def test_urls_that_libpq_understands(tmp_path: Path, url: str, described: str) -> None:
    assert load_in(tmp_path, "", {"DATABASE_URL": url}).database.described == f"{described} (DATABASE_URL)"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+asyncpg://u:hunter22@h/d", "no connection string"),
        ("hunter22", "no connection string"),
        ("postgresql://u:hunter22@h/d?foo=1", "no connection string"),
        ("postgresql://u:hunter22@h", "names no database"),
        ("postgresql://u:hunter22@/d", "names no host"),
        ("service=hunter22", "names no host and no database"),
        ("postgresql://u:hunter22@h:x/d", "its port is no number from 1 to 65535"),
        ("postgresql://u:hunter22@h:99999/d", "its port is no number from 1 to 65535"),
        ("postgresql://u:hunter22@h:0/d", "its port is no number from 1 to 65535"),
    ],
)
def test_urls_that_name_nothing(tmp_path: Path, url: str, message: str) -> None:
    (fault,) = faults_in(tmp_path, "", {"DATABASE_URL": url})
    assert fault.startswith("DATABASE_URL: database: ")
    assert message in fault


@pytest.mark.parametrize("sign", ["@", "@@", "/", "?", "#", "%", "%4", "%zz", " ", "/1?", "?1/"])
@pytest.mark.parametrize(
    "form", ["u:hun{}hunter22@h/d", "u:12{}hunter22@h:5/d", "u{}hunter22:pw@h/d", "u:{}hunter22@h", "u:hunter22{}@h/d"]
)
def test_a_url_whose_password_is_not_encoded_is_refused_before_anybody_reads_another_host_in_it(
    tmp_path: Path, sign: str, form: str
) -> None:
    (fault,) = faults_in(tmp_path, "", {"DATABASE_URL": "postgresql://" + form.format(sign)})
    assert "hun" not in fault.replace("hunter22", "")
    assert "write @ / ? # % : and spaces as % codes: %40 for @" in fault


def test_parts_of_the_environment(tmp_path: Path) -> None:
    config = load_in(tmp_path, "", {**PARTS, "DB_USER": "me", "DB_PASSWORD": " it's \\ "})
    assert config.database.conninfo is not None
    assert conninfo_to_dict(config.database.conninfo.reveal()) == {
        "host": "db.example",
        "port": "5432",
        "dbname": "trading",
        "user": "me",
        "password": " it's \\ ",
    }
    assert config.database.described == "trading on db.example:5432 (DB_HOST)"


def test_parts_of_the_file_and_the_environment_before_them(tmp_path: Path) -> None:
    text = "database:\n  host: filehost\n  name: filename\n  port: 6000\n  user: fileuser\n"
    config = load_in(tmp_path, text, {"DB_PASSWORD": "pw"})
    assert config.database.described == "filename on filehost:6000 (config.yaml:2)"
    config = load_in(tmp_path, text, {"DB_HOST": "envhost"}, dotenv="DB_NAME=dotname\n")
    assert config.database.described == "dotname on envhost:6000 (DB_HOST)"
    assert config.origins["database.name"] == ".env:1"
    config = load_in(tmp_path, text, {"DATABASE_URL": URL}, dotenv="")
    assert config.database.described == "trading on db.example:6432 (DATABASE_URL)"


@pytest.mark.parametrize(
    ("text", "environ", "dotenv", "fault"),
    [
        ("", {}, "", "config.yaml: database: no database is named: set DATABASE_URL, or DB_HOST and DB_NAME"),
        ("database: {embedded: false}", {}, "", "no database is named"),
        ("", {"DB_PASSWORD": "hunter22"}, "", "no database is named"),
        ("", {"PGHOST": "h", "PGDATABASE": "d"}, "", "no database is named"),
        (
            "",
            {"DATABASE_URL": URL, **PARTS},
            "",
            "DATABASE_URL: database: two databases are named: by DATABASE_URL and by DB_HOST: keep",
        ),
        ("", {"DATABASE_URL": URL, "DB_PASSWORD": "x"}, "", "by DATABASE_URL and by DB_PASSWORD"),
        ("", {"DATABASE_URL": URL}, "\nDB_NAME=d\n", "by DATABASE_URL and by DB_NAME (.env:2)"),
        ("", PARTS, "DATABASE_URL=" + URL, ".env:1: database: two databases are named: by DATABASE_URL (.env:1)"),
        (
            "\n" + EMBEDDED,
            {"DATABASE_URL": URL},
            "",
            "database.embedded: the embedded server is chosen here, and DATABASE_URL names another database: remove",
        ),
        (EMBEDDED, {}, "DB_HOST=h\n", "and DB_HOST (.env:1) names another database"),
        (EMBEDDED, {"DB_NAME": "d"}, "", "and DB_NAME names another database"),
        (
            "database: {embedded: true, host: h}",
            {},
            "",
            "config.yaml:1: database.embedded: the embedded server has no host (config.yaml:1): remove",
        ),
        ("", {"DB_HOST": "h"}, "", "DB_HOST: database: a database is named without its name: set DB_NAME"),
        ("", {"DB_NAME": "d"}, "", "without its host: set DB_HOST or database.host"),
        ("database: {port: 1}", {}, "", "without its host: set DB_HOST or database.host and DB_NAME"),
        ("", {**PARTS, "DB_PORT": "x"}, "", "DB_PORT: database.port: expected a whole number from 1 to 65535"),
        ("", {"DB_HOST": "a b", "DB_NAME": "d"}, "", "DB_HOST: database.host: expected a host's name or address"),
        ("", {"DB_HOST": "h", "DB_NAME": "hunter22 d"}, "", "DB_NAME: database.name: expected a database's name"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, environ: dict[str, str], dotenv: str, fault: str) -> None:
    (told,) = faults_in(tmp_path, text, environ, dotenv=dotenv)
    assert fault in told


@given(
    password=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(str.strip),
    user=st.from_regex(r"[!-~]{1,20}", fullmatch=True),
)
def test_any_password_reaches_libpq_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, password: str, user: str
) -> None:
    config = load_in(tmp_path_factory.getbasetemp(), "", {**PARTS, "DB_PASSWORD": password, "DB_USER": user})
    assert config.database.conninfo is not None
    parsed = conninfo_to_dict(config.database.conninfo.reveal())
    assert (parsed["password"], parsed["user"]) == (password, user)
    assert password in config.secrets
