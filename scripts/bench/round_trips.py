"""Count how often each command waits for PostgreSQL, and time `run-priority` where that is far away.

    python scripts/bench/round_trips.py --pairs 20

A relay stands between the command and the database, and lets each round trip take 20 ms. Beside it, in turn, a script
written by hand that makes the same call and the same writes: three prices, their events, a commit. Needs the extra
`embedded`; run it from the root of the repository, since the relay is the tests'.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).parents[2]))
from assetbatch.sandbox.server import Sandbox
from tests.relay import Relay

KEY = "bench-key"
BATCH = 200
GOALS = {"run-priority": 14, "enqueue-secondary": 9, "drain-queue, nothing to do": 8, "drain-queue, one call": 16}
STATUS_GOAL, FURTHER_GOAL, RATIO_GOAL = 8, 5, 1.15

BY_HAND = """
import json, os, psycopg, requests
answer = requests.get(
    os.environ["POLYGON_BASE_URL"] + "/v3/snapshot",
    params={"ticker.any_of": "C:XAUUSD,C:EURUSD,X:BTCUSD", "limit": 250},
    headers={"Authorization": "Bearer " + os.environ["POLYGON_API_KEY"]},
    timeout=20,
)
answer.raise_for_status()
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    for one in answer.json()["results"]:
        symbol = one["ticker"].partition(":")[2]
        text = json.dumps({"last_update": one})
        connection.execute(
            "update trading.symbols set metadata = metadata || %s::jsonb where symbol = %s", [text, symbol]
        )
        connection.execute("select pg_notify(%s, %s)", ["asset:update:" + symbol, symbol])
"""

ADD_ASSETS = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select 'T' || i || 'USD', 'X:T' || i || 'USD', 'crypto', 'secondary', 3, 1800, 'symbols'
from generate_series(1, %(assets)s) i
"""
# Everything is due again.
PASS_TIME = "update assetbatch.sync_state set served_at = served_at - interval '1 hour'"
LEAVE = """
delete from assetbatch.queue
where symbol not in (select symbol from assetbatch.queue order by symbol limit %(items)s)
"""


def vendor(url: str, folder: Path) -> dict[str, str]:
    """Give what a command needs, beside its database, to ask the sandbox."""
    return {
        "POLYGON_API_KEY": KEY,
        "POLYGON_BASE_URL": url,
        "POLYGON_TIER": "starter",
        "XDG_STATE_HOME": str(folder / "state"),
    }


class Commands:
    """Runs commands through the relay."""

    def __init__(self, bench: harness.Bench, relay: Relay, url: str, database: str) -> None:
        self._bench = bench
        self._relay = relay
        self._environment = bench.environment(relay.conninfo) | vendor(url, bench.folder)
        self._own = harness.open_database(database)

    def trips(self, *arguments: str) -> int:
        before = self._relay.round_trips
        self.ms([sys.executable, "-m", "assetbatch", *arguments])
        return self._relay.round_trips - before

    def ms(self, arguments: list[str]) -> float:
        try:
            return self._bench.run(arguments, self._environment)[0]
        except subprocess.CalledProcessError as error:
            raise SystemExit(error.stderr) from None

    def pass_time(self) -> None:
        self._own.execute(PASS_TIME)

    def enqueue(self, items: int) -> int:
        """Put so many items on the queue; return the round trips."""
        self.pass_time()
        trips = self.trips("enqueue-secondary", "--source", "database")
        self._own.execute(LEAVE, {"items": items})
        return trips

    def add_assets(self, assets: int) -> None:
        self._own.execute(ADD_ASSETS, {"assets": assets})


def count(commands: Commands) -> None:
    """Print how many round trips each command makes in a steady state."""
    for name in ("run-priority", "enqueue-secondary", "drain-queue"):
        commands.trips(name)
    commands.add_assets(3 * BATCH)
    commands.trips("enqueue-secondary", "--source", "database")
    commands.trips("drain-queue")
    commands.pass_time()
    found = {"run-priority": commands.trips("run-priority"), "enqueue-secondary": commands.enqueue(BATCH)}
    found["drain-queue, one call"] = commands.trips("drain-queue")
    found["drain-queue, nothing to do"] = commands.trips("drain-queue")
    commands.enqueue(3 * BATCH)
    further = (commands.trips("drain-queue") - found["drain-queue, one call"]) / 2
    print("round trips")
    for name, most in GOALS.items():
        harness.goal(f"{name}: {found[name]} (goal: at most {most})", found[name] <= most)
    words = f"  further calls: {further:g} each, announcements included (goal: at most {FURTHER_GOAL} without)"
    print(f"         {words}")
    status = commands.trips("status", "--json")
    harness.goal(f"status: {status} (goal: at most {STATUS_GOAL})", status <= STATUS_GOAL)


def time_it(commands: Commands, pairs: int) -> None:
    """Print how long a priority run takes, and the script by hand."""
    mine, theirs = [], []
    for _ in range(pairs):
        commands.pass_time()
        mine.append(commands.ms([sys.executable, "-m", "assetbatch", "run-priority"]))
        theirs.append(commands.ms([sys.executable, "-c", BY_HAND]))
    ratio = statistics.median(one / other for one, other in zip(mine, theirs, strict=True))
    print(f"run-priority {statistics.median(mine):7.0f} ms (median), by hand {statistics.median(theirs):7.0f} ms")
    harness.goal(f"{ratio:.2f} times by hand, pair by pair (goal: at most {RATIO_GOAL})", ratio <= RATIO_GOAL)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--ms", type=float, default=20.0, help="what a round trip takes")
    options = parser.parse_args()
    with harness.Bench.start() as bench, Sandbox(key=KEY, plan="starter") as sandbox:
        for limit in ("", "rate_limiting: {calls_per_minute: 50}\n"):
            database = bench.create("limited" if limit else "unlimited")
            harness.open_migrated(database).close()
            (bench.folder / "config.yaml").write_text(
                f"bars: {{enabled: false}}\nprovider: {{batch_size: {BATCH}}}\n{limit}"
            )
            with Relay(database) as relay:
                commands = Commands(bench, relay, sandbox.url, database)
                print("with a limit:" if limit else "without a limit:", end=" ")
                count(commands)
                if not limit:
                    relay.delay_seconds = options.ms / 1000
                    time_it(commands, options.pairs)


if __name__ == "__main__":
    main()
