"""The jobs that cron or a timer starts, as data: how often, and what follows from their runs, or from the lack of them.

Other jobs (`backfill`, `probe`, `symbols`) are started by somebody who looks at what they tell.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.config.settings import Batch


class Job(Struct, frozen=True):
    """A job, started `every` so often, as the configuration has it.

    `name` is that of its command and of its runs, `title` what `status` calls it. One that has work and no run for
    `intervals_silent` is told of; where it `is_vital`, as critical. `prunes`: its runs end with dropping what is too
    old; they are often enough, and have time for that.
    """

    name: str
    title: str
    every: Callable[[Batch], timedelta]
    intervals_silent: int = 2
    is_vital: bool = False
    prunes: bool = False

    @property
    def pings_key(self) -> str:
        """The key in the section `pings` of who monitors it."""
        return self.name.replace("-", "_")


RUN_PRIORITY = Job(
    "run-priority",
    "Priority assets",
    every=lambda batch: timedelta(minutes=batch.interval_minutes),
    is_vital=True,
    prunes=True,
)
DRAIN_QUEUE = Job(
    "drain-queue",
    "Queued assets",
    # One crontab line a minute makes it continuous; a crontab may say less often.
    every=lambda _: timedelta(minutes=1),
    intervals_silent=5,
)
ENQUEUE_SECONDARY = Job(
    "enqueue-secondary",
    "Secondary assets",
    every=lambda batch: timedelta(minutes=batch.enqueue_interval_minutes),
    prunes=True,
)
JOBS = {job.name: job for job in (RUN_PRIORITY, DRAIN_QUEUE, ENQUEUE_SECONDARY)}
