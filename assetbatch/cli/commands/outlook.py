"""`probe` and `forecast`."""

from __future__ import annotations

import sys

from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host, print_json


def probe() -> None:
    """Ask the API, with a few calls, what this key may see, and remember it.

    After a lapsed plan is paid again, prices are live at the next run, and bars and dead letters that were refused come
    back; without it, prices are live within the hour.

    Example: assetbatch probe
    """
    config = current.load_config()

    from assetbatch.cli import lifecycle
    from assetbatch.jobs import probe as jobs
    from assetbatch.report.documents import probe_document
    from assetbatch.report.progress import ProgressBar

    config.require_api_key()
    stop = lifecycle.stop_on_signals()
    lifecycle.end_by(jobs.longest_seconds(config))
    with (
        ProgressBar.for_terminal(current.command, mask=current.mask),
        current.installed(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection,
    ):
        types = jobs.types_to_probe(config, connection)
        limit = config.calls_per_window(types)
        if not current.json:
            budget = "" if limit is None else f"; the budget is {limit} in {config.window_seconds:g} s"
            sys.stderr.write(f"this takes {jobs.calls_for(types)} calls{budget}\n")
        found = jobs.probe(config, connection, host=host(), stop=stop)
    if current.json:
        print_json(probe_document(found))
    else:
        from assetbatch.report import tables

        tables.console().print(tables.probe_view(found))


def forecast() -> None:
    """Show what the next runs will call, how many calls that is, and when every asset will be fresh. Makes no call.

    Example: assetbatch forecast
    """
    config = current.load_config()

    from assetbatch.jobs import forecast as jobs
    from assetbatch.report.documents import forecast_document

    with current.connected(config) as connection:
        foreseen = jobs.foresee(config, connection)
    if current.json:
        print_json(forecast_document(foreseen))
    else:
        from assetbatch.report import tables

        tables.console().print(tables.forecast_view(foreseen))
