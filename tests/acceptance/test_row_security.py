"""What the platform hides from the jobs' role, or takes away from under them: it is told, and prices are stored."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest

from assetbatch.database.setup import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

_numbers = count()
PRICED = """
select count(*) filter (where metadata -> 'last_update' ->> 'last_price' is not null) as prices,
       (select count(*) from data_sources.data_sync_status) as statuses
from trading.symbols
"""


@pytest.fixture
def role(connection: Connection, commands: Commands) -> Iterator[str]:
    """An ordinary role that the commands go by, with what `init --grants` prints."""
    name = f"guarded_{next(_numbers)}"
    connection.execute(f"create role {name} login")
    connection.execute(schema.grants(name).encode())
    commands.environment["DATABASE_URL"] = psycopg.conninfo.make_conninfo(
        commands.environment["DATABASE_URL"], user=name
    )
    yield name
    connection.execute(f"drop owned by {name}")
    connection.execute(f"drop role {name}")


def stored(connection: Connection) -> tuple[int, int]:
    row = connection.execute(PRICED).fetchone()
    assert row is not None
    return row["prices"], row["statuses"]


def doctors(commands: Commands) -> dict[str, tuple[str, str]]:
    findings = json.loads(commands("doctor", "--json").stdout)["findings"]
    return {one["name"]: (one["level"], one["found"]) for one in findings}


def test_a_hidden_provider_is_told_once_and_prices_are_stored_all_the_same(
    commands: Commands, connection: Connection, role: str
) -> None:
    connection.execute("alter table data_sources.api_providers enable row level security")

    first = commands("run-priority")
    again = commands("run-priority")

    words = (
        "data_sources.data_sync_status is not written: row-level security hides the row polygon of"
        f" data_sources.api_providers from role {role}"
    )
    assert (first.returncode, again.returncode) == (0, 0)
    assert words in first.stderr
    assert "let a policy for select show the row" in first.stderr
    assert again.stderr == ""
    assert stored(connection) == (3, 0)
    found = doctors(commands)
    assert found["provider"] == ("warn", words)
    assert found["row security"][0] == "warn"

    connection.execute("create policy seen on data_sources.api_providers for select using (true)")
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    mended = commands("run-priority")
    # On a weekend only crypto is asked for again.
    assert stored(connection)[1] >= 1
    assert "ended" in mended.stderr
    assert "provider" not in doctors(commands)


def test_a_deleted_provider_is_told_and_put_back_by_init(commands: Commands, connection: Connection) -> None:
    connection.execute("delete from data_sources.api_providers")

    done = commands("run-priority")

    assert done.returncode == 0
    assert "data_sources.api_providers has no row polygon. Next: `assetbatch init` puts it there" in done.stderr
    assert stored(connection) == (3, 0)
    assert doctors(commands)["provider"][0] == "warn"
    assert commands("init").returncode == 0
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    commands("run-priority")
    # On a weekend only crypto is asked for again.
    assert stored(connection)[1] >= 1


def test_a_trigger_that_swallows_the_status_is_told(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "create function data_sources.swallow() returns trigger language plpgsql as $$ begin return null; end $$;"
        " create trigger swallow before insert on data_sources.data_sync_status for each row"
        " execute function data_sources.swallow()"
    )

    done = commands("run-priority")

    assert done.returncode == 0
    assert "data_sync_status was not written for 3 assets: a trigger or a rule keeps its rows out" in done.stderr


@pytest.mark.parametrize("table", ["trading.symbols", "data_sources.data_sync_status", "market_data.ohlcv_5m"])
@pytest.mark.parametrize("policy", ["", "for select using (true)", "for insert with check (true)"])
def test_no_policy_makes_a_run_go_well_in_silence_that_stores_nothing(
    commands: Commands, connection: Connection, role: str, table: str, policy: str
) -> None:
    (commands.folder / "config.yaml").write_text(
        "bars: {enabled: true, backfill_days: 1}\nrate_limiting: {calls_per_minute: null}\n"
    )
    commands.environment.pop("POLYGON_RATE_LIMIT")
    assert commands("run-priority").returncode == 0
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    connection.execute("update assetbatch.bar_state set asked_until = asked_until - interval '1 hour', asked_at = null")
    connection.execute("delete from market_data.ohlcv_5m where ts > now() - interval '40 minutes'")
    connection.execute(f"alter table {table} enable row level security")
    if policy:
        connection.execute(f"create policy seen on {table} {policy}")

    done = commands("run-priority")

    assert done.returncode in {0, 3, 78}
    assert "row-level security" in done.stderr or "row security" in done.stderr
    assert "Traceback" not in done.stderr
    assert doctors(commands)["row security"][0] == "warn"


def test_doctor_and_the_check_of_init_name_table_role_and_policy(
    commands: Commands, connection: Connection, role: str
) -> None:
    owners = commands.environment["DATABASE_URL"].replace(f"user={role}", "user=assetbatch")
    for table in ("trading.symbols", "data_sources.api_providers", "market_data.ohlcv_5m"):
        connection.execute(f"alter table {table} enable row level security".encode())
    connection.execute(
        f"create policy mine on trading.symbols for select to {role} using (true);"
        " create policy theirs on trading.symbols for all to pg_monitor using (true);"
        " create policy seen on data_sources.api_providers for select using (true)".encode()
    )
    decides = f"decides what {role} sees and writes"
    told = [
        f"row-level security of data_sources.api_providers {decides}: seen (for select to public)",
        f"row-level security of market_data.ohlcv_5m has no policy for {role}, which sees and writes no row",
        f"row-level security of trading.symbols {decides}: mine (for select to {role})",
    ]

    assert doctors(commands)["row security"] == ("warn", "; ".join(told))
    assert json.loads(commands("init", "--check", "--json").stdout)["row_security"] == told
    assert told[1] in commands("init", "--check").stdout
    others = json.loads(commands("init", "--check", "--json", DATABASE_URL=owners).stdout)["row_security"]
    assert others[2] == (
        "row-level security of trading.symbols does not bind assetbatch, but others:"
        f" mine (for select to {role}), theirs (for all to pg_monitor)"
    )
    findings = json.loads(commands("doctor", "--json").stdout)["findings"]
    (hint,) = [one["hint"] for one in findings if one["name"] == "row security"]
    connection.execute(hint.partition("owner: ")[2].encode())
    assert commands("run-priority").returncode == 0
    assert stored(connection) == (3, 3)
