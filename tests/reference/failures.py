"""docs/reference/failures.md, from the table of policies."""

from __future__ import annotations

from assetbatch.failures import POLICIES, Fate, Policy
from tests.reference.markdown import code, head, prose, table

INTRODUCTION = """\
Why a call, or one asset of it, brought nothing: `run-priority --json` and `queue list --json` name the kind, and so
does `assetbatch.api_calls`.

**Charged** is who pays for it. *The asset*: an attempt of its queue item, which goes back behind the others; out of
attempts it is a dead letter. *The asset, at once*: no further call can fare better, so it is a dead letter. *Nobody*:
it says nothing about the asset, which keeps all its attempts. *The asset, or nobody*: that depends on whether the API
answers others.

**In the run** is what the run does about it: *asks again* makes the same call up to three times in all, *halves*
makes two calls for half as many assets, *may end it* means that three such calls in a row, from whichever run, are
taken for an outage.

What follows in each case is told in [what follows from a failed call](../design/call-outcomes.md)."""


def page() -> str:
    """Return the whole page."""
    rows = (
        [code(kind.value), _charged(policy), _in_the_run(policy), code(policy.sync_status.value), prose(policy.hint)]
        for kind, policy in POLICIES.items()
    )
    columns = ["kind", "charged", "in the run", "sync_status", "what to do"]
    return head("Failures", "the table POLICIES in failures.py", INTRODUCTION) + "\n" + table(columns, rows)


def _charged(policy: Policy) -> str:
    if policy.strike and not (policy.outage and policy.fate is Fate.BACK):
        return "the asset, or nobody"
    return {Fate.RETRY: "the asset", Fate.DEAD: "the asset, at once", Fate.BACK: "nobody"}[policy.fate]


def _in_the_run(policy: Policy) -> str:
    words = {
        "ends it": policy.ends_run,
        "asks again": policy.retry,
        "halves": policy.halve,
        "may end it": policy.strike,
    }
    return ", ".join(word for word, holds in words.items() if holds) or "goes on"
