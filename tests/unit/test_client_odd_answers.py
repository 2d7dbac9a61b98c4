"""Answers that no server here gives, put in the place of the network."""

from __future__ import annotations

import pytest
import responses

from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client
from tests.asking import ask as ask_with

BASE = "https://api.example.com"
EURO = Asset("EURUSD", "C:EURUSD", AssetType.FOREX, Role.PRIORITY, 1, 300)
REQUEST = endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (EURO,)))
URL = f"{BASE}/v2/snapshot/locale/global/markets/forex/tickers/C:EURUSD"


def ask() -> CallError:
    client = Client(base_url=BASE, api_key="key-of-a-test", connect_timeout_seconds=1, timeout_seconds=1)
    with pytest.raises(CallError) as caught:
        ask_with(client, REQUEST)
    return caught.value


@pytest.mark.parametrize(
    ("http_status", "document", "kind"),
    [
        (200, {"status": "ERROR", "error": "something"}, FailureKind.MALFORMED),
        (200, {"status": "NOT_AUTHORIZED", "message": "not entitled"}, FailureKind.NOT_ENTITLED),
        (403, {"status": "ERROR", "error": "You are not entitled to this data."}, FailureKind.NOT_ENTITLED),
        (403, {"message": "Attempted to request today's data before end of day."}, FailureKind.NOT_YET),
        (418, {}, FailureKind.BAD_REQUEST),
        (599, {}, FailureKind.SERVER_ERROR),
    ],
)
@responses.activate
def test_an_odd_answer_is_a_typed_error_and_is_not_asked_for_twice(
    http_status: int, document: dict[str, str], kind: FailureKind
) -> None:
    responses.get(URL, json=document, status=http_status)

    error = ask()

    assert (error.kind, error.answered) == (kind, True)
    responses.assert_call_count(URL, 1)
    assert responses.calls[0].request.headers["Authorization"] == "Bearer key-of-a-test"
