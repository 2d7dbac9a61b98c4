"""Time whole processes, CPU and by the clock, each in turn with a program by hand that does the same.

    python scripts/bench/startup.py --pairs 20

`status --json` stands beside psycopg's connect and `select 1`; `run-priority` beside a script that makes the same call
and the same writes, both with a database that is near. Absolute times drift on a shared machine; the ratio, pair by
pair, does not. Needs the extra `embedded`; run it from the root of the repository.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING

import harness
import round_trips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BARE = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('select 1').fetchone()"
MODULES = (
    "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
    " sys.argv[1:] = ['status', '--json']; from assetbatch.cli import main; main()"
)
RUN_PRIORITY = [harness.STATUS[0], "run-priority"]
STATUS_GOAL, RUN_GOAL = 1.3, 1.15


class Costs:
    """What runs of one command line took, in ms: CPU of the process, and by the clock."""

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        self.name = name
        self._run = run
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def take(self) -> None:
        before, began = _cpu_of_children(), time.perf_counter()
        self._run()
        self.wall.append((time.perf_counter() - began) * 1000)
        self.cpu.append((_cpu_of_children() - before) * 1000)

    def __str__(self) -> str:
        cpu, wall = statistics.median(self.cpu), statistics.median(self.wall)
        return f"{self.name:<28} {cpu:6.0f} ms of CPU, {wall:6.0f} ms by the clock (medians)"


def compare(mine: Costs, theirs: Costs, *, pairs: int, goal: float, between: Callable[[], None]) -> None:
    for costs in (mine, theirs):
        between()
        costs.take()
        costs.cpu.clear()
        costs.wall.clear()
    for _ in range(pairs):
        between()
        mine.take()
        theirs.take()
    print(mine)
    print(theirs)
    ratios = {"of CPU": _ratio(mine.cpu, theirs.cpu), "by the clock": _ratio(mine.wall, theirs.wall)}
    words = ", ".join(f"{ratio:.2f} times {what}" for what, ratio in ratios.items())
    harness.goal(f"{words}, pair by pair (goal: at most {goal} of CPU)", ratios["of CPU"] <= goal)


def _cpu_of_children() -> float:
    """Return the seconds of CPU of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(mine, theirs, strict=True))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    sandbox = harness.SandboxProcess(key=round_trips.KEY, plan="starter")
    with harness.Bench.start() as bench:
        conninfo = bench.create()
        environment = bench.environment(conninfo) | round_trips.vendor(sandbox.url, bench.folder)
        # A run asks for nothing but prices, as the script does.
        (bench.folder / "config.yaml").write_text("bars: {enabled: false}\n")
        with harness.open_migrated(conninfo) as connection:

            def command(name: str, *arguments: str) -> Costs:
                return Costs(name, lambda: bench.run(arguments, environment))

            def pass_time() -> None:
                connection.execute(round_trips.PASS_TIME)

            python = sys.executable
            compare(
                command("status --json", *harness.STATUS),
                command("connect + select 1", python, "-c", BARE),
                pairs=options.pairs,
                goal=STATUS_GOAL,
                between=lambda: None,
            )
            compare(
                command("run-priority", *RUN_PRIORITY),
                command("the same by hand", python, "-c", round_trips.BY_HAND),
                pairs=options.pairs,
                goal=RUN_GOAL,
                between=pass_time,
            )
        print(f"modules that status loads    {bench.run([python, '-c', MODULES], environment)[1].strip():>6}")
    sandbox.close()


if __name__ == "__main__":
    main()
