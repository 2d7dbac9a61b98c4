"""`config init` and `install`, on a host whose crontab is a file of the test's own."""

from __future__ import annotations

import json
import os
import platform
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from assetbatch import __version__
from assetbatch.deployment import shipped
from tests.conftest import Commands

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("assetbatch")
FOREIGN = "MAILTO=root\n17 4 * * * /usr/bin/backup\n"
CRONTAB = """#!/bin/sh
table=$HOME/table
[ "$1" != -u ] || { table=$table.$2; shift 2; }
case $1 in
    -l) cat "$table" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
    -r) rm "$table" ;;
    -) cat >"$table" ;;
esac
"""
IS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may name another user")


@pytest.fixture
def host(tmp_path: Path) -> Commands:
    """The commands on a host where nothing is set up."""
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB)
    program.chmod(0o755)
    (tmp_path / "here").mkdir()
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    return Commands(tmp_path / "here", environment | {"XDG_CONFIG_HOME": str(tmp_path / "conf")})


@pytest.fixture
def configured(host: Commands) -> Path:
    """The folder of a configuration with a key, of an installation that is set up but for cron."""
    done = host("config", "init")
    assert done.returncode == 0, done.stderr
    folder = Path(host.environment["XDG_CONFIG_HOME"], "assetbatch")
    (folder / ".env").write_text("POLYGON_API_KEY=a-key\n")
    return folder


def program(host: Commands, *, data: str = "") -> str:
    """What starts the program in a crontab, with the folders that cron would look for elsewhere."""
    if not data and os.geteuid() != 0:
        data = f"{host.environment['HOME']}/.local/share"
    return f"{f'XDG_DATA_HOME={data} ' if data else ''}XDG_STATE_HOME={host.folder / 'state'} {SCRIPT}"


def document(host: Commands, *arguments: str) -> dict[str, Any]:
    done = host(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_config_init_writes_the_shipped_configuration_where_it_is_looked_for(host: Commands) -> None:
    folder = Path(host.environment["XDG_CONFIG_HOME"], "assetbatch")

    done = host("config", "init")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"wrote {folder / 'config.yaml'}; next:\n")
    assert "assetbatch init\n" in done.stdout
    assert (folder / "config.yaml").read_text() == (ROOT / "config.yaml").read_text()
    assert (folder / ".env").exists() == (not IS_ROOT)
    assert IS_ROOT or stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    shown = document(host, "config", "show")
    assert {row["origin"] for row in shown["values"] if row["key"] == "provider.plan"} == {
        f"{folder / 'config.yaml'}:5"
    }


def test_config_init_replaces_no_file_unasked(host: Commands) -> None:
    file = host.folder / "mine" / "config.yaml"
    file.parent.mkdir()
    file.write_text("mine\n")
    (file.parent / ".env").write_text("POLYGON_API_KEY=mine\n")

    refused = host("config", "init", "--output", str(file))
    kept = file.read_text()
    done = document(host, "--config", str(file), "config", "init", "--force")

    assert (refused.returncode, kept) == (2, "mine\n")
    assert "--force" in refused.stderr
    assert done["schema"] == "assetbatch.config-init/1"
    assert (done["path"], done["dotenv"]) == (str(file), str(file.parent / ".env"))
    assert file.read_text() == shipped.text("config.yaml")
    assert (file.parent / ".env").read_text() == "POLYGON_API_KEY=mine\n"


def test_config_init_leaves_the_database_to_the_environment_that_names_one(host: Commands) -> None:
    host.environment["DATABASE_URL"] = "postgresql://me@nowhere/mine"

    written = document(host, "config", "init")["path"]

    assert "\n# database: {embedded: true}\n" in Path(written).read_text()
    assert host("config", "check").returncode == 0


def test_config_init_says_where_another_one_is_found_first(host: Commands) -> None:
    (host.folder / "config.yaml").touch()

    done = host("config", "init")

    assert "config.yaml is found first" in done.stderr
    assert "assetbatch --config /" in done.stdout


