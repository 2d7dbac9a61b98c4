"""Values of all sources against the declarations: every leaf on its own, so that all faults are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assetbatch import plans
from assetbatch.config import secret
from assetbatch.config.given import Given, Values, printable
from assetbatch.config.keys import fields, item_of, leaves, section_of
from assetbatch.config.settings import Section, Settings
from assetbatch.config.sources import VARIABLES
from assetbatch.config.wording import Refusal, called, did_you_mean, typed
from assetbatch.errors import Fault
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN_SECTIONS = ("database.", "pings.")
"""Their keys are where a connection string or a ping's URL is put: no fault repeats a text from there."""
SECRET_KEYS = {
    "DB_PASSWORD": {"password", "passwd", "pass", "db_password", "sslpassword"},
    "POLYGON_API_KEY": {"api_key", "apikey", "key", "token", "secret", "polygon_api_key"},
    "DATABASE_URL": {"database_url", "db_url", "dsn", "conninfo", "database.url", "database.uri"},
    "REDIS_URL": {"redis", "redis_url"},
}
KEYS_HINT = "`assetbatch config show --defaults` lists all keys"


def from_document(root: Given | None, faults: list[Fault]) -> Values:
    """Return the values of a config.yaml, `rate_limiting.tier` under its real name; an empty one has none."""
    values: Values = {}
    if root is not None:
        _section(root, Settings, "", values, faults)
    if (tier := values.pop("rate_limiting.tier", None)) is not None:
        plan = values.setdefault("provider.plan", tier)
        if plans.ALIASES.get(plan.value, plan.value) != plans.ALIASES.get(tier.value, tier.value):
            message = f"says {tier.value}, while provider.plan says {plan.value} ({plan.place}): give one of the two"
            faults.append(Fault(tier.place, "rate_limiting.tier", message))
    return values


def from_variables(variables: Mapping[str, Given], faults: list[Fault]) -> Values:
    """Return the values that variables of the environment or .env stand for."""
    declared = dict(leaves())
    values: Values = {}
    for name, key in VARIABLES.items():
        if name in variables:
            _value(variables[name], declared[key].type, key, values, faults, variable=name)
    return values


def _section(given: Given, section: type[Section], path: str, values: Values, faults: list[Fault]) -> None:
    if given.value is None:  # a section whose keys are all commented out
        return
    if not isinstance(given.value, dict):
        message = f"expected a mapping (lines of key: value), not {called(given)}"
        if path == "database" and isinstance(given.value, str):
            message += f"; a connection string is given as {secret.ways('DATABASE_URL')}"
        faults.append(Fault(given.place, path, message, KEYS_HINT))
        return
    known = fields(section)
    for name, child in given.value.items():
        dotted = f"{path}.{name}" if path else name
        if name not in known:
            message = _unknown(name, path, section)
            hint = KEYS_HINT if message.startswith("unknown key") else ""
            faults.append(Fault(child.place, printable(dotted, 120), message, hint))
        elif (inner := section_of(known[name].type)) is not None:
            _section(child, inner, dotted, values, faults)
        elif (item := item_of(known[name].type)) is not None:
            _list(child, item, dotted, values, faults)
        else:
            _value(child, known[name].type, dotted, values, faults)


def _value(given: Given, annotation: Any, key: str, values: Values, faults: list[Fault], *, variable: str = "") -> None:
    """Add a key's value, or the fault; one from `.env` is told by the variable's name."""
    try:
        value = typed(annotation, given, hidden=key.startswith(HIDDEN_SECTIONS), variable=bool(variable))
        values[key] = Given(value, given.place)
    except Refusal as refusal:
        name = variable if variable and given.place != variable else key
        faults.append(Fault(given.place, name, str(refusal), "" if variable else KEYS_HINT))


def _list(given: Given, section: type[Section], key: str, values: Values, faults: list[Fault]) -> None:
    if not isinstance(given.value, list):
        faults.append(Fault(given.place, key, f"expected a list, not {called(given)}; [] is an empty one", KEYS_HINT))
        return
    rows: list[Values] = []
    for number, item in enumerate(given.value):
        path = f"{key}[{number}]"
        if not isinstance(item.value, dict):
            message = f"expected an asset ({{symbol: …, polygon_ticker: …, asset_type: …}}), not {called(item)}"
            faults.append(Fault(item.place, path, message, KEYS_HINT))
            continue
        found: Values = {}
        _section(item, section, path, found, faults)
        missing = [name for name, field in fields(section).items() if field.required and name not in item.value]
        faults.extend(Fault(item.place, f"{path}.{name}", "is missing", KEYS_HINT) for name in missing)
        rows.append({name.removeprefix(path + "."): value for name, value in found.items()})
    values[key] = Given(rows, given.place)


def _unknown(name: str, path: str, section: type[Section]) -> str:
    """Return what an unknown key may have been meant to be."""
    word = name.lower().replace("-", "_")
    for variable, words in SECRET_KEYS.items():
        if not words.isdisjoint({word, f"{path}.{word}"}):
            return f"no place for a secret: give it as {secret.ways(variable)}"
    if name == "<<":
        return "merge keys are not read here: write the keys themselves"
    if path == "provider.plans" and word in list(AssetType):
        return f"unknown key; the plan of {word} is {plans.KEYS[TRAITS[AssetType(word)].product]}"
    homes = {key.rpartition(".")[2]: key for key, _ in leaves()} | {top: top for top in fields(Settings)}
    if word in homes.values() and "." in word:
        parent, _, leaf = word.rpartition(".")
        return f"unknown key; write {leaf} in the section {parent}"
    parent = homes.get(word, "").rpartition(".")[0]
    if word in homes and parent != path:
        return f"unknown key; {word} belongs " + (f"under {parent}" if parent else "to no section: write it at the top")
    close = did_you_mean(name, fields(section)) or homes.get(did_you_mean(name, homes))
    return f"unknown key; did you mean {close}?" if close else "unknown key"
