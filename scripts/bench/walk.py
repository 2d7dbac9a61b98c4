"""Count the walk of one priority price through the package: files crossed, returns, and how deep its UPDATE stands.

    python scripts/bench/walk.py

Measured is the second run of `run-priority`, of one asset; the thread that sends is not. A return is a call that goes
from one file of the package to another one that was left before. Needs the extra `embedded`.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

import assetbatch
from assetbatch import config as configuration
from assetbatch.database import prices
from assetbatch.errors import Interrupted
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.priority import run_priority
from assetbatch.jobs.run import Start
from assetbatch.sandbox.server import Sandbox

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = str(Path(assetbatch.__file__).parent)
CONFIG = """
batch: {priority_assets: [{symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto}], secondary_assets: []}
bars: {enabled: false}
events: {backend: none}
"""
DUE_AGAIN = "update assetbatch.sync_state set served_at = served_at - interval '1 hour'"


@dataclass
class Walk:
    """Watches calls as a profile function."""

    files: set[str] = field(default_factory=set)
    at: str = ""
    returns: int = 0
    depth: int = 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "execute" and frame.f_locals.get("query") == prices.WRITE_PRICES:
            self.depth = self.depth or self._depth_of(frame)
        if file.startswith(PACKAGE) and file != self.at:
            self.returns += file in self.files
            self.files.add(file)
            self.at = file

    def _depth_of(self, frame: FrameType | None) -> int:
        depth = 0
        while frame is not None:
            depth += frame.f_code.co_filename.startswith(PACKAGE)
            frame = frame.f_back
        return depth


def main() -> None:
    harness.parser(__doc__).parse_args()
    with harness.Bench.start() as bench, Sandbox(key="bench") as sandbox:
        conninfo = bench.create()
        environment = bench.environment(conninfo) | {
            "POLYGON_API_KEY": "bench",
            "POLYGON_BASE_URL": sandbox.url,
            "POLYGON_TIER": "starter",
        }
        Path(environment["ASSETBATCH_CONFIG"]).write_text(CONFIG)
        config = configuration.load(file=None, environ=environment, cwd=bench.folder)
        now = sandbox.clock()
        walk = Walk()
        with harness.open_migrated(conninfo) as connection:
            for ahead in (0, 10):
                later = now + timedelta(minutes=ahead)
                sandbox.clock = partial(datetime.fromtimestamp, later.timestamp(), UTC)
                connection.execute(DUE_AGAIN)
                start = Start(config, connection, "bench", Stop(lambda: Interrupted(signal.SIGTERM)), later)
                sys.setprofile(walk if ahead else None)
                result = run_priority(start)
                sys.setprofile(None)
                assert result.updated == ("BTCUSD",), result
        print(f"files crossed    {len(walk.files):4}")
        print(f"returns          {walk.returns:4}")
        print(f"depth of UPDATE  {walk.depth:4}")


if __name__ == "__main__":
    main()
