"""One connection's conversation: its order, what has to come by when, and what is not in force."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from assetbatch.provider.stream import Status, Word
from assetbatch.stream import session as sessions
from assetbatch.stream.pacing import Cause
from assetbatch.stream.session import CONFIRM_SECONDS, MOST_NAMES, STEP_SECONDS, EndedError, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = "a-key-that-is-told-once"
CONNECTED, AUTHENTICATED = Status(Word.CONNECTED, ""), Status(Word.AUTHENTICATED, "")
NOT_ENTITLED = Status(Word.NOT_ENTITLED, "error: not authorized")


def confirmed(names: Iterable[str]) -> list[Status]:
    return [Status(Word.CONFIRMED, name) for name in names]


def sent(frames: Iterable[str]) -> list[tuple[str, str]]:
    return [(found["action"], found["params"]) for found in map(json.loads, frames)]


def subscribed(*names: str) -> Session:
    """A session that has asked for its names at 0."""
    session = Session(KEY, names, began=0)
    session.take([CONNECTED, AUTHENTICATED], 0)
    return session


def test_the_key_goes_out_once_the_vendor_has_greeted_and_names_once_it_is_taken() -> None:
    session = Session(KEY, ["C.EUR/USD", "CA.EUR/USD"], began=0)

    assert sent(session.take([], 0)) == []
    assert sent(session.take([CONNECTED], 0)) == [("auth", KEY)]
    assert not session.is_ready
    assert sent(session.take([AUTHENTICATED], 1)) == [("subscribe", "C.EUR/USD,CA.EUR/USD")]
    assert sent(session.take(confirmed(["C.EUR/USD"]), 1)) == []
    assert not session.is_ready
    assert sent(session.take(confirmed(["CA.EUR/USD"]), 1)) == []
    assert session.is_ready
    assert session.confirmed == {"C.EUR/USD", "CA.EUR/USD"}
    assert session.seconds_left(1) is None
    assert session.look(1e9) == []


def test_what_is_said_again_changes_nothing() -> None:
    session = Session(KEY, ["C.A/B"], began=0)

    first = session.take([CONNECTED, CONNECTED, AUTHENTICATED, AUTHENTICATED, CONNECTED], 0)
    again = session.take([*confirmed(["C.A/B"] * 3), CONNECTED, AUTHENTICATED], 0)

    assert [action for action, _ in sent(first)] == ["auth", "subscribe"]
    assert again == []
    assert session.is_ready


def test_an_answer_to_what_was_not_asked_is_none() -> None:
    session = Session(KEY, ["C.A/B"], began=0)

    assert session.take([AUTHENTICATED, *confirmed(["C.A/B", "C.X/Y"])], 0) == []
    assert session.confirmed == set()
    session.take([CONNECTED, AUTHENTICATED, *confirmed(["C.X/Y"])], 0)
    assert session.confirmed == set()
    assert not session.is_ready


@pytest.mark.parametrize(
    ("statuses", "names"),
    [([], "a greeting"), ([CONNECTED], "an answer to the key")],
)
def test_a_step_of_the_handshake_that_does_not_come_ends_it(statuses: list[Status], names: str) -> None:
    session = Session(KEY, ["C.A/B"], began=0)
    session.take(statuses, 1)

    left = session.seconds_left(1)
    assert left is not None
    assert session.look(1 + left - 0.01) == []
    with pytest.raises(EndedError, match=names) as ended:
        session.look(1 + left)
    assert ended.value.cause is Cause.MUTE
    assert left <= STEP_SECONDS


def test_no_subscription_confirmed_at_all_ends_it() -> None:
    session = subscribed("C.A/B")

    with pytest.raises(EndedError, match="no subscription") as ended:
        session.look(CONFIRM_SECONDS)
    assert ended.value.cause is Cause.MUTE


def test_a_name_without_answer_is_of_no_channel_and_the_others_stream() -> None:
    session = subscribed("C.A/B", "ZZ.A/B")
    session.take(confirmed(["C.A/B"]), 1)

    assert session.look(CONFIRM_SECONDS) == []
    assert session.is_ready
    assert set(session.unconfirmed) == {"ZZ.A/B"}
    assert "no answer" in session.unconfirmed["ZZ.A/B"]


def test_what_a_message_leaves_unconfirmed_beside_not_authorized_is_not_in_the_plan() -> None:
    session = subscribed("C.A/B", "FMV.A/B")
    session.take([NOT_ENTITLED, *confirmed(["C.A/B"])], 1)

    session.look(CONFIRM_SECONDS)
    assert session.is_ready
    assert session.unconfirmed == {"FMV.A/B": "not in the plan"}


def test_a_plan_without_any_of_the_channels_is_told_by_name_and_ends_nothing() -> None:
    session = subscribed("C.A/B", "CA.A/B")
    session.take([NOT_ENTITLED], 1)

    session.look(CONFIRM_SECONDS)
    assert session.is_ready
    assert session.unconfirmed == dict.fromkeys(["C.A/B", "CA.A/B"], "not in the plan")


def test_a_confirmation_that_comes_late_counts_all_the_same() -> None:
    session = subscribed("C.A/B", "CA.A/B")
    session.take(confirmed(["C.A/B"]), 1)
    session.look(CONFIRM_SECONDS)
    assert session.unconfirmed

    session.take(confirmed(["CA.A/B"]), CONFIRM_SECONDS + 1)
    assert session.unconfirmed == {}
    assert session.confirmed == {"C.A/B", "CA.A/B"}


def test_many_names_are_asked_for_in_messages_of_bounded_length_one_after_another() -> None:
    names = [f"C.T{number}/USD" for number in range(2 * MOST_NAMES + 1)]
    session = Session(KEY, names, began=0)
    frames = session.take([CONNECTED, AUTHENTICATED], 0)
    asked: list[str] = []
    for message in range(3):
        ((action, params),) = sent(frames)[-1:]
        assert action == "subscribe"
        part = params.split(",")
        assert len(part) <= MOST_NAMES
        asked += part
        # In pieces, in any order; one refusal more in the second message.
        frames = session.take(confirmed(reversed(part[1:])), message)
        assert frames == []
        if message == 1:
            session.take([NOT_ENTITLED], message)
            frames = session.look(message + CONFIRM_SECONDS)
        else:
            frames = session.take(confirmed(part[:1]), message)

    assert asked == names
    assert session.is_ready
    assert session.unconfirmed == {names[MOST_NAMES]: "not in the plan"}


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        (Word.REFUSED_KEY, Cause.REFUSED_KEY),
        (Word.REFUSED_PLAN, Cause.REFUSED_PLAN),
        (Word.TOO_MANY, Cause.TOO_MANY),
        (Word.ENDED, Cause.ENDED),
    ],
)
def test_what_the_vendor_ends_it_with_ends_it_at_any_step(word: Word, cause: Cause) -> None:
    steps = [[], [CONNECTED], [CONNECTED, AUTHENTICATED], [CONNECTED, AUTHENTICATED, *confirmed(["C.A/B"])]]
    for before in steps:
        session = Session(KEY, ["C.A/B"], began=0)
        session.take(before, 0)

        with pytest.raises(EndedError, match="the reason") as ended:
            session.take([Status(word, "the reason")], 0)
        assert ended.value.cause is cause


def test_without_names_it_is_ready_once_the_key_is_taken() -> None:
    assert subscribed().is_ready


def test_every_word_that_ends_a_connection_has_a_cause() -> None:
    harmless = {Word.CONNECTED, Word.AUTHENTICATED, Word.CONFIRMED, Word.NOT_ENTITLED, Word.OTHER}
    assert set(Word) - harmless == set(sessions.CAUSES)
