"""What `stream.py` streams from: a server in a process of its own that speaks the vendor's handshake, fast.

It confirms every name, and then sends events as a plan says, each with a price that tells its number, in frames of a
given size. What it sent when is kept by the number. Times are monotonic seconds, which all processes of a machine
share, but for those in events: Unix milliseconds.
"""

from __future__ import annotations

import json
import math
import signal
import struct
import threading
import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from harness import SPAWN
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection as Pipe

    from websockets.sync.server import ServerConnection

TICK_SECONDS = 0.005
MOST_A_TICK = 2_000
# The order in which assets have their turns: this is prime to any number of them that is used here.
STRIDE = 389
DECIMALS = 7
MINUTE_MS = 60_000
BAR_MS = 5 * MINUTE_MS
# No event may be from later than five minutes ahead.
AHEAD_MS = 290_000

QUOTES = {
    "forex": '{{"ev":"C","p":"{name}","x":"44","a":{price}1,"b":{price},"t":{ms}}}',
    "crypto": '{{"ev":"XT","pair":"{name}","p":{price},"s":0.0125,"c":[2],"i":"{ms}","x":1,"t":{ms},"r":{ms}}}',
}
MINUTES = {
    "forex": '{{"ev":"CA","pair":"{name}","o":{o},"c":{c},"h":{h},"l":{l},"v":{v},"s":{s},"e":{e}}}',
    "crypto": '{{"ev":"XA","pair":"{name}","o":{o},"c":{c},"h":{h},"l":{l},"v":{v},"vw":{c},"z":0,"s":{s},"e":{e}}}',
}


def price(number: int) -> str:
    """Return the digits of the event of that number, zeros at their end and all."""
    return f"{1 + number // 10**DECIMALS}.{number % 10**DECIMALS:0{DECIMALS}}"


def number_of(digits: str) -> int:
    """Return which event has these digits."""
    return int((Decimal(digits) - 1).scaleb(DECIMALS))


@dataclass(frozen=True)
class Plan:
    """Events of all assets in turn, for so many seconds: `rate` a second, which doubles every so often.

    `burst`: so many are due at once, always. `minutes_every`: how often each asset has its newest minute sent, too.
    """

    seconds: float
    rate: float
    doubling_seconds: float = math.inf
    burst: int = 1
    events_a_frame: int = 25
    minutes_every: float = math.inf

    def due(self, seconds: float) -> int:
        """Return how many events are to be out by then."""
        if math.isinf(self.doubling_seconds):
            return int(self.rate * seconds) // self.burst * self.burst
        growth = math.log(2) / self.doubling_seconds
        return math.floor(self.rate * math.expm1(growth * seconds) / growth)

    def at(self, number: int) -> float:
        """Return when the event of that number is due."""
        if math.isinf(self.doubling_seconds):
            return number / self.rate
        growth = math.log(2) / self.doubling_seconds
        return math.log1p(number * growth / self.rate) / growth


@dataclass
class Sent:
    """What was sent: `first` events and `at` what time, ever more of both; the minutes' digits by asset and begin."""

    began: float
    total: int = 0
    first: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    bars: dict[tuple[int, int], dict[int, tuple[str, str, str, str, str]]] = field(default_factory=dict)
    seconds: float = 0.0
    latest: float = 0.0
    """How late the latest event went out."""

    def time_of(self, number: int) -> float:
        """Return when an event was sent."""
        return self.at[bisect_right(self.first, number) - 1]


