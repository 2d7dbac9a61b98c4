"""What is told of a stream while it runs and after it: by the command itself, and by all that tell of the system."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import API_KEY, Commands, wait_until
from tests.stream_runs import wait_for_price
from tests.terminal import run_at_terminal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox

LIVE = "select cluster from assetbatch.streams where state = 'live' and confirmed > 0"
ENDED_WITHIN_SECONDS = 2.0


@pytest.fixture
def streaming(commands: Commands, sandbox: Sandbox) -> Commands:
    """The commands, on a plan without limit, with the addresses of the sandbox's WebSocket."""
    url = sandbox.stream.url
    (commands.folder / "config.yaml").write_text(
        f"stream: {{enabled: true, flush_seconds: 0.2, urls: {{forex: '{url}/forex', crypto: '{url}/crypto'}}}}\n"
    )
    commands.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    assert commands("init").returncode == 0
    return commands


@pytest.fixture
def running(streaming: Commands, connection: Connection) -> Iterator[subprocess.Popen[str]]:
    """A stream of both clusters that is live."""
    run = streaming.start("stream", "--json")
    try:
        wait_until(lambda: len(connection.execute(LIVE).fetchall()) == 2, seconds=20)
        yield run
    finally:
        if run.poll() is None:
            run.kill()
        run.communicate(timeout=10)


def told(commands: Commands, *words: str) -> dict[str, Any]:
    done = commands(*words, "--json")
    assert done.returncode in {0, 3}, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_while_it_runs_all_tell_of_it_and_a_signal_ends_it_well_and_by_its_name(
    running: subprocess.Popen[str], streaming: Commands, connection: Connection
) -> None:
    document = told(streaming, "status", "--asset", "BTCUSD")
    found = {one["cluster"]: one for one in document["stream"]}
    assert [(one["state"], one["asked"], one["confirmed"], one["connects"]) for one in found.values()] == [
        ("live", 2, 2, 1),
        ("live", 5, 5, 1),
    ]
    assert all(one["serves"] and one["unconfirmed"] == one["silent"] == [] for one in found.values())
    assert document["asset"]["is_streamed"] is True
    assert [one["metric"] for one in document["alerts"]] == ["jobs.run-priority"]
    shown = streaming("status").stdout
    assert "2 of 2 clusters live" in shown
    assert "Stream  by crypto: no call asks for its quote" in streaming("status", "--asset", "BTCUSD").stdout
    assert told(streaming, "forecast")["streamed"] == 7
    findings = {one["name"]: one for one in told(streaming, "doctor")["findings"]}
    assert findings["stream"]["found"] == "2 of 2 clusters live"
    assert findings["stream addresses"]["level"] == "ok"
    metrics = {family.name: family for family in text_string_to_metric_families(streaming("metrics").stdout)}
    assert [one.value for one in metrics["assetbatch_stream_up"].samples] == [1, 1]

    # What is told after it was confirmed is the stream's: a price of each has to have come.
    for symbol in ("BTCUSD", "ETHUSDT"):
        wait_for_price(connection, symbol, after=datetime.now(UTC))
    running.send_signal(signal.SIGTERM)
    began = time.monotonic()
    stdout, stderr = running.communicate(timeout=10)

    assert time.monotonic() - began < ENDED_WITHIN_SECONDS
    assert running.returncode == 143
    document = json.loads(stdout)
    assert (document["schema"], document["status"]) == ("assetbatch.stream/1", "ok")
    assert set(document["updated"]) >= {"BTCUSD", "ETHUSDT"}
    clusters = {one["cluster"]: one for one in document["clusters"]}
    assert {name: (one["assets"], one["dropped"], one["connects"]) for name, one in clusters.items()} == {
        "forex": (5, 0, 1),
        "crypto": (2, 0, 1),
    }
    assert clusters["crypto"]["events"] > 0
    assert json.loads(stderr)["reason"] == "ended by SIGTERM"
    runs = connection.execute("select status, exit_code, error from assetbatch.runs where job = 'stream'").fetchall()
    assert runs == [{"status": "ok", "exit_code": 0, "error": None}]
    assert {one["state"] for one in told(streaming, "status")["stream"]} == {"ended"}


def test_at_its_limit_it_ends_with_0_and_says_nothing_but_to_the_service_manager(streaming: Commands) -> None:
    address = f"assetbatch test {os.getpid()}"
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address}")
        manager.settimeout(30)
        run = streaming.start("stream", "--max-seconds", "2", NOTIFY_SOCKET=f"@{address}")
        while b"STOPPING=1" not in heard:
            heard.append(manager.recv(100))
        stdout, stderr = run.communicate(timeout=10)

    assert (run.returncode, stdout, stderr) == (0, "", "")
    assert heard[0] == b"READY=1"
    assert heard.count(b"WATCHDOG=1") == len(heard) - 2 > 1


