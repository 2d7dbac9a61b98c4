"""One request to the vendor as a value: where it goes, and how its answer is read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from assetbatch.provider.answers import check_status
from assetbatch.provider.documents import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document

A_co = TypeVar("A_co", covariant=True)


class Request(Struct, Generic[A_co], frozen=True):
    """What is sent for a call: path and query; `read` makes what it is about of a good document.

    `read` is told the time that prices are held against, and raises CallError. `has_status`: a good document says
    that it is one. `is_list`: it is a bare list, which is read as `results`.
    """

    call: Call
    path: str
    read: Callable[[Document, datetime], A_co]
    has_status: bool = True
    is_list: bool = False
    plain: Callable[[bytes | bytearray], Callable[[datetime], A_co] | None] = lambda _body: None
    """Reads a body in which nothing is odd by itself, and faster; None where the document has to be looked at."""

    def parse(self, body: bytes | bytearray, *, retry_after_seconds: float | None = None) -> Callable[[datetime], A_co]:
        """Return what reads an answer, held against a time, out of a body that is no refusal. Raises CallError."""
        if (plain := self.plain(body)) is not None:
            return plain
        document = parse(body, is_list=self.is_list)
        if self.has_status or "status" in document:
            check_status(document, retry_after_seconds=retry_after_seconds)
        return partial(self.read, document)
