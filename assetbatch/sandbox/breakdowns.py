"""Whole answers that go wrong, by the word that asks for them."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING

from msgspec.structs import replace

from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Answer, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

BOMB_BYTES = 512 * 1024 * 1024
DEPTH = 200_000
ELSEWHERE = "http://127.0.0.1:9/elsewhere"
_MEBIBYTE = 1024 * 1024
_PORTAL = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Guest network</h1></body></html>\n"


@cache
def packed_bomb() -> bytes:
    """Gzip of half a megabyte that unpacks to a valid JSON document of 512 MiB, nearly all of it spaces.

    One mebibyte is packed and repeated: a full flush ends at a byte and forgets what came before, so the
    packed piece means the same wherever it stands.
    """
    start, space, end = b'{"status":"OK","results":[]', b" " * _MEBIBYTE, b"}"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    body = packer.compress(space) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = packer.compress(end) + packer.flush(zlib.Z_FINISH)
    times = BOMB_BYTES // _MEBIBYTE
    check = zlib.crc32(start)
    for _ in range(times):
        check = zlib.crc32(space, check)
    check = zlib.crc32(end, check)
    size = len(start) + BOMB_BYTES + len(end)
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return header + head + body * times + tail + check.to_bytes(4, "little") + size.to_bytes(4, "little")


def _half(_path: str, answer: Callable[[], Answer]) -> Answer:
    good = answer()
    return replace(good, body=good.body[: len(good.body) // 2])


def _delivered(how: Delivery) -> Callable[[str, Callable[[], Answer]], Answer]:
    return lambda _path, answer: replace(answer(), delivery=how)


def _fixed(make: Callable[[], Answer]) -> Callable[[str, Callable[[], Answer]], Answer]:
    return lambda _path, _answer: make()


def _too_many() -> Answer:
    return bodies.error(429, bodies.TOO_MANY)


_refused = bodies.not_authorized
BREAKDOWNS: dict[str, Callable[[str, Callable[[], Answer]], Answer]] = {
    "500": _fixed(lambda: bodies.nginx(500, "Internal Server Error")),
    "502": _fixed(lambda: bodies.nginx(502, "Bad Gateway")),
    "504": _fixed(lambda: bodies.nginx(504, "Gateway Time-out")),
    "timeout": _fixed(lambda: Answer(0, b"", delivery=Delivery.SILENT)),
    "drip": _delivered(Delivery.DRIP),
    "drip-headers": _delivered(Delivery.DRIP_HEADERS),
    "reset": _delivered(Delivery.RESET),
    "garbage": _fixed(lambda: Answer(200, bytes(range(255, 127, -1)) + b"\x00{]!")),
    "html": _fixed(lambda: Answer(200, _PORTAL.encode(), "text/html")),
    "half": _half,
    "nested": _fixed(lambda: Answer(200, b'{"status":"OK","results":' + b"[" * DEPTH + b"]" * DEPTH + b"}")),
    "bomb": _fixed(lambda: Answer(200, packed_bomb(), headers=(("Content-Encoding", "gzip"),))),
    "empty": _fixed(lambda: Answer(200, b"")),
    "redirect": _fixed(lambda: Answer(302, b"", "text/html", headers=(("Location", ELSEWHERE),))),
    "400": _fixed(lambda: bodies.error(400, bodies.BAD_QUERY)),
    "401": _fixed(lambda: bodies.error(401, bodies.UNKNOWN_KEY)),
    "403": _fixed(lambda: _refused(bodies.NOT_ENTITLED)),
    "403-entitled": _fixed(lambda: _refused(bodies.NOT_ENTITLED)),
    "403-timeframe": _fixed(lambda: _refused(bodies.TIMEFRAME)),
    "403-today": _fixed(lambda: _refused(bodies.BEFORE_END_OF_DAY)),
    "403-in-200": _fixed(lambda: _refused(bodies.NOT_ENTITLED, status=200)),
    "404": lambda path, _answer: bodies.not_found(path),
    "404-text": _fixed(lambda: bodies.plain(404, "404 page not found\n")),
    "408": _fixed(lambda: bodies.nginx(408, "Request Time-out")),
    "413": _fixed(lambda: bodies.nginx(413, "Request Entity Too Large")),
    "425": _fixed(lambda: bodies.nginx(425, "Too Early")),
    "499": _fixed(lambda: bodies.nginx(499, "Client Closed Request")),
    "401-in-200": _fixed(lambda: bodies.error(200, bodies.UNKNOWN_KEY)),
    "429-in-200": _fixed(lambda: bodies.error(200, bodies.TOO_MANY)),
    "429": _fixed(_too_many),
    "429-retry-after": _fixed(lambda: replace(_too_many(), headers=(("Retry-After", "2"),))),
}
