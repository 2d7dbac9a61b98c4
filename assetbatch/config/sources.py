"""Where configuration comes from: the files that are looked for, and the variables that are known."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assetbatch.config import secret
from assetbatch.config.given import Given
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VARIABLES = {
    "POLYGON_BASE_URL": "provider.base_url",
    "POLYGON_TIER": "provider.plan",
    "POLYGON_RATE_LIMIT": "rate_limiting.calls_per_minute",
    "BATCH_INTERVAL_MINUTES": "batch.interval_minutes",
    "PRIORITY_ASSETS_ENABLED": "batch.priority_assets_enabled",
    "QUEUE_MAX_SIZE": "queue.max_size",
    "DB_HOST": "database.host",
    "DB_PORT": "database.port",
    "DB_NAME": "database.name",
    "DB_USER": "database.user",
}
"""Variables that stand for a key of config.yaml; secrets are named in `secret.NAMES`."""
KNOWN = frozenset(VARIABLES) | {name + end for name in secret.NAMES for end in ("", "_FILE")}
MAX_BYTES = 1 << 20
SYSTEM_FOLDER = Path("/etc/assetbatch")
ROOT_FOLDER = Path("/var/lib/assetbatch")
APPLICATION = "assetbatch"


class Found(msgspec.Struct, frozen=True):
    """The config.yaml that was found: `display` is its name as the user gave it; `text` None: unreadable."""

    path: Path
    display: str
    text: str | None


def find(file: Path | None, environ: Mapping[str, str], cwd: Path, faults: list[Fault]) -> Found | None:
    """Return the first config.yaml there is, None when there is none.

    One that was named (`file`, ASSETBATCH_CONFIG) must be there; others are looked for: working folder, the
    user's configuration folder and /etc/assetbatch.
    """
    named, by = (
        (str(file), "--config") if file is not None else (environ.get("ASSETBATCH_CONFIG", ""), "ASSETBATCH_CONFIG")
    )
    if named.strip():
        return _read_config(cwd / named, named, faults, named_by=by)
    for path, display in _candidates(environ, cwd):
        if _is_there(path):
            return _read_config(path, display, faults)
    return None


def _candidates(environ: Mapping[str, str], cwd: Path) -> Iterator[tuple[Path, str]]:
    yield cwd / "config.yaml", "config.yaml"
    for folder in (_user_folder("config", environ), SYSTEM_FOLDER):
        yield folder / "config.yaml", str(folder / "config.yaml")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a folder that this user may not enter: nothing of theirs is in it
        return False


def _read_config(path: Path, display: str, faults: list[Fault], *, named_by: str = "") -> Found:
    text, message = _read_text(path)
    if message:
        place, sentence = (named_by, f"{display} {message}") if named_by else (display, message)
        faults.append(Fault(place, "", sentence))
    return Found(path, display, text)


def _read_text(path: Path) -> tuple[str | None, str]:
    """Return a file's text, or None and what stands in the way."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, "does not exist"
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except ValueError:
        return None, "is no file name"
    if len(data) > MAX_BYTES:
        return None, "is larger than 1 MiB: is it the right file?"
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, f"is not UTF-8 text: byte {data[error.start]:#04x} in line {line}"


def process_variables(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the known variables of the process's environment; one that is set but empty counts as unset."""
    return {
        name: Given(value, name) for name in sorted(KNOWN) if (value := _trimmed(name, environ.get(name))) is not None
    }


def _trimmed(name: str, value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    return value if name == "DB_PASSWORD" else value.strip()  # a password's spaces are its own


def dotenv_variables(found: Found | None, faults: list[Fault]) -> dict[str, Given]:
    """Return the known variables of the `.env` beside config.yaml; other names in it are not our business."""
    if found is None:
        return {}
    path = found.path.with_name(".env")
    display = str(Path(found.display).with_name(".env"))
    if not _is_there(path):
        return {}
    text, message = _read_text(path)
    if text is None:
        faults.append(Fault(display, "", message))
        return {}
    # The parser under dotenv_values, which also tells the lines; it interpolates nothing. Imported here, since
    # most set-ups have no .env.
    from io import StringIO

    from dotenv.parser import parse_stream

    variables: dict[str, Given] = {}
    for binding in parse_stream(StringIO(text)):
        # A binding's text begins with the empty lines and comments above it.
        written = binding.original.string
        line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        place = f"{display}:{line}"
        if binding.error:
            name = next((word for word in sorted(KNOWN, key=len, reverse=True) if word in written), None)
            if name is not None:
                faults.append(Fault(place, name, "cannot be read: expected NAME=value; is a quote left open?"))
        elif binding.key in KNOWN and (value := _trimmed(binding.key, binding.value)) is not None:
            variables[binding.key] = Given(value, place)
        elif binding.key in KNOWN:
            variables.pop(binding.key, None)
    return variables


def credentials_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder in which systemd puts credentials (LoadCredential=), None where there is none."""
    return Path(folder) if (folder := environ.get("CREDENTIALS_DIRECTORY", "").strip()) else None


def data_folder(environ: Mapping[str, str]) -> Path:
    """Return the embedded server's base folder: the user's data folder, for root /var/lib/assetbatch.

    An absolute XDG_DATA_HOME decides for either.
    """
    return _own_folder("data", environ, ROOT_FOLDER)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return where what was told is kept: the user's state folder, for root /var/lib/assetbatch/state.

    An absolute XDG_STATE_HOME decides for either.
    """
    return _own_folder("state", environ, ROOT_FOLDER / "state")


def _own_folder(kind: str, environ: Mapping[str, str], for_root: Path) -> Path:
    if _xdg(kind, environ) is None and sys.platform != "win32" and os.geteuid() == 0:
        return for_root
    return _user_folder(kind, environ)


def _xdg(kind: str, environ: Mapping[str, str]) -> Path | None:
    """Return $XDG_…_HOME/assetbatch; a relative path is ignored, as the XDG specification wants it."""
    folder = Path(environ.get(f"XDG_{kind.upper()}_HOME", "").strip())
    return folder / APPLICATION if folder.is_absolute() else None


def _user_folder(kind: str, environ: Mapping[str, str]) -> Path:
    if (folder := _xdg(kind, environ)) is not None:
        return folder
    import platformdirs

    folders = {
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
        "state": platformdirs.user_state_path,
    }
    return folders[kind](APPLICATION)