def test_install_cron_shows_writes_once_and_takes_out_again(host: Commands, configured: Path) -> None:
    table = Path(host.environment["HOME"], "table")
    table.write_text(FOREIGN)

    shown = host("install", "cron", "--mailto", "me@example.com")
    untouched = table.read_text()
    first = host("install", "cron", "--mailto", "me@example.com", "--write")
    written = table.read_text()
    again = document(host, "install", "cron", "--write")

    assert (shown.returncode, untouched) == (0, FOREIGN)
    assert "--write puts these lines into" in shown.stderr
    expected = shipped.text("crontab.example").replace("operator@", "me@")
    # As above the block, so below it.
    expected = expected.replace("# END", "# Mail of the lines below goes where it went before.\nMAILTO=root\n# END")
    assert shown.stdout == expected.replace(shipped.COMMAND, f"{program(host)} --config {configured / 'config.yaml'}")
    assert first.stdout.endswith(": written\n")
    assert "run-priority at its next full interval" in first.stderr
    assert written == FOREIGN + shown.stdout
    assert (again["changed"], again["written"], table.read_text()) == (False, False, written)
    assert again["schema"] == "assetbatch.install-cron/1"

    to_go = host("install", "cron", "--remove")
    assert (to_go.stdout, table.read_text()) == (shown.stdout, written)
    assert document(host, "install", "cron", "--remove", "--write")["written"] is True
    assert table.read_text() == FOREIGN
    none = host("install", "cron", "--remove")
    assert none.stdout == ""
    assert "has no lines of assetbatch" in none.stderr


def test_install_cron_leaves_no_crontab_where_there_was_none(host: Commands, configured: Path) -> None:
    table = Path(host.environment["HOME"], "table")

    assert host("install", "cron", "--write").returncode == 0
    assert table.exists()
    assert host("install", "cron", "--write", "--remove").returncode == 0
    assert not table.exists()


def test_other_lines_stay_in_whatever_encoding_they_are(host: Commands, configured: Path) -> None:
    before = (
        "# caf\xe9\n17 4 * * * /usr/bin/backup\x0c\u2028\r\n".encode("utf-8") + b"# caf\xe9 assetbatch drain-queue\n"
    )
    table = Path(host.environment["HOME"], "table")
    table.write_bytes(before)

    written = host("install", "cron", "--write")
    with_ours = table.read_bytes()
    removed = host("install", "cron", "--remove", "--write")

    assert (written.returncode, removed.returncode) == (0, 0), written.stderr
    assert with_ours.startswith(before)
    assert table.read_bytes() == before


def test_install_cron_follows_the_configuration(host: Commands, configured: Path) -> None:
    text = (configured / "config.yaml").read_text()
    (configured / "config.yaml").write_text(
        text.replace("batch:\n", "batch:\n  interval_minutes: 15\n") + "stream: {enabled: true}\n"
    )

    block = document(host, "install", "cron")["block"]

    assert f"\n*/15 * * * * {program(host)} " in block
    assert f"\n0 * * * * {program(host)} --config {configured / 'config.yaml'} stream --max-seconds 3600\n" in block


def test_what_only_the_terminal_knows_is_told_or_refused(host: Commands, configured: Path) -> None:
    data = f"{host.environment['HOME']}/data 100%"

    told = host("install", "cron", POLYGON_TIER="starter", POLYGON_API_KEY="another", XDG_DATA_HOME=data)
    (configured / ".env").unlink()
    keyless = host("install", "cron", POLYGON_API_KEY="another")
    (configured / "config.yaml").write_text("")
    refused = host("install", "cron", "--write", DATABASE_URL="postgresql://me@nowhere/mine")

    assert (
        f"cron sees nothing of this terminal's POLYGON_TIER: what it needs of that goes into {configured}"
        in told.stderr
    )
    named = f"'{data[:-1]}\\%'"
    assert f"* * * * * {program(host, data=named)} " in told.stdout
    assert f"cron has no key: write POLYGON_API_KEY=… into {configured / '.env'}" in keyless.stderr
    assert refused.returncode == 78
    assert "cron sees nothing of this terminal's DATABASE_URL: write what it needs into" in refused.stderr
    assert not Path(host.environment["HOME"], "table").exists()


