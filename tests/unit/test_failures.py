"""What follows from a failed call: the whole table, so that a change of one rule shows as a change of one line."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from uuid import uuid4

import pytest

from assetbatch.config.settings import Queue
from assetbatch.database.queue.items import Item, State
from assetbatch.failures import POLICIES, Covers, Decision, FailureKind, Then, backoff_seconds, decide
from assetbatch.jobs.claims import verdict
from assetbatch.markets import type_of
from assetbatch.model import Asset, Failure, Role

DOCUMENT = Path(__file__).parents[2] / "docs" / "design" / "call-outcomes.md"
BEGIN, END = "<!-- made from the table: begin -->\n", "<!-- made from the table: end -->\n"

ONE, SEVERAL, MARKET, NEWEST, OLD = Covers
BACK, FAIL, HALVE, SUSPECT = Then.GIVE_BACK, Then.FAIL, Then.HALVE, Then.SUSPECT
# Of each kind that a call can fail with: what follows if it was for one asset, several, a market, newest or old bars.
FATES = {
    FailureKind.KEY_REFUSED: (BACK, BACK, BACK, BACK, BACK),
    FailureKind.NOT_ENTITLED: (FAIL, BACK, BACK, BACK, BACK),
    FailureKind.TIMEFRAME: (FAIL, BACK, BACK, FAIL, Then.SKIP),
    FailureKind.NOT_YET: (BACK, BACK, BACK, Then.POSTPONE, Then.POSTPONE),
    FailureKind.EMPTY: (BACK, BACK, BACK, BACK, BACK),
    FailureKind.RATE_LIMITED: (BACK, BACK, BACK, BACK, BACK),
    FailureKind.NO_SLOT: (BACK, BACK, BACK, BACK, BACK),
    FailureKind.NO_THREAD: (BACK, BACK, BACK, BACK, BACK),
    FailureKind.UNREACHABLE: (BACK, BACK, BACK, FAIL, FAIL),
    FailureKind.TIMEOUT: (SUSPECT, SUSPECT, BACK, FAIL, FAIL),
    FailureKind.SERVER_ERROR: (SUSPECT, SUSPECT, BACK, FAIL, FAIL),
    FailureKind.BAD_REQUEST: (FAIL, HALVE, BACK, FAIL, FAIL),
    FailureKind.TOO_MANY: (BACK, HALVE, BACK, BACK, BACK),
    FailureKind.NOT_FOUND: (FAIL, HALVE, BACK, FAIL, FAIL),
    FailureKind.UNKNOWN_TICKER: (FAIL, HALVE, BACK, FAIL, FAIL),
    FailureKind.MALFORMED: (SUSPECT, SUSPECT, BACK, FAIL, FAIL),
    FailureKind.TOO_LARGE: (SUSPECT, SUSPECT, BACK, FAIL, FAIL),
    FailureKind.REDIRECTED: (SUSPECT, SUSPECT, BACK, FAIL, FAIL),
}
END_THE_RUN = {FailureKind.KEY_REFUSED, FailureKind.NO_SLOT, FailureKind.NO_THREAD}
WHEN_AWAY = {
    FailureKind.UNREACHABLE,
    FailureKind.TIMEOUT,
    FailureKind.SERVER_ERROR,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
    FailureKind.REDIRECTED,
}
AGAIN = {FailureKind.RATE_LIMITED, FailureKind.UNREACHABLE, FailureKind.TIMEOUT, FailureKind.SERVER_ERROR}


@pytest.mark.parametrize(("kind", "is_away"), list(product(FATES, [False, True])))
def test_what_follows(kind: FailureKind, is_away: bool) -> None:
    ends_run = kind in END_THE_RUN or (is_away and kind in WHEN_AWAY)

    assert [decide(kind, covers, is_away=is_away) for covers in Covers] == [
        Decision(then, ends_run) for then in FATES[kind]
    ]


@pytest.mark.parametrize(("kind", "covers"), list(product(FATES, Covers)))
def test_what_is_made_again_while_there_are_tries(kind: FailureKind, covers: Covers) -> None:
    assert (decide(kind, covers, tries_left=1) == Decision(Then.AGAIN)) is (kind in AGAIN)


def test_each_failure_doubles_the_wait_up_to_a_bound() -> None:
    for failures, least in ((1, 60), (2, 120), (3, 240), (12, 1000)):
        assert least <= backoff_seconds(failures, 60, 1000) <= least + 15


def written() -> str:
    """Write the table as the document has it."""
    lines = [
        "| kind | one asset | several | a market's day | newest bars | old bars | ends the run |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in FATES:
        policy = POLICIES[kind]
        fates = [decide(kind, covers).then.name.lower().replace("_", " ") for covers in Covers]
        ends = "yes" if policy.ends_run else "when the API is away" if policy.strike else "no"
        first = f"`{kind}`{' (made again)' if policy.retry else ''}"
        lines.append(f"| {first} | {' | '.join(fates)} | {ends} |")
    return "\n".join(lines) + "\n"


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text()
    inside = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]

    assert inside == written(), "python -m tests.unit.test_failures writes it anew"


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + written() + END + rest.partition(END)[2])


@pytest.mark.parametrize(("ticker", "state"), [("X:NOSUCHUSD", State.DEAD), ("NOSUCH", State.DELAYED)])
def test_an_unknown_ticker_waits_for_the_reference_list_where_that_may_tell_of_it(ticker: str, state: State) -> None:
    asset = Asset("NOSUCH", ticker, type_of(ticker), Role.SECONDARY, 3, 1800)
    item = Item(asset, uuid4(), 1, None, None)

    ending = verdict(item, Failure("NOSUCH", FailureKind.UNKNOWN_TICKER, "no"), Queue())

    assert (ending.state, ending.spent) == (state, True)
