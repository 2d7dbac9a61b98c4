"""Values of all sources against the declarations: every leaf on its own, so that all faults are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assetbatch.config import secret
from assetbatch.config.given import Given, located, printable
from assetbatch.config.keys import fields, item_of, leaves, section_of
from assetbatch.config.settings import Section, Settings
from assetbatch.config.sources import VARIABLES
from assetbatch.config.wording import Refusal, did_you_mean, shown, typed, typed_text
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SECRET_KEYS = {
    "DB_PASSWORD": {"password", "passwd", "pass", "db_password", "sslpassword"},
    "POLYGON_API_KEY": {"api_key", "apikey", "key", "token", "secret", "polygon_api_key"},
    "DATABASE_URL": {"database_url", "db_url", "dsn", "conninfo"},
    "REDIS_URL": {"redis", "redis_url"},
}
Values = dict[str, Given]
"""Checked values by dotted key; a list of assets is a list of `dict[str, Given]`."""


def from_document(root: Given | None, faults: list[Fault]) -> Values:
    """Return the values of a config.yaml; an empty one has none."""
    values: Values = {}
    if root is not None:
        _section(root, Settings, "", values, faults)
    return _without_alias(values, faults)


def from_variables(variables: Mapping[str, Given], faults: list[Fault]) -> Values:
    """Return the values that variables of the environment or .env stand for."""
    declared = dict(leaves())
    values: Values = {}
    for name, key in VARIABLES.items():
        if (given := variables.get(name)) is None:
            continue
        try:
            hide = key.startswith("database.")
            values[key] = Given(typed_text(declared[key].type, given, secret=hide), given.place)
        except Refusal as refusal:
            faults.append(Fault(given.place, key if given.place == name else name, str(refusal)))
    return values


def from_options(overrides: Mapping[str, Any], faults: list[Fault]) -> Values:
    """Return the values of command-line options, by dotted key or nested; None: the option was not given.

    A text is read as a variable's is, so that `unlimited` is null.
    """
    declared = dict(leaves())
    values: Values = {}
    for key, value in _flat(overrides, ""):
        if value is None:
            continue
        given = located(value, "option")
        if key not in declared:
            faults.append(Fault("option", printable(key, 120), "unknown key"))
        elif isinstance(value, str) and item_of(declared[key].type) is None:
            try:
                values[key] = Given(typed_text(declared[key].type, given), "option")
            except Refusal as refusal:
                faults.append(Fault("option", key, str(refusal)))
        else:
            _leaf(given, declared[key].type, key, values, faults)
    return _without_alias(values, faults)


def _flat(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_alias(values: Values, faults: list[Fault]) -> Values:
    """Return the values with `rate_limiting.tier` under its real name, `provider.plan`."""
    tier = values.pop("rate_limiting.tier", None)
    if tier is None:
        return values
    plan = values.setdefault("provider.plan", tier)
    if same_plan(plan.value) != same_plan(tier.value):
        message = f"says {tier.value}, while provider.plan says {plan.value} ({plan.place}): give one of the two"
        faults.append(Fault(tier.place, "rate_limiting.tier", message))
    return values


def same_plan(word: str) -> str:
    """Return the plan's word; basic is the vendor's other name for free."""
    return "free" if word == "basic" else word


def _section(given: Given, section: type[Section], path: str, values: Values, faults: list[Fault]) -> None:
    if given.value is None:  # a section whose keys are all commented out
        return
    if not isinstance(given.value, dict):
        message = f"expected a mapping (lines of key: value), not {_kind(given)}"
        if section.__name__ == "DatabaseSection" and isinstance(given.value, str):
            message += f"; a connection string is given as {secret.ways('DATABASE_URL')}"
        faults.append(Fault(given.place, path, message))
        return
    known = fields(section)
    for name, child in given.value.items():
        dotted = f"{path}.{name}" if path else name
        if name not in known:
            faults.append(Fault(child.place, printable(dotted, 120), _unknown(name, path, section)))
        elif (inner := section_of(known[name].type)) is not None:
            _section(child, inner, dotted, values, faults)
        else:
            _leaf(child, known[name].type, dotted, values, faults)


def _kind(given: Given) -> str:
    return "text" if isinstance(given.value, str) else shown(given)


def _leaf(given: Given, annotation: Any, key: str, values: Values, faults: list[Fault]) -> None:
    if (item := item_of(annotation)) is not None:
        _list(given, item, key, values, faults)
        return
    try:
        hide = key.startswith("database.") and isinstance(given.value, str)
        values[key] = Given(typed(annotation, given, secret=hide), given.place)
    except Refusal as refusal:
        faults.append(Fault(given.place, key, str(refusal)))


def _list(given: Given, section: type[Section], key: str, values: Values, faults: list[Fault]) -> None:
    if not isinstance(given.value, list):
        faults.append(Fault(given.place, key, f"expected a list, not {_kind(given)}; [] is an empty one"))
        return
    rows: list[dict[str, Given]] = []
    for number, item in enumerate(given.value):
        path = f"{key}[{number}]"
        if not isinstance(item.value, dict):
            message = f"expected an asset ({{symbol: …, polygon_ticker: …, asset_type: …}}), not {_kind(item)}"
            faults.append(Fault(item.place, path, message))
            continue
        found: Values = {}
        _section(item, section, path, found, faults)
        missing = [name for name, field in fields(section).items() if field.required and name not in item.value]
        faults.extend(Fault(item.place, f"{path}.{name}", "is missing") for name in missing)
        rows.append({name.removeprefix(path + "."): value for name, value in found.items()})
    values[key] = Given(rows, given.place)


def _unknown(name: str, path: str, section: type[Section]) -> str:
    """Say what an unknown key may have been meant to be."""
    word = name.lower().replace("-", "_")
    if variable := _secret_meant(word, path):
        return f"no place for a secret: give it as {secret.ways(variable)}"
    if name == "<<":
        return "merge keys are not read here: write the keys themselves"
    homes = {key.rpartition(".")[2]: key for key, _ in leaves()} | {top: top for top in fields(Settings)}
    if word in homes.values() and "." in word:
        parent, _, leaf = word.rpartition(".")
        return f"unknown key; write {leaf} in the section {parent}"
    parent = homes.get(word, "").rpartition(".")[0]
    if word in homes and parent != path:
        return f"unknown key; {word} belongs " + (f"under {parent}" if parent else "to no section: write it at the top")
    close = did_you_mean(name, fields(section)) or homes.get(did_you_mean(name, homes))
    return f"unknown key; did you mean {close}?" if close else "unknown key"


def _secret_meant(word: str, path: str) -> str:
    if path == "database" and word in {"url", "uri"}:
        return "DATABASE_URL"
    return next((variable for variable, words in SECRET_KEYS.items() if word in words), "")
