"""Where configuration comes from: the files that are looked for, and the variables that are known."""

from __future__ import annotations

import hashlib
import os
import re
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
BELOW_HOME = {"config": ".config", "data": ".local/share", "state": ".local/state"}
"""Where the XDG specification has a user's folders that no variable names."""


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
    if named := str(file or environ.get("ASSETBATCH_CONFIG", "").strip()):
        by = "--config" if file else "ASSETBATCH_CONFIG"
        return Found(cwd / named, named, _read(cwd / named, by, faults, called=f"{named} "))
    for folder in _folders(environ, cwd):
        path = folder / "config.yaml"
        if _is_there(path):
            display = path.name if folder == cwd else str(path)
            return Found(path, display, _read(path, display, faults))
    return None


def _folders(environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    yield cwd
    yield _user_folder("config", environ)
    yield SYSTEM_FOLDER


def _is_there(path: Path) -> bool:
    """Return whether a file is there; in a folder that this user may not enter, nothing of theirs is."""
    return os.access(path, os.F_OK)


def _read(path: Path, place: str, faults: list[Fault], *, called: str = "") -> str | None:
    """Return a file's text, or None and a fault at `place`."""
    hint = ""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data.decode("utf-8-sig")
        message = "is larger than 1 MiB: is it the right file?"
    except FileNotFoundError:
        message = "does not exist"
        hint = f"name one that is there; without {place}, config.yaml is looked for here and in the usual folders"
    except IsADirectoryError:
        message = "is a folder"
        hint = "name the file in it"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        hint = "see whose file it is, and who may read it"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text: byte {data[error.start]:#04x} in line {line}"
    faults.append(Fault(place, "", called + message, hint))
    return None


def process_variables(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the known variables of the process's environment; one that is set but empty counts as unset."""
    return {name: Given(value, name) for name in sorted(KNOWN) if (value := _trimmed(name, environ.get(name)))}


def _trimmed(name: str, value: str | None) -> str:
    """Return a variable's value without the space around it; a password's spaces are its own."""
    trimmed = (value or "").strip()
    return value if value and trimmed and name == "DB_PASSWORD" else trimmed


def credentials(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return systemd's credentials (LoadCredential=) as the `_FILE` variables that they amount to."""
    if not (folder := environ.get("CREDENTIALS_DIRECTORY", "").strip()):
        return {}
    return {
        f"{name}_FILE": Given(str(path), f"credential {path.name}")
        for name in secret.NAMES
        for path in (Path(folder, name.lower()), Path(folder, name))
        if _is_there(path)
    }


def dotenv_variables(found: Found | None, faults: list[Fault]) -> dict[str, Given]:
    """Return the variables of the `.env` beside config.yaml, those of other programs, too."""
    if found is None or not _is_there(path := found.path.with_name(".env")):
        return {}
    display = str(Path(found.display).with_name(".env"))
    if (text := _read(path, display, faults)) is None:
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
        elif binding.key:
            variables[binding.key] = Given(_trimmed(binding.key, binding.value), place)
    return {name: given for name, given in variables.items() if given.value}


def unattended(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what is left of an environment under cron or systemd: nothing that configures this program."""
    names = KNOWN | {"CREDENTIALS_DIRECTORY", "XDG_DATA_HOME", "XDG_STATE_HOME"}
    return {name: value for name, value in environ.items() if name not in names}


def folders_named(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables that put the data and the state of this user where they are, where cron would look elsewhere.

    It sets none but HOME, and that as the user's account has it; so does systemd.
    """
    import pwd

    bare = unattended(environ) | {"HOME": pwd.getpwuid(os.geteuid()).pw_dir}
    return {
        name: str(folder(environ).parent)
        for name, folder in (("XDG_DATA_HOME", data_folder), ("XDG_STATE_HOME", state_folder))
        if folder(environ) != folder(bare)
    }


def config_file(file: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """Return where a config.yaml is to be written: the one that is named, else in the user's folder, for root /etc."""
    if named := str(file or environ.get("ASSETBATCH_CONFIG", "").strip()):
        return cwd / named
    return _user_folder("config", environ, of_root=SYSTEM_FOLDER) / "config.yaml"


def sandbox_key(environ: Mapping[str, str]) -> str:
    """Return the key that the sandbox accepts."""
    return environ.get("SANDBOX_KEY") or secret.SANDBOX_KEY


def data_folder(environ: Mapping[str, str]) -> Path:
    """Return the embedded server's base folder: the user's data folder, for root /var/lib/assetbatch.

    An absolute XDG_DATA_HOME decides for either.
    """
    return _user_folder("data", environ, of_root=ROOT_FOLDER)


def is_data_folder_named(environ: Mapping[str, str]) -> bool:
    """Return whether the environment names the embedded server's folder."""
    return _xdg("data", environ) is not None


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return where a user's runs keep what they have told: the user's state folder, for root /var/lib/assetbatch/state.

    An absolute XDG_STATE_HOME decides for either.
    """
    return _user_folder("state", environ, of_root=ROOT_FOLDER / "state")


def whereabouts(file: Path | None, environ: Mapping[str, str], cwd: Path) -> str:
    """Return a digest of which config.yaml and which database of the environment a command line is pointed at.

    It needs neither to be readable, and knows no password: what it tells stays the same when a fault in them is mended.
    """
    if named := str(file or environ.get("ASSETBATCH_CONFIG", "").strip()):
        path = str(cwd / named)
    else:
        path = next((str(folder) for folder in _folders(environ, cwd) if _is_there(folder / "config.yaml")), "")
    url = re.sub(r"(//[^/?#]*?:)[^/?#]*@|(password\s*=\s*)('[^']*'|[^\s&]*)", r"\1\2", environ.get("DATABASE_URL", ""))
    names = ("DATABASE_URL_FILE", "DB_HOST", "DB_PORT", "DB_NAME")
    parts = [os.path.normpath(path) if path else "", url, *(environ.get(name, "") for name in names)]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def is_journal(environ: Mapping[str, str], stream: os.stat_result) -> bool:
    """Return whether systemd has connected a stream to its journal; one that was redirected since is another file."""
    return environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


def _xdg(kind: str, environ: Mapping[str, str]) -> Path | None:
    """Return $XDG_…_HOME/assetbatch; a relative path is ignored, as the XDG specification wants it."""
    folder = Path(environ.get(f"XDG_{kind.upper()}_HOME", "").strip())
    return folder / APPLICATION if folder.is_absolute() else None


def _user_folder(kind: str, environ: Mapping[str, str], *, of_root: Path | None = None) -> Path:
    if (folder := _xdg(kind, environ)) is not None:
        return folder
    if of_root is not None and os.geteuid() == 0:
        return of_root
    return _home(environ) / BELOW_HOME[kind] / APPLICATION


def _home(environ: Mapping[str, str]) -> Path:
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        # A number without an account, as containers have it; they say so by HOME, mostly.
        return Path("/")
