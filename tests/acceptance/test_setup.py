"""The way in: init, config, the embedded server, the shipped files."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from assetbatch.sandbox.server import Sandbox
from tests.conftest import Commands, ran

ROOT = Path(__file__).parents[2]


def test_three_typos_are_three_lines_with_file_line_key_and_suggestion(commands: Commands) -> None:
    (commands.folder / "config.yaml").write_text(
        "provider:\n  plann: starter\nbatch:\n  intervall_minutes: 5\nevents:\n  backend: rediss\n"
    )

    done = commands("run-priority")

    assert done.returncode == 78
    faults = [line.strip() for line in done.stderr.splitlines() if "config.yaml:" in line]
    assert len(faults) == 3
    for fault, line, key, suggestion in zip(
        faults, (2, 4, 6), ("plann", "intervall_minutes", "backend"), ("plan", "interval_minutes", "redis"), strict=True
    ):
        assert f"config.yaml:{line}" in fault
        assert key in fault
        assert f"did you mean {suggestion}?" in fault


def test_config_check_and_show(commands: Commands) -> None:
    shown = commands("config", "show", "--json")
    values = {row["key"]: row for row in json.loads(shown.stdout)["values"]}

    assert values["provider.plan"]["value"] == "starter"
    assert values["provider.plan"]["origin"] == "POLYGON_TIER"
    assert values["api_key"]["value"] == "***"
    assert commands("config", "check").returncode == 0
    bad = commands("config", "check", "--json", POLYGON_TIER="startr")
    assert (bad.returncode, json.loads(bad.stdout)["ok"]) == (78, False)


def test_the_shipped_configuration_and_all_defaults_have_no_faults(commands: Commands) -> None:
    shipped = ROOT / "config.yaml"
    assert 20 <= len(shipped.read_text().splitlines()) <= 30
    assert commands("--config", str(shipped), "config", "check", DATABASE_URL="").returncode == 0
    named = dict(commands.environment)
    for names in ({"DATABASE_URL": ""}, {}, {"DATABASE_URL": "", "DB_HOST": "h", "DB_NAME": "d"}):
        commands.environment = named | names
        (commands.folder / "config.yaml").write_text("")
        defaults = commands("config", "show", "--defaults")
        (commands.folder / "config.yaml").write_text(defaults.stdout)
        again = commands("config", "check")
        assert (again.returncode, again.stderr) == (0, "")
    commands.environment = named | {"DATABASE_URL": ""}
    (commands.folder / "config.yaml").write_text("database: {host: h, name: d}\n")
    (commands.folder / "other.yaml").write_text(commands("config", "show").stdout)
    again = commands("config", "check", "--config", "other.yaml")
    assert again.stdout.endswith("other.yaml: no faults; d on h:5432 (other.yaml:60)\n")


def test_a_variable_that_was_meant_for_us_is_told_of_and_its_value_is_not(commands: Commands) -> None:
    commands.environment |= {"POLYGON_RATE_LIMIT": "", "POLYGON_RATELIMIT": "hunter22"}
    told = "POLYGON_RATELIMIT is not read by anything here: did you mean POLYGON_RATE_LIMIT?"

    # Jobs say it once, and then hourly.
    stderr = [
        commands(*words).stderr for words in (["run-priority"], ["run-priority"], ["config", "check"], ["status"])
    ]
    check = json.loads(commands("config", "check", "--json", "-q").stdout)
    doctor = commands("doctor")

    assert stderr == [f"assetbatch: {told}\n", "", f"assetbatch: {told}\n", f"assetbatch: {told}\n"]
    assert (check["ok"], check["warnings"]) == (True, [told])
    assert f"warn  variables: {told}" in doctor.stdout
    assert "hunter22" not in doctor.stdout + doctor.stderr


@pytest.mark.parametrize(
    ("text", "environment", "hint"),
    [
        ("provider: {plann: free}", {}, "`assetbatch config show --defaults` lists all keys"),
        ("provider: {batch_size: 0}", {}, "`assetbatch config show --defaults` lists all keys"),
        ("", {"DATABASE_URL": "postgresql://u:p@w@h/d"}, ""),
        ("", {"DATABASE_URL": ""}, ""),
        ("api_key: x", {}, ""),
        ("", {"QUEUE_MAX_SIZE": "x"}, ""),
        ("database: {embedded: true}", {}, ""),
        ("", {"POLYGON_API_KEY": "", "POLYGON_API_KEY_FILE": "/nowhere"}, ""),
        (
            "",
            {"ASSETBATCH_CONFIG": "none.yaml"},
            "name one that is there; without ASSETBATCH_CONFIG, config.yaml is looked",
        ),
    ],
)
def test_what_to_do_next_fits_the_fault(commands: Commands, text: str, environment: dict[str, str], hint: str) -> None:
    (commands.folder / "config.yaml").write_text(text + "\n")
    commands.environment |= environment

    told = commands("--json", "queue", "list").stderr

    assert json.loads(told)["hint"].startswith(hint)
    assert bool(json.loads(told)["hint"]) == bool(hint)


def test_init_prints_what_it_did_and_the_grants(commands: Commands, empty_database: str) -> None:
    first = commands("init", "--json", DATABASE_URL=empty_database)
    second = commands("init", DATABASE_URL=empty_database)

    assert json.loads(first.stdout)["applied"][0] == "0001_platform_tables"
    assert "nothing to do" in second.stdout
    assert 'to "ml engine";' in commands("init", "--grants", "ml engine").stdout


def test_the_embedded_server_outlives_the_command_and_comes_back_after_a_stop(own_embedded: Commands) -> None:
    refused = own_embedded("status")
    assert refused.returncode == 78
    assert "assetbatch init" in refused.stderr

    assert own_embedded("init").returncode == 0
    assert own_embedded("run-priority").returncode == 0
    assert "stopped" in own_embedded("database", "stop").stdout
    assert "was not running" in own_embedded("database", "stop").stdout
    again = own_embedded("status", "--json")
    assert json.loads(again.stdout)["asset_states"] == {"fresh": 3, "never": 4}


def test_embedded_beside_an_environment_that_names_a_database_is_refused(own_embedded: Commands, database: str) -> None:
    done = own_embedded("status", DATABASE_URL=database)

    assert done.returncode == 78
    assert "DATABASE_URL" in done.stderr
    assert "embedded" in done.stderr


# In this order, each below a line that says what it is.
QUICKSTART_SHOWS = (
    "The other assets wait on the queue for their turn:",
    "GBPUSD │ MEDIUM │ queued",
    "The 5-minute bars of a month, of gold and Bitcoin:",
    "all missing",
    "Gold's newest three, as rows",
    "XAUUSD,20",
    "Gold's newest day:",
    "final bars, none missing",
    "How everything stands:",
    "HEALTHY",
)


def test_quickstart_ends_with_three_fresh_prices_and_leaves_other_databases_alone(
    own_embedded: Commands, empty_database: str
) -> None:
    environment = {key: own_embedded.environment[key] for key in ("PATH", "HOME", "XDG_DATA_HOME")}
    done = ran(
        [str(ROOT / "scripts" / "quickstart")],
        env=environment
        | {"DATABASE_URL": empty_database, "REDIS_URL": "redis://127.0.0.1:9/0", "POLYGON_TIER": "free"}
        | {"LANG": "C.UTF-8"},
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" fresh ") == 3
    # Five calls a minute, and nothing has to wait for the next one.
    assert "█ 4 used, × 0 refused" in done.stdout
    assert "4 updated (ETHUSDT, GBPUSD, USDJPY, XAGUSD)" in done.stderr
    assert "cursor" not in done.stderr
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    places = [next(place for place, line in enumerate(shown) if words in line) for words in QUICKSTART_SHOWS]
    assert places == sorted(places)
    assert "sandbox" in done.stdout
    assert own_embedded("database", "stop").returncode == 0
    untouched = own_embedded("status", XDG_CONFIG_HOME="/nonexistent", ASSETBATCH_CONFIG="", DATABASE_URL="")
    assert untouched.returncode == 78


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_sandbox_prints_its_addresses_answers_and_ends_by_a_signal(
    commands: Commands, signum: signal.Signals, code: int
) -> None:
    server = commands.start("sandbox", "--port", "0", "--plan", "starter", SANDBOX_KEY="key-of-mine")
    assert server.stdout is not None
    url, stream_url = server.stdout.readline().strip(), server.stdout.readline().strip()
    try:
        assert url.startswith("http://127.0.0.1:")
        with connect(f"{stream_url}/crypto", proxy=None) as connection:
            assert "Connected Successfully" in str(connection.recv(timeout=10))
        done = commands("run-priority", POLYGON_BASE_URL=url, POLYGON_API_KEY="key-of-mine")
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        server.send_signal(signum)
        _, stderr = server.communicate(timeout=10)
    assert server.returncode == code
    assert "Traceback" not in stderr


def test_no_key_that_is_streamed_to_the_sandbox_is_in_its_log(commands: Commands) -> None:
    server = commands.start("-vv", "sandbox", "--port", "0", "--json", SANDBOX_KEY="key-of-mine")
    assert server.stdout is not None
    with connect(json.loads(server.stdout.readline())["stream_url"] + "/forex", proxy=None) as connection:
        connection.recv(timeout=10)
        connection.send('{"action":"auth","params":"key-of-mine"}')
        assert "auth_success" in str(connection.recv(timeout=10))
        server.send_signal(signal.SIGTERM)
        stdout, stderr = server.communicate(timeout=10)
    assert "key-of-mine" not in stdout + stderr


@pytest.mark.parametrize("option", ["--port", "--ws-port"])
def test_a_port_that_is_taken_is_told(commands: Commands, sandbox: Sandbox, option: str) -> None:
    done = commands("sandbox", "--port", "0", option, sandbox.url.rpartition(":")[2])

    assert done.returncode == 2
    assert f"{option} 0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0.1, 0.15, 0.2, 0.25])
def test_an_early_interrupt_leaves_no_traceback(commands: Commands, seconds: float) -> None:
    run = commands.start("status")
    time.sleep(seconds)
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=10)

    assert "Traceback" not in stderr
    assert run.returncode in {-signal.SIGTERM, 143, 0}


def test_wrong_usage_is_2(commands: Commands) -> None:
    assert commands("run-priority", "--nonsense").returncode == 2
    assert commands("sandbox", "--fail", "nonsense").returncode == 2


def test_no_file_of_the_project_names_a_path_of_this_machine() -> None:
    for file in ("README.md", "config.yaml", "crontab.example", "scripts/quickstart", "scripts/sandbox.yaml"):
        assert os.path.expanduser("~") + "/" not in (ROOT / file).read_text()  # noqa: PTH111
