"""docs/reference/exit-codes.md, from the table in errors.py."""

from __future__ import annotations

from assetbatch.errors import EXIT_CODES
from tests.reference.markdown import head, table

CHECK = """
`status --check` ends as a plug-in of Nagios does, whatever stands above:

| exit code | means |
|---|---|
| 0 | OK: all is well |
| 1 | WARNING: degraded |
| 2 | CRITICAL: unhealthy, or the database could not be read |
| 3 | UNKNOWN: the configuration is wrong |

`database psql` ends with the exit code of psql.

Two more rules hold for every command. A job whose summary cannot be written, on a full disk, has done its work: it says
so on stderr, and ends as it would have. A reader that has seen enough (`| head`) is no trouble to any command.
"""


def page() -> str:
    """Return the whole page."""
    rows = ([one.code, f"{one.meaning[0].upper()}{one.meaning[1:]}. {one.more}".rstrip()] for one in EXIT_CODES)
    return head("Exit codes", "the table in errors.py") + "\n" + table(["exit code", "means"], rows) + CHECK
