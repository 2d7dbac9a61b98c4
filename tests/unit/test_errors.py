from __future__ import annotations

import inspect

import pytest

from assetbatch import errors
from assetbatch.errors import AssetbatchError, Fault
from assetbatch.failures import POLICIES, FailureKind


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_of_failure_has_its_consequence_and_advice(kind: FailureKind) -> None:
    assert POLICIES[kind].hint


def test_every_error_is_in_the_tree_and_has_an_exit_code_of_the_contract() -> None:
    own = [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, Exception) and member.__module__ == errors.__name__
    ]
    assert len(own) > 5
    for error in own:
        assert issubclass(error, AssetbatchError)
        assert error.exit_code in {1, 2, 3, 69, 77, 78}
        assert error.__name__ in (errors.__doc__ or "")


def test_an_interruption_exits_as_shells_expect() -> None:
    assert [errors.Interrupted(number).exit_code for number in (2, 15)] == [130, 143]


def test_a_fault_is_one_line_with_place_and_key() -> None:
    assert str(Fault("config.yaml:3", "batch.x", "unknown key")) == "config.yaml:3: batch.x: unknown key"
    assert str(Fault("", "", "no file")) == "no file"
