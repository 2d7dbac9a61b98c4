"""How the stream stands, cluster by cluster, and the words for it: live, or what is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from assetbatch.words import duration, named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.streams import Report, Told

LIVE, ENDED, AWAY = "live", "ended", "away"
STATES = ("connecting", LIVE, "waiting", "resting", "refused", ENDED, AWAY)


class StreamStatus(Struct, frozen=True):
    """One cluster: what was last told of it, and its state by now, one of `STATES`.

    A stream that ended said so; one that is away fell silent. `since`: aware UTC, None where that is not told.
    """

    told: Told
    state: str
    since: datetime | None

    @property
    def report(self) -> Report:
        """What its stream told; figures of the moment are of this one if `told.is_told`."""
        return self.told.report

    @property
    def lag(self) -> str:
        """How far behind the vendor's times it is, at the median and at the 95th percentile."""
        report = self.report
        return "-" if report.lag_p50_ms is None else f"{report.lag_p50_ms} / {report.lag_p95_ms} ms"


def stream_status(told: Told) -> StreamStatus:
    """Return how a cluster stands by what was last told of it."""
    report = told.report
    if report.state == ENDED:
        return StreamStatus(told, ENDED, told.told_at)
    if not told.is_told:
        return StreamStatus(told, AWAY, told.told_at)
    return StreamStatus(told, report.state, report.since)


def stream_document(one: StreamStatus) -> dict[str, Any]:
    """Lay out a cluster; counts are of all its time."""
    report = asdict(one.report)
    document = {"cluster": report.pop("cluster"), "state": one.state, "since": one.since, "host": one.told.host}
    document |= {"run_id": one.told.run_id, "told_at": one.told.told_at, "last_frame_at": report.pop("frame_at")}
    document |= {"serves": report.pop("is_alive"), "words": report.pop("words") or None}
    lists = {name: list(report.pop(name)) for name in ("unconfirmed", "silent")}
    return document | {name: report[name] for name in report if name not in document} | lists


def sentence(streams: Sequence[StreamStatus]) -> str:
    """Return how many clusters are live, what is in the way of the others, and which names bring nothing."""
    words = [f"{sum(one.state == LIVE for one in streams)} of {len(streams)} clusters live"]
    for one in streams:
        if one.state != LIVE:
            why = f": {one.report.words}" if one.report.words else ""
            ago = duration(one.told.now - one.told.told_at)
            state = {ENDED: f"ended {ago} ago", AWAY: f"away for {ago}"}.get(one.state, one.state)
            words.append(f"{one.report.cluster} {state}{why}")
        elif one.report.unconfirmed:
            words.append(f"{one.report.cluster} not confirmed: {named(one.report.unconfirmed)}")
        if one.state == LIVE and one.report.silent:
            words.append(f"{one.report.cluster} silent: {named(one.report.silent)}")
    return "; ".join(words)


def standing(reports: Sequence[Report], total: int) -> str:
    """Return in one line how a stream is doing that has these of `total` clusters."""
    if not reports:
        return "standing by: another stream may have the connections"
    live = [one for one in reports if one.state == LIVE]
    lags = [one.lag_p50_ms for one in live if one.lag_p50_ms is not None]
    words = [f"{sum(one.events_a_second for one in live):,.0f} events a second"]
    words += [f"lag {max(lags)} ms"] if lags else []
    words.append(f"{len(live)} of {total} connections live")
    others = [f"{one.cluster} {one.state}" for one in reports if one.state != LIVE]
    return "; ".join([", ".join(words), *others])
