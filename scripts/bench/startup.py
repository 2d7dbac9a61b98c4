"""Time `status --json` as a whole process, beside a bare psycopg connect and `select 1`, in turn.

    python scripts/bench/startup.py --pairs 20

Absolute times drift on a shared machine; the ratio, pair by pair, does not. Needs the extra `embedded`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from assetbatch.config import Database, Secret
from assetbatch.database import schema
from assetbatch.database.connection import connect
from assetbatch.database.embedded import EmbeddedServer

BARE = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('select 1').fetchone()"
MODULES = (
    "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
    " sys.argv[1:] = ['status', '--json']; from assetbatch.cli import main; main()"
)


def run(arguments: list[str], environment: dict[str, str], folder: Path) -> tuple[float, str]:
    """Run a command; return how long it took in ms, and what it wrote to stderr."""
    began = time.perf_counter()
    done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return (time.perf_counter() - began) * 1000, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="assetbatch-bench-"))
    folder.chmod(0o755)
    server = EmbeddedServer(folder / "data")
    try:
        server.start(create=True)
        server.create_database("bench")
        conninfo = server.conninfo("bench")
        database = Database(embedded=False, name="bench", conninfo=Secret(conninfo), described="bench")
        with connect(database, Path(), job="bench") as connection:
            schema.migrate(connection)
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DATABASE_URL": conninfo}
        ours = [str(Path(sys.executable).with_name("assetbatch")), "status", "--json"]
        bare = [sys.executable, "-c", BARE]
        run(ours, environment, folder)
        pairs = [(run(ours, environment, folder)[0], run(bare, environment, folder)[0]) for _ in range(options.pairs)]
        ratios = sorted(mine / theirs for mine, theirs in pairs)
        print(f"status --json         {statistics.median(mine for mine, _ in pairs):7.0f} ms (median)")
        print(f"connect + select 1    {statistics.median(theirs for _, theirs in pairs):7.0f} ms (median)")
        print(f"ratio, pair by pair   {statistics.median(ratios):7.2f}    (from {ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"modules loaded        {run([sys.executable, '-c', MODULES], environment, folder)[1].strip():>7}")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
