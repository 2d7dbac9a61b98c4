"""`run-priority` while the vendor misbehaves: what is bad fails alone, what is good is stored, and the run ends."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_until

if TYPE_CHECKING:
    import subprocess

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

# Of a market that never rests: at a weekend an answer without a price is none that is bad.
ALL = ["ETHUSD", "SOLUSD", "BTCUSD"]
CONNECT_SECONDS, SECONDS = 0.3, 0.4
# Three attempts, two pauses before the others, the start of the process; for a machine under load.
MOST_SECONDS = 15
MOST_MEMORY_MIB = 200
HASTY = f"""
provider: {{connect_timeout_seconds: {CONNECT_SECONDS}, timeout_seconds: {SECONDS}}}
batch: {{priority_assets: [{{symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto, priority: 1}}]}}
"""
PATIENT = """
provider: {connect_timeout_seconds: 5, timeout_seconds: 20}
batch:
  priority_assets:
    - {symbol: ETHUSD, polygon_ticker: "X:ETHUSD", asset_type: crypto, priority: 1}
    - {symbol: SOLUSD, polygon_ticker: "X:SOLUSD", asset_type: crypto, priority: 2}
    - {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto, priority: 3}
  secondary_assets: []
"""
# The command, and then the peak of its own memory: what getrusage tells of a child begins with its parent's.
MEASURED = """
import sys
from assetbatch.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status, open("peak", "w") as peak:
        peak.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@dataclass
class Outcome:
    """How a run went, seen from outside."""

    done: subprocess.CompletedProcess[str]
    seconds: float
    peak_mib: int

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.done.stdout)
        return found

    @property
    def kinds(self) -> dict[str, str]:
        return {failure["symbol"]: failure["kind"] for failure in self.document["failed"]}


