"""What the server's errors mean goes by their SQLSTATE, whatever psycopg has them for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import errors

from assetbatch.database.errors import meaning_of
from assetbatch.database.sqlstates import Meaning
from assetbatch.database.sqlstates import meaning_of as by_sqlstate
from assetbatch.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

# Raised by a trigger of the platform in place of a server in trouble; a sequence counts on, rolled back or not.
RAISE = """
create sequence public.raised;
create function public.raise_it() returns trigger language plpgsql as $$
begin
  if nextval('public.raised') <= {times} then
    raise exception 'trouble' using errcode = '{code}';
  end if;
  return new;
end
$$;
create trigger raise_it before update on trading.symbols for each row execute function public.raise_it();
"""
LAST_RUN = "select status, exit_code, error_kind from assetbatch.runs order by id desc limit 1"


def raise_in_updates(connection: Connection, code: str, times: int) -> None:
    connection.execute(RAISE.replace("{times}", str(times)).replace("{code}", code).encode())


@pytest.mark.parametrize("code", ["25P03", "25P04", "57P01", "57P05", "08006", "40001", "40P01", "40003"])
def test_what_passes_is_repeated(commands: Commands, connection: Connection, code: str) -> None:
    raise_in_updates(connection, code, 2)

    run = commands("run-priority", "--json")

    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["updated"] == ["XAUUSD", "EURUSD", "BTCUSD"]
    assert json.loads(run.stdout)["api_calls_used"] == 1


@pytest.mark.parametrize("code", ["25P03", "25P04", "57P01", "08006", "40001", "53200", "53100", "57014", "58030"])
def test_what_does_not_pass_is_no_bug(commands: Commands, connection: Connection, code: str) -> None:
    raise_in_updates(connection, code, 1_000_000)

    run = commands("run-priority", "--json")

    assert run.returncode == 69
    (line,) = run.stderr.splitlines()
    assert "trouble" in json.loads(line)["reason"]
    last = connection.execute(LAST_RUN).fetchone()
    assert last is not None
    assert (last["status"], last["exit_code"]) == ("failed", 69)


def test_each_class_means_what_it_is() -> None:
    known = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, psycopg.Error)]
    known = [one for one in known if one.sqlstate]
    assert len(known) > 200

    for one in known:
        error = one("words")
        code = error.sqlstate or ""
        in_trouble = code.startswith(("08", "25P0", "40", "53", "55", "57", "58", "XX")) or code == "25006"
        # What a program does wrong within a transaction.
        in_trouble &= code not in {"25P01", "25P02"}
        assert (by_sqlstate(error) is not Meaning.OURS) == in_trouble, code
        assert isinstance(meaning_of(error, "test"), DatabaseUnavailableError) == in_trouble, code


def test_what_no_code_is_told_of_is_a_broken_connection_or_a_bug() -> None:
    assert by_sqlstate(psycopg.OperationalError("server closed the connection unexpectedly")) is Meaning.LOST
    assert by_sqlstate(psycopg.InterfaceError("the connection is closed")) is Meaning.LOST
    assert by_sqlstate(psycopg.ProgrammingError("the query has 1 placeholder")) is Meaning.OURS


WORDY = """
create function public.wordy() returns trigger language plpgsql as $$
begin
  raise warning E'one\ntwo';
  if new.symbol = 'BTCUSD' then
    raise exception E'three\nfour' using detail = E'five\nsix';
  end if;
  perform pg_terminate_backend(pg_backend_pid());
  return new;
end
$$;
create trigger wordy before update on trading.symbols for each row execute function public.wordy();
"""


@pytest.mark.parametrize("command", ["run-priority", "drain-queue"])
def test_an_error_of_several_lines_is_one_line_with_json(
    commands: Commands, connection: Connection, command: str
) -> None:
    assert commands("enqueue-secondary").returncode == 0
    connection.execute(WORDY.encode())

    run = commands(command, "--json")

    assert run.returncode == 69
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [line["exit_code"] for line in lines if "exit_code" in line] == [69]
    assert {line["message"] for line in lines if "message" in line} <= {"one\ntwo"}
