"""What a shell completes beside commands and options: symbols, plans, kinds of trouble. Files are the shell's own.

Whoever presses TAB sees no error and no warning: what cannot be found out is not offered.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from assetbatch import config as configuration
from assetbatch.cli.invocation import current, without_starting, working_folder
from assetbatch.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.config import Config
    from assetbatch.model import Product

# Longer than that nobody waits for a TAB.
DATABASE_SECONDS = 0.5
MOST_OFFERED = 500

READ_SYMBOLS = """
select symbol from assetbatch.assets where starts_with(symbol, %(begun)s) order by symbol limit %(limit)s
"""


def symbols(incomplete: str) -> list[str]:
    """Return the symbols that begin so: those of config.yaml, and of the database if it answers soon enough."""
    logging.disable()
    found: set[str] = set()
    with suppress(Exception):
        file = current.config_file and current.config_file.expanduser()
        config = configuration.load(file=file, environ=os.environ, cwd=working_folder())
        found |= {asset.symbol for asset in config.assets}
        found |= _of_database(config, incomplete)
    return sorted(found)


def _of_database(config: Config, begun: str) -> set[str]:
    """Read from the database; an embedded server that does not run is not started."""
    if config.database.embedded:
        from assetbatch.database.embedded.place import Place
        from assetbatch.database.embedded.process import Postmaster

        if not Postmaster(Place.below(configuration.data_folder(os.environ))).ready():
            return set()
    conninfo = without_starting(config).database.conninfo

    import psycopg

    from assetbatch import threads

    def read() -> set[str]:
        with psycopg.connect(conninfo.reveal() if conninfo else "", prepare_threshold=None) as connection:
            return {row[0] for row in connection.execute(READ_SYMBOLS, {"begun": begun, "limit": MOST_OFFERED})}

    with suppress(psycopg.Error, TimeoutError):
        return threads.begin(read, name="completion").result(DATABASE_SECONDS)
    return set()


def plans(product: Product) -> Callable[[], list[str]]:
    """Return what offers the plans of a product."""
    return lambda: list(PLANS[product])


def faults() -> list[str]:
    """Return the kinds of trouble that the sandbox makes."""
    from assetbatch.sandbox.faults import KINDS

    return list(KINDS)