class FeedProcess:
    """The server, until it is closed. `names` are those of each cluster; an asset's number counts through all."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self._control, other = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(names, other), daemon=True)
        self._process.start()
        other.close()
        self.port: int = self._control.recv()

    def begin(self, plan: Plan) -> float:
        """Begin to send; return when."""
        self._control.send(plan)
        began: float = self._control.recv()
        return began

    def end(self, seconds: float = 0.0) -> Sent:
        """Wait until all is sent, at most for so long; return what was."""
        if not self._control.poll(seconds):
            self._control.send("end")
        sent: Sent = self._control.recv()
        return sent

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class _Feed:
    def __init__(self, names: dict[str, list[str]]) -> None:
        self._assets = [(cluster, name) for cluster, own in names.items() for name in own]
        self._quotes = [QUOTES[cluster].replace("{name}", name) for cluster, name in self._assets]
        self._connections: dict[str, ServerConnection] = {}

    def converse(self, connection: ServerConnection) -> None:
        """Greet, let in and confirm whatever is asked for."""
        assert connection.request is not None
        cluster = connection.request.path.strip("/")
        connection.send('[{"ev":"status","status":"connected","message":"Connected Successfully"}]')
        # One that is killed leaves without a word.
        for message in _until_closed(connection):
            asked = json.loads(message)
            if asked["action"] == "auth":
                connection.send('[{"ev":"status","status":"auth_success","message":"authenticated"}]')
                continue
            names = asked["params"].split(",")
            connection.send(
                json.dumps(
                    [
                        {"ev": "status", "status": "success", "message": f"{asked['action']}d to: {name}"}
                        for name in names
                    ]
                )
            )
            self._connections[cluster] = connection

    def run(self, plan: Plan, control: Pipe) -> Sent:
        """Send as the plan says, until it is through or the other end of the pipe has a word."""
        sent = Sent(time.monotonic())
        control.send(sent.began)
        unix_ms = time.time() * 1000
        minutes_at = plan.minutes_every / 2
        while (now := time.monotonic() - sent.began) < plan.seconds and not control.poll():
            due = min(plan.due(now), sent.total + MOST_A_TICK)
            if due > sent.total:
                sent.latest = max(sent.latest, now - plan.at(sent.total))
                self._send_quotes(plan, sent, due, unix_ms)
            if now >= minutes_at:
                minutes_at += plan.minutes_every
                self._send_minutes(plan, sent)
            time.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - sent.began - now)))
        sent.seconds = time.monotonic() - sent.began
        return sent

    def _send_quotes(self, plan: Plan, sent: Sent, due: int, unix_ms: float) -> None:
        events: dict[str, list[str]] = {}
        for number in range(sent.total, due):
            asset = number * STRIDE % len(self._assets)
            text = self._quotes[asset].format(price=price(number), ms=int(unix_ms + plan.at(number) * 1000))
            events.setdefault(self._assets[asset][0], []).append(text)
        sent.first.append(sent.total)
        sent.at.append(time.monotonic())
        sent.total = due
        self._send(events, plan.events_a_frame)

    def _send_minutes(self, plan: Plan, sent: Sent) -> None:
        """Send a minute of the next bar: the newest that may be told by now, with other figures each time."""
        now_ms = int(time.time() * 1000)
        bar = (now_ms // BAR_MS + 1) * BAR_MS
        start = max(bar, min((now_ms + AHEAD_MS) // MINUTE_MS * MINUTE_MS, bar + BAR_MS - MINUTE_MS))
        events: dict[str, list[str]] = {}
        for asset, (cluster, name) in enumerate(self._assets):
            number = sent.total + asset
            digits = (price(number), price(number + 90), price(number - 90), price(number + 7), f"{number % 977}.50")
            sent.bars.setdefault((asset, bar), {})[start] = digits
            o, h, l, c, v = digits  # noqa: E741 - the vendor's names
            text = MINUTES[cluster].format(name=name, o=o, h=h, l=l, c=c, v=v, s=start, e=start + MINUTE_MS)
            events.setdefault(cluster, []).append(text)
        self._send(events, plan.events_a_frame)

    def _send(self, events: dict[str, list[str]], size: int) -> None:
        for cluster, texts in events.items():
            frames = b"".join(_frame(texts[at : at + size]) for at in range(0, len(texts), size))
            connection = self._connections[cluster]
            # The library's own `send` would cost more than all else here, frame by frame.
            with connection.protocol_mutex, suppress(OSError):
                connection.socket.sendall(frames)


def _until_closed(connection: ServerConnection) -> Iterator[str | bytes]:
    with suppress(ConnectionClosed):
        yield from connection


def _frame(texts: Sequence[str]) -> bytes:
    body = f"[{','.join(texts)}]".encode()
    header = struct.pack("!BB", 0x81, len(body)) if len(body) < 126 else struct.pack("!BBH", 0x81, 126, len(body))
    return header + body


def _serve(names: dict[str, list[str]], control: Pipe) -> None:
    # Ctrl-C reaches every process: this one is ended by the one that it serves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    feed = _Feed(names)
    with serve(feed.converse, "127.0.0.1", 0, compression=None, max_size=2**24) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        control.send(server.socket.getsockname()[1])
        while True:
            # An end may come when all is sent already.
            if isinstance(plan := control.recv(), Plan):
                control.send(feed.run(plan, control))


def joined(minutes: dict[int, tuple[str, str, str, str, str]]) -> tuple[Decimal, ...]:
    """Return open, high, low, close and volume of the bar that these minutes make, by their begins."""
    rows = [[Decimal(digits) for digits in minutes[start]] for start in sorted(minutes)]
    opened, highs, lows, closes, volumes = zip(*rows, strict=True)
    return opened[0], max(highs), min(lows), closes[-1], sum(volumes, Decimal(0))
