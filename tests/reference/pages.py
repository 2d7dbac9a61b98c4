"""Which pages are made, and of what: one table for who writes them and who holds them."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.setup import schema
from tests.conftest import open_database
from tests.reference import commands, configuration, exit_codes, failures, man, metrics, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from assetbatch.database.connection import Connection

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "man/assetbatch.1": man.page,
    "reference/commands.md": commands.page,
    "reference/configuration.md": configuration.page,
    "reference/exit-codes.md": exit_codes.page,
    "reference/failures.md": failures.page,
}
PAGES_OF_A_DATABASE: dict[str, Callable[[Connection], str]] = {
    "reference/metrics.md": metrics.page,
    "reference/tables.md": tables.page,
}


@contextmanager
def new_database() -> Iterator[Connection]:
    """Make a server with a database as `init` makes it, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="assetbatch-reference-") as folder:
        Path(folder).chmod(0o755)  # root's server runs under an account that has to pass here
        server = EmbeddedServer(Path(folder) / "postgres")
        server.start(create=True)
        try:
            server.create_database("reference")
            with open_database(server.conninfo("reference")) as connection:
                schema.migrate(connection)
                yield connection
        finally:
            server.stop()
