"""Runs of `stream` for tests: in a thread of this process, or as a process of its own whose waits are scaled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assetbatch.jobs.run import Start
from assetbatch.model import AssetType
from assetbatch.stream import streamer
from assetbatch.stream.addresses import addresses
from tests.conftest import open_database, wait_until
from tests.streaming import Clock
from tests.world import World, no_stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.jobs.clock import Stop
    from assetbatch.model import RunResult
    from tests.conftest import Commands

FOREX = "priority_assets: [{symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex}]"
CRYPTO = "priority_assets: [{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto}]"
BOTH = (
    "priority_assets: [{symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex},"
    " {symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto}]"
)
_numbers = count()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A command on a host of its own, whose waits are others, by their place: `module.NAME=SECONDS`. It tells where it
# stands when asked to.
SCALED = """
import faulthandler, importlib, signal, socket, sys
faulthandler.register(signal.SIGUSR1, all_threads=True)
host = sys.argv.pop(1)
socket.gethostname = lambda: host
for word in sys.argv.pop(1).split():
    name, value = word.split("=")
    module, _, constant = name.rpartition(".")
    found = importlib.import_module(f"assetbatch.{module}")
    assert hasattr(found, constant), name
    setattr(found, constant, float(value))
from assetbatch.cli.main import main
sys.argv[0] = "assetbatch"
main()
"""


@dataclass
class Running:
    """A stream under way in a thread. `result` is there once it has ended, or `error`."""

    thread: threading.Thread
    stop: Stop
    result: RunResult | None = None
    error: BaseException | None = None
    reports: dict[str, Any] = field(default_factory=dict)

    def end(self, seconds: float = 5.0) -> None:
        self.stop.requested.set()
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the stream did not end"


@dataclass
class StreamWorld(World):
    """A world whose sandbox speaks the stream, on the paid plan; its time goes on, from a busy Thursday."""

    market: Clock = field(default_factory=Clock)

    def clock(self) -> datetime:
        return self.market()

    def settings(self, assets: str = BOTH, **sections: str) -> Config:
        urls = ", ".join(f'{one}: "{self.sandbox.stream.url}/{one}"' for one in AssetType)
        stream = f"{{flush_seconds: 0.1, urls: {{{urls}}}}}"
        return self.configure(**({"batch": f"{{{assets}, secondary_assets: []}}", "stream": stream} | sections))

    def told(self, cluster: str = "forex") -> dict[str, Any]:
        return told(self.connection, cluster)

    def wait_for(self, cluster: str = "forex", *, seconds: float = 30, **wanted: Any) -> dict[str, Any]:
        """Wait until this is told of a cluster: columns by name, `words` in part."""

        def find() -> dict[str, Any] | None:
            row = self.told(cluster)
            fits = all(value in row[key] if key == "words" else value == row[key] for key, value in wanted.items())
            return row if fits else None

        try:
            found: dict[str, Any] = wait_until(find, seconds=seconds)
        except AssertionError:
            raise AssertionError(f"{wanted} was not told: {self.told(cluster)}") from None
        return found

    def goes_on(self, *symbols: str, seconds: float = 30) -> None:
        """Wait until prices come of times after now."""
        since = self.market()
        for symbol in symbols or ("EURUSD", "BTCUSD"):
            wait_for_price(self.connection, symbol, after=since, seconds=seconds)

    @contextmanager
    def streaming(
        self, config: Config, *, max_seconds: float | None = None, database: str = "", patience_seconds: float = 0
    ) -> Iterator[Running]:
        """Stream beside the block, which the stream is asked to end with."""
        stop = no_stop()
        conninfo = database or self.database

        def run() -> None:
            try:
                with open_database(conninfo, patience_seconds=patience_seconds) as connection:
                    running.result = streamer.stream(
                        Start(config, connection, "test", stop, self.market()),
                        urls=addresses(config),
                        max_seconds=max_seconds,
                        connect=lambda: open_database(self.database),
                        progress=lambda reports: running.reports.update({one.cluster: one for one in reports}),
                    )
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                running.error = error

        running = Running(threading.Thread(target=run, name="streamer", daemon=True), stop)
        running.thread.start()
        try:
            yield running
        finally:
            running.end()


@dataclass
class Process:
    """`assetbatch stream` as a process; `log` is what it has written to stderr."""

    process: subprocess.Popen[bytes]
    file: Path

    @property
    def log(self) -> str:
        return self.file.read_text()

    def end(self, signum: int = signal.SIGTERM, seconds: float = 30) -> float:
        """Send it a signal; return how many seconds it took to end, but for those that it had no processor for."""
        began, held_up = time.monotonic(), self._held_up()
        self.process.send_signal(signum)
        while os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() - began > seconds:
                self.process.send_signal(signal.SIGUSR1)
                time.sleep(1)
                raise AssertionError(f"it did not end within {seconds} s:\n{self.log}")
            time.sleep(0.01)
        took = time.monotonic() - began - (self._held_up() - held_up)
        self.process.wait()
        return took

    def _held_up(self) -> float:
        """Return for how many seconds its main thread was ready to go on, and no processor was free."""
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9
        except FileNotFoundError:  # a kernel that does not count that
            return 0.0


@contextmanager
def command(
    commands: Commands, *arguments: str, host: str = "host-a", scaled: str = "", level: str = "-v", **environment: str
) -> Iterator[Process]:
    """Run `assetbatch stream` on a host; it is killed at the end of the block, if it still runs."""
    file = commands.folder / f"stderr-{next(_numbers)}"
    with file.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SCALED, host, scaled, level, "stream", *arguments],
            cwd=commands.folder,
            env={"XDG_STATE_HOME": str(commands.folder / f"state-{host}")} | commands.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield Process(process, file)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def told(connection: Connection, cluster: str = "crypto") -> dict[str, Any]:
    """What was told of a cluster; `state` is empty before that."""
    row = connection.execute("select * from assetbatch.streams where cluster = %s", [cluster]).fetchone()
    return row or {"state": "", "words": "", "unconfirmed": [], "silent": [], "connects": 0}


def last_price(connection: Connection, symbol: str) -> tuple[datetime, Any] | None:
    """The time and the figure of a price."""
    row = connection.execute(
        "select metadata -> 'last_update' as price from trading.symbols where symbol = %s", [symbol]
    ).fetchone()
    if row is None or not row["price"] or row["price"]["timestamp"] is None:
        return None
    return datetime.fromisoformat(row["price"]["timestamp"]), row["price"]["last_price"]


def wait_for_price(connection: Connection, symbol: str, *, after: datetime = EPOCH, seconds: float = 30) -> datetime:
    """Wait for a price of a time after that one."""

    def find() -> datetime | None:
        found = last_price(connection, symbol)
        return found[0] if found is not None and found[0] > after else None

    moment: datetime = wait_until(find, seconds=seconds)
    return moment
