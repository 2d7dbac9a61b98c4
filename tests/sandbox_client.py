"""Asking the sandbox by hand, to see what it answers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    import requests

    from assetbatch.sandbox.server import Sandbox

BEARER = {"Authorization": "Bearer sandbox"}


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def ask(session: requests.Session, sandbox: Sandbox, path: str, status: int = 200) -> Any:
    """Return the document of an answer, its numbers to the digit; the text of one that has none."""
    answer = session.get(sandbox.url + path, timeout=10)
    assert answer.status_code == status, answer.text
    is_json = answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.content, parse_float=Decimal, parse_int=Decimal) if is_json else answer.text


def rows(session: requests.Session, sandbox: Sandbox, path: str) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    found = []
    while path:
        page = ask(session, sandbox, path)
        found += page.get("results", [])
        path = page.get("next_url", "").removeprefix(sandbox.url)
    return found


def get(sandbox: Sandbox, path: str) -> dict[str, Any]:
    """Return the document of an answer, asked for on a connection of its own; its numbers are floats."""
    import requests

    answer = requests.get(sandbox.url + path, headers=BEARER, timeout=10)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document
