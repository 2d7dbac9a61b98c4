"""The global options: the same before a command, within its name, and after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Commands


def lines(command: str, option: str) -> Iterator[list[str]]:
    """The command line with the option in each place that it may have."""
    words = command.split()
    for place in range(len(words) + 1):
        yield [*words[:place], *option.split(), *words[place:]]


@pytest.mark.parametrize("command", ["forecast", "config check", "symbols list"])
def test_a_configuration_file_may_be_named_in_every_place(commands: Commands, command: str) -> None:
    for line in lines(command, "--config other.yaml"):
        done = commands(*line)

        assert done.returncode == 78, line
        assert "--config: other.yaml does not exist" in done.stderr


def test_of_two_configuration_files_the_one_that_stands_further_right_counts(commands: Commands) -> None:
    done = commands("--config", "a.yaml", "config", "check", "--config", "b.yaml")

    assert "b.yaml does not exist" in done.stderr


@pytest.mark.parametrize("command", ["queue list", "status", "config show"])
def test_json_may_be_asked_for_in_every_place(commands: Commands, command: str) -> None:
    for line in lines(command, "--json"):
        document = json.loads(commands(*line).stdout)

        assert document["schema"] == f"assetbatch.{command.replace(' ', '-')}/1"


def test_each_v_adds_to_those_before(commands: Commands) -> None:
    told = {
        line: commands(*line.split()).stderr
        for line in ("forecast", "-v forecast", "forecast -vv", "-v forecast -v", "-vv forecast")
    }

    assert told["forecast"] == ""
    statements = {line: "select" in text for line, text in told.items()}
    assert statements == {line: line.count("v") == 2 for line in told}


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_counts_in_every_place(commands: Commands, option: str) -> None:
    assert "the queue is full" in commands("enqueue-secondary", QUEUE_MAX_SIZE="1").stderr
    for line in lines("enqueue-secondary --all", option):
        assert commands(*line, QUEUE_MAX_SIZE="1").stderr == ""


def test_the_form_of_the_log_counts_in_every_place(commands: Commands) -> None:
    for line in lines("queue list", "--log-format json"):
        told = commands(*line, DATABASE_URL="postgresql://u@127.0.0.1:9/db").stderr

        assert json.loads(told)["exit_code"] == 69


def test_what_is_told_once_under_cron_is_told_in_full_to_who_asks_for_the_story(commands: Commands) -> None:
    runs = [commands("run-priority", *options, POLYGON_API_KEY="") for options in ([], [], ["-v"])]

    assert ["no API key is given" in run.stderr for run in runs] == [True, False, True]


@pytest.mark.parametrize("command", ["", "run-priority", "queue", "symbols import"])
def test_h_is_help_and_shows_the_global_options(commands: Commands, command: str) -> None:
    short, long = (commands(*command.split(), option) for option in ("-h", "--help"))

    assert (short.returncode, short.stderr) == (0, "")
    assert short.stdout == long.stdout
    for word in ("--config", "--verbose", "-v", "--quiet", "-q", "--json", "--log-format"):
        assert word in short.stdout


def test_help_is_no_run_that_went_well(commands: Commands) -> None:
    assert commands("metrics", QUEUE_MAX_SIZE="none at all").returncode == 78
    for options in (["-h"], ["--help"], ["-qh"]):
        assert commands("metrics", *options).stderr == ""

    assert "well again" in commands("metrics").stderr


@pytest.mark.parametrize(
    ("line", "command", "reason"),
    [
        ("nonsense --json", "", "No such command 'nonsense'"),
        ("bars --json", "bars", "Missing command"),
        ("--json bars", "bars", "Missing command"),
        ("bars export --nonsense --json", "bars export", "No such option: --nonsense"),
        ("bars export --json", "bars export", "which bars: give --symbol, or --all"),
    ],
)
def test_with_json_wrong_usage_is_one_line_of_json(commands: Commands, line: str, command: str, reason: str) -> None:
    done = commands(*line.split())

    assert (done.returncode, done.stdout) == (2, "")
    told = json.loads(done.stderr)
    assert (told["schema"], told["command"], told["exit_code"]) == ("assetbatch.trouble/1", command, 2)
    assert reason in told["reason"]
    assert told["hint"] == f"`{f'assetbatch {command}'.strip()} --help` tells how it is used"
