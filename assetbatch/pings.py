"""Pings: a URL that is called when a job's run ends, so that a monitor as healthchecks.io notices when one is missing.

A ping never fails a run, nor holds it up for longer than it may take. Its URL is a secret: nothing here repeats it, nor
the words of libraries, which do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from assetbatch import __version__, threads
from assetbatch.errors import NoThreadError
from assetbatch.schedule import JOBS

if TYPE_CHECKING:
    import requests

    from assetbatch.config import Config

log = logging.getLogger(__name__)

PING_SECONDS = 5.0


def ping(config: Config, job: str, *, failed: bool, seconds: float) -> None:
    """Tell the job's monitor, where one is configured, that a run has ended; `seconds` is the most that it takes."""
    if job not in JOBS or (url := getattr(config.settings.pings, JOBS[job].pings_key, None)) is None:
        return
    name = f"pings.{JOBS[job].pings_key} ({'failure' if failed else 'success'})"
    try:
        asked = threads.begin(lambda: _get(_failure_of(url) if failed else url, seconds), name="ping")
        answer = asked.result(seconds)
    except NoThreadError as error:
        answer = f"failed: {error.reason}"
    except TimeoutError:
        answer = f"failed: no answer within {seconds:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended as it has
        answer = f"failed: {type(error).__name__}"
    log.info("%s: %s", name, answer)


def _failure_of(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/fail"))


def _get(url: str, seconds: float) -> str:
    """Call the URL once; tell how it went."""
    import requests

    # It would warn of strange headers with the URL beside them.
    logging.getLogger("urllib3").propagate = False
    with requests.get(
        url,
        headers={"User-Agent": f"assetbatch/{__version__}"},
        auth=_no_auth,
        timeout=seconds,
        allow_redirects=False,
        stream=True,
    ) as response:
        status = response.status_code
    if 300 <= status < 400:
        return f"failed: HTTP {status}, a redirect, which is not followed: name the address that it leads to"
    return "sent" if status < 300 else f"failed: HTTP {status}"


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add nothing; without an auth, requests would look into ~/.netrc for one."""
    return request
