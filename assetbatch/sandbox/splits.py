"""The document about splits: https://massive.com/docs/rest/stocks/corporate-actions/splits."""

from __future__ import annotations

import operator
from datetime import date
from typing import TYPE_CHECKING

from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Refused

if TYPE_CHECKING:
    from fractions import Fraction

    from assetbatch.sandbox.actions import Split
    from assetbatch.sandbox.bodies import Document
    from assetbatch.sandbox.request import Request

DEFAULT_ROWS = 100
MOST_ROWS = 5_000
_COMPARED = {
    "": operator.eq, ".gt": operator.gt, ".gte": operator.ge, ".lt": operator.lt, ".lte": operator.le,
}  # fmt: skip


def splits(request: Request) -> Document:
    """`/stocks/v1/splits`: splits of stocks by `ticker` and `execution_date`, announced ones, too; sorted, paged."""
    limit = request.number("limit", DEFAULT_ROWS, MOST_ROWS)
    sort = request.query.get("sort", "execution_date.desc")
    if sort not in {"execution_date.asc", "execution_date.desc"}:
        raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: sort"))
    found = {split.id: split for split in request.market.listing.splits if _asked_for(request, split)}
    shown, next_url = request.page(sorted(found, key=lambda one: found[one].day, reverse=sort.endswith("desc")), limit)
    rows = [_row(found[one], request.market.listing.factor(found[one])) for one in shown]
    document: Document = {"results": rows, "status": request.status(), "request_id": None}
    return document | ({"next_url": next_url} if next_url else {})


def _asked_for(request: Request, split: Split) -> bool:
    tickers = request.query.get("ticker.any_of", request.query.get("ticker", split.ticker)).split(",")
    return split.ticker in tickers and all(
        compare(split.day, _date(request.query[f"execution_date{suffix}"]))
        for suffix, compare in _COMPARED.items()
        if f"execution_date{suffix}" in request.query
    )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: execution_date")) from None


def _row(split: Split, factor: Fraction) -> Document:
    return {
        "ticker": split.ticker,
        "execution_date": str(split.day),
        "split_from": split.factor.denominator,
        "split_to": split.factor.numerator,
        "adjustment_type": "forward_split" if split.factor > 1 else "reverse_split",
        "historical_adjustment_factor": float(factor),
        "id": split.id,
    }