def test_without_a_configuration_the_way_to_one_is_told(host: Commands) -> None:
    for where in ("cron", "systemd"):
        done = host("install", where)

        assert (done.returncode, done.stdout) == (78, "")
        assert "`assetbatch config init` writes one" in done.stderr


def test_without_a_crontab_program_timers_are_named(host: Commands, configured: Path) -> None:
    done = host("install", "cron", PATH="/nonexistent")

    assert done.returncode == 78
    assert "`assetbatch install systemd`" in done.stderr


@needs_root
def test_what_the_user_may_not_reach_is_told_and_not_written(host: Commands, configured: Path) -> None:
    (configured / "config.yaml").chmod(0o600)

    shown = host("install", "cron", "--user", "nobody")
    written = host("install", "cron", "--user", "nobody", "--write")
    units = host("install", "systemd", "--user", "nobody", "--folder", str(host.folder), "--write")

    assert shown.returncode == 0
    assert f"nobody may not read {configured / 'config.yaml'}" in shown.stderr
    for done in (written, units):
        assert done.returncode == 78
        assert f"nobody may not read {configured / 'config.yaml'}" in done.stderr
    assert not [*Path(host.environment["HOME"]).glob("table*"), *host.folder.iterdir()]


def test_another_user_is_named_by_root_alone(host: Commands, configured: Path) -> None:
    assert host("install", "cron", "--user", "no-such-user").returncode == 2


def test_install_systemd_shows_writes_and_deletes_what_nothing_starts_any_more(
    host: Commands, configured: Path
) -> None:
    folder = host.folder / "units"
    place = ["--folder", str(folder), *(["--user", "root"] if IS_ROOT else [])]

    shown = host("install", "systemd", *place)
    assert (shown.returncode, folder.exists()) == (0, False)
    done = document(host, "install", "systemd", *place, "--write")

    texts = {Path(file["path"]): file["content"] for file in done["files"]}
    assert {path: path.read_text() for path in folder.iterdir()} == texts
    assert shown.stdout == "\n".join(f"# {path}\n{text}" for path, text in texts.items())
    assert all(step in shown.stderr for step in done["next"])
    assert done["next"][-2].endswith("enable --now assetbatch-postgresql.service")
    assert not (folder / "assetbatch-stream.service").exists()
    assert (
        f"ExecStart={SCRIPT} --config {configured / 'config.yaml'} --log-format journald %i\n"
        in texts[folder / "assetbatch@.service"]
    )

    (folder / "timers.target.wants").mkdir()
    link = folder / "timers.target.wants" / "assetbatch-drain-queue.timer"
    link.symlink_to(folder / link.name)
    refused = host("install", "systemd", "--folder", str(folder), "--remove", "--write")
    assert refused.returncode == 78
    assert "disable --now assetbatch-drain-queue.timer" in refused.stderr
    link.unlink()
    listed = host("install", "systemd", "--folder", str(folder), "--remove")
    assert listed.stdout.split() == sorted(map(str, texts))
    assert host("install", "systemd", "--folder", str(folder), "--remove", "--write").returncode == 0
    assert [path.name for path in folder.iterdir()] == ["timers.target.wants"]


def test_the_version_tells_how_it_was_installed(host: Commands) -> None:
    assert host("--version").stdout == f"assetbatch {__version__}\n"
    for words in (["--version", "--json"], ["--json", "--version"]):
        found = json.loads(host(*words).stdout)
        assert found["schema"] == "assetbatch.version/1"
        assert (found["version"], found["python"]) == (__version__, platform.python_version())
        assert (found["program"], found["location"]) == (str(SCRIPT), str(ROOT / "assetbatch"))
        assert found["schema_version"] >= 12
    missing = host("-v")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "Missing command" in missing.stderr
