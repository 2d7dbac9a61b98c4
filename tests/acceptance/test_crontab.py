from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.config.settings import Settings
from tests.conftest import Commands

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

CRONTAB = Path(__file__).parents[2] / "crontab.example"
PROGRAM = "/opt/assetbatch/.venv/bin/assetbatch"
CONFIG = "/etc/assetbatch/config.yaml"
FIELD = re.compile(r"\*(/\d+)?")


def entries() -> list[tuple[list[str], list[str]]]:
    """Each line's five fields of time, and its command in words."""
    found = []
    for line in CRONTAB.read_text().splitlines():
        if line and not line.startswith("#") and not re.match(r"[A-Z]+=", line):
            # A bare percent sign ends the command for cron.
            assert "%" not in line
            *fields, command = line.split(maxsplit=5)
            found.append((fields, shlex.split(command)))
    return found


def test_every_job_has_its_line() -> None:
    assert [words[3] for _, words in entries()] == ["run-priority", "drain-queue", "enqueue-secondary"]


@pytest.mark.parametrize(("fields", "words"), entries())
def test_a_line_is_one_that_cron_and_its_reader_understand(fields: list[str], words: list[str]) -> None:
    assert all(FIELD.fullmatch(field) for field in fields)
    assert words[:3] == [PROGRAM, "--config", CONFIG]


def test_it_starts_the_jobs_as_often_as_the_configuration_expects() -> None:
    minutes = {words[3]: fields[0] for fields, words in entries()}
    batch = Settings().batch

    assert minutes["run-priority"] == f"*/{batch.interval_minutes:g}"
    assert minutes["enqueue-secondary"] == f"*/{batch.enqueue_interval_minutes:g}"
    assert all(fields[1:] == ["*"] * 4 for fields, _ in entries())


def test_its_commands_run_in_turn_and_print_nothing(commands: Commands, connection: Connection) -> None:
    (commands.folder / "here.yaml").write_text("events: {backend: none}\n")
    jobs = {words[3]: words[1:] for _, words in entries()}

    for job in ("run-priority", "enqueue-secondary", "drain-queue"):
        done = commands(*(word if word != CONFIG else "here.yaml" for word in jobs[job]))

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    rows = connection.execute("select job, status from assetbatch.runs order by id").fetchall()
    assert [row["job"] for row in rows] == ["run-priority", "enqueue-secondary", "drain-queue"]
    assert {row["status"] for row in rows} == {"ok"}
    stored = connection.execute("select count(*) as n from trading.symbols where metadata ? 'last_update'").fetchone()
    assert stored == {"n": 7}
