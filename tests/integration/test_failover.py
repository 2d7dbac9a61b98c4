"""A standby that lags takes over: what it never heard of was granted all the same."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from assetbatch.arrow import bars_table
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.embedded.place import Place
from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules, Slot
from assetbatch.database.setup import schema
from assetbatch.errors import CursorError, DatabaseUnavailableError
from assetbatch.failures import CallError
from tests.conftest import open_database, wait_until
from tests.integration.test_bar_changes import ADD_SYMBOL, bar, export, write
from tests.world import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection

TOLD = "the database has failed over to another server, or was restored"


def limiter(connection: Connection, rules: Rules = RULES) -> RateLimiter:
    return RateLimiter(connection, key="key", host="a", rules=rules, lane=Lane.QUEUE, pause=lambda _seconds: None)


@pytest.fixture
def promoted(short_folder: Path) -> Iterator[tuple[Connection, list[Slot]]]:
    """A connection to a standby that was just promoted, and the slots that were granted while it lagged."""
    folders = [short_folder / name for name in ("primary", "standby")]
    primary, standby = map(EmbeddedServer, folders)
    primary.start(create=True)
    primary.create_database("test")
    with open_database(primary.conninfo("test")) as connection:
        schema.migrate(connection)
        slot = limiter(connection).acquire()
        limiter(connection).release(slot, Outcome.OK)
    primary.stop()
    # The copy is what it has heard until now; where no primary is named, nothing more comes.
    subprocess.run(["cp", "-a", *folders], check=True)
    data = Place.below(folders[1]).data
    signal = data / "standby.signal"
    signal.touch()
    os.chown(signal, data.stat().st_uid, data.stat().st_gid)
    try:
        primary.start(create=False)
        with open_database(primary.conninfo("test")) as connection:
            slots = [limiter(connection).acquire(max_wait_seconds=0) for _ in range(4)]
            with pytest.raises(CallError):
                limiter(connection).acquire(max_wait_seconds=0)
        primary.stop()
        standby.start(create=False)
        with open_database(standby.conninfo("test")) as connection:
            connection.execute("select pg_promote()")
            writes = "select not pg_is_in_recovery() as writes"
            wait_until(lambda: (connection.execute(writes).fetchone() or {})["writes"])
            yield connection, slots
    finally:
        for server in (primary, standby):
            server.stop()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def test_after_a_failover_the_window_is_taken_as_full_and_nobody_else_is_blamed(
    promoted: tuple[Connection, list[Slot]], caplog: pytest.LogCaptureFixture
) -> None:
    connection, slots = promoted

    # A refusal that comes before anybody asks the new server for a slot.
    assert limiter(connection).release(slots[0], Outcome.LIMITED, retry_after_seconds=1)
    with caplog.at_level(logging.WARNING), pytest.raises(CallError) as caught:
        limiter(connection).acquire(max_wait_seconds=90)

    assert 90 < float(str(caught.value).split()[-2]) <= RULES.hold_seconds + 61
    assert [record.message for record in caplog.records if TOLD in record.message]
    # And one that comes after that, of a call that may have been answered at any time until now.
    assert limiter(connection).release(slots[1], Outcome.LIMITED, retry_after_seconds=1)
    # It is told once, and is over with the window.
    caplog.clear()
    age = "update assetbatch.rate_limits set full_by = full_by - interval '97 s', blocked_until = 'epoch'"
    connection.execute(age)
    again = [limiter(connection).acquire(max_wait_seconds=0) for _ in range(4)]
    assert caplog.records == []
    assert not limiter(connection).release(again[0], Outcome.LIMITED, retry_after_seconds=1)


def test_a_standby_exports_without_a_cursor_and_refuses_those_of_before_once_it_took_over(short_folder: Path) -> None:
    folders = [short_folder / name for name in ("first", "second")]
    primary, standby = map(EmbeddedServer, folders)
    conninfo = standby.conninfo("test")
    try:
        primary.start(create=True)
        primary.create_database("test")
        with open_database(primary.conninfo("test")) as connection:
            schema.migrate(connection)
            connection.execute(ADD_SYMBOL, ["BTCUSD"])
            write(connection, "BTCUSD", [bar(0)])
        _, cursor = export(primary.conninfo("test"))
        primary.stop()
        subprocess.run(["cp", "-a", *folders], check=True)
        signal = Place.below(folders[1]).data / "standby.signal"
        signal.touch()
        os.chown(signal, signal.parent.stat().st_uid, signal.parent.stat().st_gid)
        standby.start(create=False)
        table = bars_table(database=conninfo)
        assert table.num_rows == 1
        assert not table.schema.metadata
        with pytest.raises(DatabaseUnavailableError, match="standby"):
            export(conninfo, cursor)
        with open_database(conninfo) as connection:
            connection.execute("select pg_promote()")
            wait_until(lambda: (connection.execute("select not pg_is_in_recovery() as w").fetchone() or {})["w"])
        with pytest.raises(CursorError, match="another server took over"):
            export(conninfo, cursor)
        assert export(conninfo)[1] != cursor
    finally:
        for server in (primary, standby):
            server.stop()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
