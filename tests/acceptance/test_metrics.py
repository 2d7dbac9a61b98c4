from __future__ import annotations

import json
import signal
import socket
import stat
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

AWAY = "postgresql://nobody@127.0.0.1:9/nothing"


def families(text: str) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found)
    return {family.name.removeprefix("assetbatch_"): family for family in found}


def value(family: Metric, **labels: str) -> float:
    """Return the value of the series with these labels, beside the one that all have."""
    (found,) = [one.value for one in family.samples if one.labels.items() - labels.items() == own_label(one.labels)]
    return float(found)


def own_label(labels: dict[str, str]) -> set[tuple[str, str]]:
    return {("installation", labels["installation"])}


def test_metrics_are_told_as_prometheus_reads_them(commands: Commands, connection: Connection) -> None:
    commands("run-priority")
    connection.execute(
        "insert into assetbatch.queue"
        " (symbol, state, priority, waiting_since, rank, enqueued_at, available_at, died_at)"
        " select 'S' || n, state, n, at, at, at, at, case when state = 'dead' then at end"
        " from (values (1, 'queued'), (3, 'delayed'), (4, 'dead')) q (n, state),"
        " (select clock_timestamp() - interval '1 hour' as at) t"
    )

    done = commands("metrics")

    assert (done.returncode, done.stderr) == (0, "")
    found = families(done.stdout)
    assert all(line.startswith(("# ", "assetbatch_")) for line in done.stdout.splitlines())
    assert all(family.type == "gauge" and family.documentation for family in found.values())
    assert value(found["up"]) == 1
    assert value(found["health"]) == 1
    assert value(found["alerts"], metric="jobs.drain-queue", level="warning") == 1
    assert value(found["alerts"], metric="queue.dead", level="warning") == 1
    assert value(found["alerts_by_level"], level="critical") == 0
    assert value(found["job_runs_last_day"], job="run-priority", status="ok") == 1
    assert value(found["job_last_run_status"], job="run-priority", status="ok") == 1
    assert value(found["job_last_run_status"], job="run-priority", status="failed") == 0
    assert value(found["job_last_success_timestamp_seconds"], job="run-priority") > 1.7e9
    assert value(found["api_calls_last_hour"]) == 1
    assert value(found["api_budget_limit_calls"]) == 5
    assert value(found["queue_items"], priority="CRITICAL", state="queued") == 1
    assert value(found["queue_items"], priority="LOW", state="dead") == 1
    assert value(found["queue_dead_letters"]) == 1
    assert 3600 <= value(found["queue_oldest_item_age_seconds"], priority="MEDIUM") < 3700
    assert value(found["assets"], state="fresh") == 3
    assert value(found["price_age_seconds"], symbol="EURUSD") < 3600
    assert value(found["market_age_seconds"], symbol="BTCUSD") < 3600
    assert (value(found["events_pending"]), value(found["events_dropped"])) == (0, 0)
    assert [set(sample.labels) for sample in found["build_info"].samples] == [{"installation", "version"}]


def test_an_unhealthy_system_has_metrics_too_and_json_has_those_of_status(commands: Commands) -> None:
    text, document = commands("metrics"), commands("metrics", "--json")

    assert (text.returncode, document.returncode) == (0, 0)
    assert value(families(text.stdout)["health"]) == 2
    told = json.loads(document.stdout)
    assert (told["schema"], told["status"]) == ("assetbatch.metrics/1", "unhealthy")
    assert told["metrics"] == json.loads(commands("status", "--json").stdout)["metrics"]


def test_a_file_is_replaced_at_once_and_everybody_may_read_it(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    file = folder / "assetbatch.prom"
    file.write_text("old\n")
    before = file.stat().st_ino

    done = commands("metrics", "--output", str(file))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert value(families(file.read_text())["up"]) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.stat().st_ino != before
    assert list(folder.iterdir()) == [file]


@pytest.mark.parametrize(("url", "exit_code", "health"), [(AWAY, 69, [2]), ("", 78, [])])
def test_what_cannot_be_read_is_not_up(
    commands: Commands, tmp_path: Path, url: str, exit_code: int, health: list[float]
) -> None:
    file = tmp_path / "assetbatch.prom"
    file.write_text("assetbatch_up 1\n")

    done = commands("metrics", "--output", str(file), DATABASE_URL=url)

    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr
    found = families(file.read_text())
    assert value(found["up"]) == 0
    assert [sample.value for sample in found["health"].samples] == health
    assert set(found) == {"up", "health", "build_info"}


@pytest.mark.parametrize("others", [{"DATABASE_URL": AWAY}, {"DATABASE_URL": ""}, {"ASSETBATCH_CONFIG": "named.yaml"}])
def test_no_series_of_two_installations_are_equal(commands: Commands, tmp_path: Path, others: dict[str, str]) -> None:
    (tmp_path / "named.yaml").write_text("instance: the other one\n")
    files = [tmp_path / "one.prom", tmp_path / "other.prom"]

    commands("metrics", "--output", str(files[0]))
    commands("metrics", "--output", str(files[1]), **cast("dict[str, Any]", others))

    series = [
        {(sample.name, *sorted(sample.labels.items())) for family in found.values() for sample in family.samples}
        for found in (families(file.read_text()) for file in files)
    ]
    assert all(series)
    assert series[0] & series[1] == set()


def test_an_installation_is_called_as_configured_or_by_host_and_database(
    commands: Commands, tmp_path: Path, database: str
) -> None:
    unnamed = families(commands("metrics").stdout)["up"].samples[0].labels["installation"]
    (tmp_path / "config.yaml").write_text('instance: "main"\n')
    named = families(commands("metrics").stdout)["up"].samples[0].labels["installation"]

    assert unnamed.startswith(f"{socket.gethostname()}: {conninfo_to_dict(database)['dbname']} ")
    assert named == "main"


def test_a_file_that_cannot_be_written_is_wrong_usage(commands: Commands, tmp_path: Path) -> None:
    done = commands("metrics", "--output", str(tmp_path / "nowhere" / "assetbatch.prom"))

    assert done.returncode == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("command", [("metrics", "--output", "all.prom"), ("status", "--check")])
def test_a_signal_while_it_reads_says_nothing_about_the_system(
    commands: Commands, connection: Connection, command: tuple[str, ...]
) -> None:
    assert commands("init").returncode == 0
    with connection.transaction():
        connection.execute("lock table assetbatch.runs in access exclusive mode")
        run = commands.start(*command)
        wait_until(lambda: connection.execute("select from pg_locks where not granted").fetchone() is not None)
        run.send_signal(signal.SIGTERM)
        stdout, _ = run.communicate(timeout=10)

    assert (run.returncode, stdout) == (143, "")
    assert not (commands.folder / "all.prom").exists()
