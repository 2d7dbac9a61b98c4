"""`stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import current
from assetbatch.cli.options import no_nan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.streams import Report
    from assetbatch.jobs.run import Start
    from assetbatch.model import RunResult
    from assetbatch.report.progress import ProgressBar


def stream(
    max_seconds: Annotated[
        float | None,
        typer.Option(min=1, max=86_400 * 7, callback=no_nan, help="End after so long; else it runs until it is ended."),
    ] = None,
) -> None:
    """Keep prices and open bars fresh over the vendor's WebSocket, on paid plans, until it is ended.

    As a service of systemd; from cron with --max-seconds, where the next one takes over. The other jobs stay as they
    are: they find no quotes to ask for while it streams, and carry on when it ends.

    Example: assetbatch stream --max-seconds 3600
    """
    config = current.load_config()

    from assetbatch.cli import job
    from assetbatch.stream.addresses import addresses

    urls = addresses(config)
    config.require_api_key()

    def work(start: Start, bar: ProgressBar | None) -> RunResult:
        from assetbatch.report.streams import standing
        from assetbatch.stream import streamer

        if bar is not None:
            bar.stand("connecting")

        def progress(reports: Sequence[Report]) -> None:
            if bar is not None:
                bar.stand(standing(reports, len(urls)))

        return streamer.stream(
            start, urls=urls, max_seconds=max_seconds, connect=lambda: current.connected(config), progress=progress
        )

    job.run(config, work, max_seconds=max_seconds, needs_key=True, ended_by_signal=True)
