"""The jobs under the system's own cron: minutes of waiting, so only `-m slow` runs this."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import Cron, runs
from tests.conftest import API_KEY, wait_until

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

pytestmark = pytest.mark.slow


def test_cron_keeps_data_fresh_in_silence_and_tells_of_trouble_once(cron: Cron, connection: Connection) -> None:
    fresh = """
    select succeeded_at > clock_timestamp() - interval '90 seconds' as fresh
    from assetbatch.sync_state where symbol = 'BTCUSD'
    """

    wait_until(lambda: runs(connection, "run-priority", exit_code=0) >= 3, seconds=240)
    assert connection.execute(fresh).fetchone() == {"fresh": True}
    assert cron.mails() == []

    cron.configure("a-key-that-is-wrong")
    wait_until(lambda: runs(connection, "run-priority", exit_code=77) >= 3, seconds=240)
    time.sleep(1)
    told = cron.mails("run-priority")
    assert len(told) == 1
    assert "the API refused the key" in told[0]

    known = runs(connection, "run-priority", exit_code=0)
    cron.configure(API_KEY)
    wait_until(lambda: runs(connection, "run-priority", exit_code=0) >= known + 3, seconds=240)
    told = cron.mails("run-priority")
    assert len(told) == 2
    assert len(told[1].splitlines()) == 1