def test_a_service_manager_that_does_not_read_holds_nothing_up(streaming: Commands) -> None:
    address = f"assetbatch test {os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address}")

        done = streaming("stream", "--max-seconds", "6", NOTIFY_SOCKET=f"@{address}", timeout=30)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_log_tells_of_connections_and_drops_and_an_eviction_is_told_loudly(
    streaming: Commands, sandbox: Sandbox, connection: Connection
) -> None:
    run = streaming.start("-v", "stream")
    wait_until(lambda: len(connection.execute(LIVE).fetchall()) == 2, seconds=20)
    assert sandbox.stream.drop("forex") == 1
    assert sandbox.stream.expel("max_connections", "Maximum number of websocket connections exceeded.", "crypto") == 1
    wait_until(lambda: connection.execute("select cluster from assetbatch.streams where state = 'resting'").fetchone())
    (alert,) = [one for one in told(streaming, "status")["alerts"] if one["metric"] == "stream.resting"]
    run.send_signal(signal.SIGTERM)
    _, log = run.communicate(timeout=10)

    assert "crypto: connected, 4 names confirmed, 0 not" in log
    assert "forex: the connection broke off, without a word; the next attempt in" in log
    assert "crypto: max_connections: Maximum number of websocket connections exceeded." in log
    assert alert["message"].startswith("the stream of crypto rests: another connection of this account")
    assert log.endswith("assetbatch stream: ended by SIGTERM\n")
    assert API_KEY not in log


@pytest.mark.parametrize("no_color", [False, True])
def test_at_a_terminal_one_line_tells_how_it_goes_and_a_summary_what_it_did(
    streaming: Commands, no_color: bool
) -> None:
    done, seen = run_at_terminal(
        [sys.executable, "-m", "assetbatch", "stream", "--max-seconds", "8"],
        environment=streaming.environment | ({"NO_COLOR": "1"} if no_color else {}),
        folder=streaming.folder,
        columns=80,
        is_whole=True,
    )

    assert done.returncode == 0
    assert "events a second" in seen
    assert "2 of 2 connections live" in seen
    assert seen.count("\n") <= 2, "more than one line was used"
    *_, last = seen.strip().replace("\r", "\n").splitlines()
    assert "stream: forex 0 events of 5 assets; crypto " in last
    assert last.endswith(" s")
    assert "━" not in seen
    assert not {"\x1b[3", "\x1b[9"} & {seen[at : at + 3] for at in range(len(seen))}


@pytest.mark.parametrize("key", ["", API_KEY])
def test_a_plan_without_it_gets_one_sentence_and_the_ways(streaming: Commands, key: str) -> None:
    done = streaming("stream", POLYGON_TIER="free", POLYGON_API_KEY=key)

    assert (done.returncode, done.stdout) == (78, "")
    first, then = done.stderr.splitlines()
    words = "POLYGON_TIER: provider.plan: the free plan has no WebSocket: streaming takes a paid one"
    assert first == f"assetbatch stream: {words}"
    assert "https://massive.com/pricing" in then
    assert "assetbatch sandbox --plan starter" in then
    doctor = {one["name"]: one for one in told(streaming, "doctor", "--config", str(free(streaming)))["findings"]}
    assert doctor["stream addresses"]["level"] == "fail"


def free(commands: Commands) -> Path:
    """The same configuration, of a free plan."""
    file = commands.folder / "free.yaml"
    file.write_text((commands.folder / "config.yaml").read_text() + "provider: {plan: free}\n")
    commands.environment.pop("POLYGON_TIER", None)
    return file


def test_each_market_with_a_paid_plan_is_a_cluster_and_one_that_is_free_is_left_to_calls(
    streaming: Commands, sandbox: Sandbox
) -> None:
    sandbox.stocks_plan = "developer"
    file = streaming.folder / "config.yaml"
    url = sandbox.stream.url
    assets = [("BRKB", "BRK.B", "stocks"), ("SPX", "I:SPX", "indices"), ("BTCUSD", "X:BTCUSD", "crypto")]
    urls = ", ".join(f"{one}: '{url}/{one}'" for one in ("forex", "crypto", "stocks"))
    rows = ", ".join(
        f"{{symbol: {symbol}, polygon_ticker: '{ticker}', asset_type: {kind}}}" for symbol, ticker, kind in assets
    )
    file.write_text(
        "provider: {plans: {stocks: developer}}\n"
        f"batch: {{priority_assets: [{rows}], secondary_assets: []}}\n"
        f"stream: {{flush_seconds: 0.2, urls: {{{urls}}}}}\n"
    )

    done = streaming("-v", "stream", "--max-seconds", "3", "--json")

    assert done.returncode == 0, done.stderr
    clusters = {one["cluster"]: one["assets"] for one in json.loads(done.stdout)["clusters"]}
    assert clusters == {"forex": 0, "crypto": 1, "stocks": 1}
    assert "indices: not streamed, since the free plan has no WebSocket" in done.stderr
    (session,) = [one for one in sandbox.stream.sessions if one.path == "/stocks"]
    assert list(session.held) == ["T.BRK.B", "AM.BRK.B"]