def run(commands: Commands, config: str) -> Outcome:
    (commands.folder / "config.yaml").write_text(config)
    began = time.monotonic()
    done = commands.python("-c", MEASURED, "run-priority", "--json", timeout=50)
    outcome = Outcome(done, time.monotonic() - began, int((commands.folder / "peak").read_text()) // 1024)
    assert "Traceback" not in done.stderr
    assert outcome.peak_mib < MOST_MEMORY_MIB
    return outcome


def stored(connection: Connection) -> dict[str, dict[str, Any]]:
    """What the tables of the platform and the outbox say, by symbol; checked for what must hold for any row."""
    rows = connection.execute(
        """
        select symbol, metadata, sync_status, last_sync_timestamp,
               array(select payload from assetbatch.outbox o where o.symbol = s.symbol) as events
        from trading.symbols s
        left join data_sources.data_sync_status d on d.ticker_id = s.id
        """
    ).fetchall()
    for row in rows:
        update = row["metadata"].get("last_update")
        assert (update is not None) == (row["sync_status"] == "success") == (len(row["events"]) == 1)
        assert (update is not None) == (row["last_sync_timestamp"] is not None)
        if update is None:
            assert row["metadata"] == {}
            continue
        at = datetime.fromisoformat(update["timestamp"])
        assert timedelta(minutes=-5) <= datetime.now(UTC) - at < timedelta(minutes=5)
        prices = {key: value for key, value in update.items() if key not in {"timestamp", "updated_at"}}
        assert set(prices) == {"bid", "ask", "last_price", "daily_open", "daily_high", "daily_low", "daily_close"}
        for price in prices.values():
            assert price is None or (Decimal(price).is_finite() and 0 < price < 10**6)
        assert update["last_price"] == row["events"][0]["last_price"]
    return {row["symbol"]: row for row in rows}


@pytest.mark.parametrize(
    ("ether", "sol"),
    [("zero", "nan"), ("negative", "huge"), ("missing", "drop"), ("future", "wrong-ticker")],
)
def test_a_bad_row_fails_alone(
    commands: Commands, connection: Connection, sandbox: Sandbox, ether: str, sol: str
) -> None:
    words = {"ETHUSD": ether, "SOLUSD": sol}
    kinds = {symbol: "missing" if word in {"drop", "wrong-ticker"} else "invalid" for symbol, word in words.items()}
    sandbox.fail = [f"{ether}:X:ETHUSD", f"{sol}:X:SOLUSD"]

    outcome = run(commands, PATIENT)

    assert outcome.done.returncode == 3
    assert outcome.kinds == kinds
    assert (outcome.document["status"], outcome.document["updated"]) == ("partial", ["BTCUSD"])
    assert outcome.document["api_calls_used"] == len(sandbox.arrivals) == 1
    trouble = json.loads(outcome.done.stderr)
    assert {failure["symbol"]: failure["kind"] for failure in trouble["failed"]} == kinds
    rows = stored(connection)
    statuses = {symbol: "no_data" if kind == "missing" else "failed" for symbol, kind in kinds.items()}
    assert {symbol: rows[symbol]["sync_status"] for symbol in ALL} == statuses | {"BTCUSD": "success"}


def test_a_bad_row_leaves_the_good_price_of_before(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    query = """
    select metadata, last_sync_timestamp, sync_status
    from trading.symbols s join data_sources.data_sync_status d on d.ticker_id = s.id where symbol = 'BTCUSD'
    """
    assert run(commands, PATIENT).done.returncode == 0
    before = connection.execute(query).fetchone()
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    sandbox.fail = ["nan:BTC"]

    outcome = run(commands, PATIENT)

    assert outcome.kinds == {"BTCUSD": "invalid"}
    assert before is not None
    assert connection.execute(query).fetchone() == before | {"sync_status": "failed"}


def test_what_is_odd_but_right_is_stored(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    sandbox.fail = ["duplicate", "exponent", "delayed"]

    outcome = run(commands, PATIENT)

    assert (outcome.done.returncode, outcome.done.stderr) == (0, "")
    assert outcome.document["updated"] == ALL
    rows = stored(connection)
    assert {rows[symbol]["sync_status"] for symbol in ALL} == {"success"}


@pytest.mark.parametrize(
    ("word", "exit_code", "kind", "calls"),
    [
        # What answers is not the API, or says no: asking again would not help.
        ("garbage", 3, "malformed", 1),
        ("half", 3, "malformed", 1),
        ("html", 3, "malformed", 1),
        ("nested", 3, "malformed", 1),
        ("bomb", 3, "too_large", 1),
        ("redirect", 3, "redirected", 1),
        ("401", 77, "key_refused", 1),
        ("403-today", 3, "not_yet", 1),
        ("403-in-200", 3, "not_entitled", 3),
        ("404-text", 3, "not_found", 3),
        ("400", 3, "bad_request", 3),
    ],
)
def test_a_bad_answer_is_told_and_nothing_is_stored(
    commands: Commands, connection: Connection, sandbox: Sandbox, word: str, exit_code: int, kind: str, calls: int
) -> None:
    sandbox.fail = [word]

    outcome = run(commands, PATIENT)

    assert outcome.done.returncode == exit_code
    assert outcome.kinds == dict.fromkeys(ALL, kind)
    assert (outcome.document["status"], outcome.document["updated"]) == ("failed", [])
    assert outcome.document["api_calls_used"] == len(sandbox.arrivals) == calls
    rows = stored(connection)
    assert all(rows[symbol]["sync_status"] != "success" for symbol in ALL)
    trouble = json.loads(outcome.done.stderr)
    assert trouble["exit_code"] == exit_code


@pytest.mark.parametrize(
    ("word", "exit_code", "kind"),
    [
        ("timeout", 69, "timeout"),
        ("drip", 69, "timeout"),
        ("drip-headers", 69, "timeout"),
        ("500", 69, "server_error"),
        ("504", 69, "server_error"),
        ("reset", 69, "server_error"),
        ("429", 3, "rate_limited"),
        ("429-retry-after", 3, "rate_limited"),
    ],
)
def test_trouble_at_the_other_end_ends_within_the_time_out(
    commands: Commands, connection: Connection, sandbox: Sandbox, word: str, exit_code: int, kind: str
) -> None:
    sandbox.fail = [word]

    # With one asset there is one call under the limit, so no second attempt.
    outcome = run(commands, HASTY)

    assert outcome.done.returncode == exit_code
    assert outcome.kinds == {"BTCUSD": kind}
    assert outcome.document["api_calls_used"] == len(sandbox.arrivals) == 1
    assert outcome.seconds < MOST_SECONDS
    (call,) = connection.execute("select outcome, latency_ms from assetbatch.api_calls").fetchall()
    assert call["outcome"] == kind
    assert call["latency_ms"] < 1000 * (CONNECT_SECONDS + SECONDS) + 1000
    assert all(row["sync_status"] != "success" for row in stored(connection).values())


def test_a_moment_of_trouble_is_got_over(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    sandbox.fail = ["502"]

    with commands.start("run-priority", "--json") as running:
        wait_until(lambda: sandbox.arrivals)
        sandbox.fail = []
        stdout, stderr = running.communicate(timeout=30)

    assert (running.returncode, stderr) == (0, "")
    document = json.loads(stdout)
    assert (document["updated"], document["api_calls_used"]) == (["XAUUSD", "EURUSD", "BTCUSD"], 2)
    assert [arrival.status for arrival in sandbox.arrivals] == [502, 200]
    assert {row["sync_status"] for row in stored(connection).values()} >= {"success"}


def test_with_single_calls_one_bad_answer_spoils_one_asset(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    sandbox.fail = ["garbage:SOLUSD"]

    outcome = run(commands, PATIENT.replace("provider: {", "provider: {batch_size: 1, "))

    assert outcome.done.returncode == 3
    assert outcome.kinds == {"SOLUSD": "malformed"}
    assert outcome.document["updated"] == ["ETHUSD", "BTCUSD"]
    assert outcome.document["api_calls_used"] == len(sandbox.arrivals) == 3
    rows = stored(connection)
    assert [symbol for symbol in ALL if rows[symbol]["sync_status"] == "success"] == ["ETHUSD", "BTCUSD"]


def test_a_person_is_told_in_one_printable_block(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["redirect"]

    done = commands("run-priority")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("assetbatch run-priority:") == 1
    assert "http://127.0.0.1:9/elsewhere" in done.stderr
    assert "provider.base_url" in done.stderr
    assert done.stderr.replace("\n", "").isprintable()
