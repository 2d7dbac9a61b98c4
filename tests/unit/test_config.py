"""The keys, their defaults, what follows from them, and how they are shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from assetbatch.config import Config, keys, show
from assetbatch.config.settings import Settings
from assetbatch.errors import ConfigurationError
from assetbatch.model import Asset, AssetType, Priority, Role
from tests.unit.configs import EMBEDDED, load_in

if TYPE_CHECKING:
    from pathlib import Path

# Section 2 of the specification, as it stands there.
SPECIFICATION = """
provider:
  base_url: https://api.massive.com
  plan: free
  upgrade_url: https://massive.com/pricing
  mode: auto
  batch_size: 250
  concurrency: 8
  max_calls_per_second: 100
  connect_timeout_seconds: 5
  timeout_seconds: 20
rate_limiting:
  calls_per_minute: 5
  window_seconds: 60
  margin_seconds: 1.0
  min_spacing_seconds: 0
  reservation_grace_seconds: 10
batch:
  interval_minutes: 5
  max_cycle_seconds: 60
  priority_assets_enabled: true
  priority_assets:
    - {symbol: XAUUSD, polygon_ticker: "C:XAUUSD", asset_type: forex,  name: Gold Spot,         priority: 1, update_frequency_seconds: 300, enabled: true}
    - {symbol: EURUSD, polygon_ticker: "C:EURUSD", asset_type: forex,  name: Euro/US Dollar,    priority: 2, update_frequency_seconds: 300}
    - {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto, name: Bitcoin/US Dollar, priority: 3, update_frequency_seconds: 300}
  secondary_assets:
    - {symbol: ETHUSDT, polygon_ticker: "X:ETHUSDT", asset_type: crypto}
    - {symbol: GBPUSD, polygon_ticker: "C:GBPUSD", asset_type: forex}
    - {symbol: USDJPY, polygon_ticker: "C:USDJPY", asset_type: forex}
    - {symbol: XAGUSD, polygon_ticker: "C:XAGUSD", asset_type: forex}
  secondary_source: config
  enqueue_interval_minutes: 30
queue: {max_size: 1000, retry_max_attempts: 3, retry_delay_seconds: 60, lease_seconds: 120, aging_minutes: 30}
bars:
  enabled: auto
  backfill_days: 30
  settle_seconds: 90
  recheck_hours: 48
  retention_months: null
  changes_retention_days: 30
database: {embedded: true}
events: {backend: auto, max_age_minutes: 60, stream: false}
stream: {enabled: false, flush_seconds: 1.0, clusters: auto, bars: true}
alerts: {priority_success_rate_min: 0.90, priority_latency_ms_max: 30000, queue_size_max: 500, rate_limit_waits_per_hour_max: 10, assets_not_well_max: 0}
pings: {run_priority: null, drain_queue: null, enqueue_secondary: null}
retention_days: 30
"""  # noqa: E501 - kept as the specification has it


def without_database(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, database=Settings().database)


def test_keys_and_defaults_are_those_of_the_specification(tmp_path: Path) -> None:
    config = load_in(tmp_path, SPECIFICATION)
    limits = msgspec.structs.replace(config.settings.rate_limiting, calls_per_minute=msgspec.UNSET)
    given = without_database(msgspec.structs.replace(config.settings, rate_limiting=limits))
    assert given == Settings()
    specified = yaml.safe_load(SPECIFICATION)
    named = {f"{section}.{key}" for section, inner in specified.items() if isinstance(inner, dict) for key in inner} | {
        "retention_days",
        "instance",
    }
    extra = {
        "provider.plans.stocks",
        "provider.plans.indices",
        "stream.urls.forex",
        "stream.urls.crypto",
        "stream.urls.stocks",
        "stream.urls.indices",
        "rate_limiting.tier",
        "database.host",
        "database.port",
        "database.name",
        "database.user",
    }
    assert {key for key, _ in keys.leaves()} == named | extra


def test_every_key_has_a_comment_and_every_number_a_range() -> None:
    unbounded = []
    for key, field in keys.leaves():
        assert keys.meta(field.type).description, key
        text = str(field.type)
        if re.search(r"\b(int|float)\b", text) and not ("le=" in text and ("ge=" in text or "gt=" in text)):
            unbounded.append(key)
    assert unbounded == []


@pytest.mark.parametrize(
    ("text", "plan", "calls"),
    [
        ("", "free", 5),
        ("provider: {plan: basic}", "free", 5),
        ("provider: {plan: starter}", "starter", None),
        ("rate_limiting: {tier: developer}", "developer", None),
        ("rate_limiting: {tier: basic}\nprovider: {plan: free}", "free", 5),
        ("rate_limiting: {calls_per_minute: null}", "free", None),
        ("rate_limiting: {calls_per_minute: 3}", "free", 3),
        ("provider: {plan: business}\nrate_limiting: {calls_per_minute: 5, window_seconds: 2}", "business", 5),
    ],
)
def test_plan_and_limit(tmp_path: Path, text: str, plan: str, calls: int | None) -> None:
    config = load_in(tmp_path, EMBEDDED + text)
    assert (config.plan_words, config.calls_per_window(config.types)) == (plan, calls)
    assert config.window_seconds == (2 if "window_seconds" in text else 60)


def test_fractions_where_time_is_measured(tmp_path: Path) -> None:
    settings = load_in(
        tmp_path,
        EMBEDDED + "batch: {interval_minutes: 0.5}\nrate_limiting: {window_seconds: 2.5, margin_seconds: 0}\n",
    ).settings
    assert (settings.batch.interval_minutes, settings.rate_limiting.window_seconds) == (0.5, 2.5)
    assert isinstance(settings.rate_limiting.margin_seconds, float)


def asset(symbol: str, **more: Any) -> dict[str, Any]:
    return {"symbol": symbol, "polygon_ticker": f"X:{symbol}", "asset_type": "crypto", **more}


def load_assets(folder: Path, **batch: Any) -> Config:
    return load_in(folder, EMBEDDED + json.dumps({"batch": batch})[1:-1].replace('"batch":', "batch:", 1))


def test_priority_assets_come_in_order_of_priority(tmp_path: Path) -> None:
    config = load_assets(
        tmp_path,
        interval_minutes=0.5,
        priority_assets=[
            asset("C3", priority=9),
            asset("OFF", enabled=False),
            asset("A1", priority=1, update_frequency_seconds=60, name="First"),
            asset("B2"),
        ],
    )
    assert [(row.symbol, row.rank) for row in config.priority_assets] == [("A1", 1), ("B2", 4), ("C3", 9)]
    assert config.priority_assets[0] == Asset("A1", "X:A1", AssetType.CRYPTO, Role.PRIORITY, 1, 60, "First")
    assert config.priority_assets[1].update_frequency_seconds == 30
    assert load_assets(tmp_path, priority_assets_enabled=False).priority_assets == ()
    assert load_assets(tmp_path, priority_assets=[]).priority_assets == ()


def test_secondary_assets_have_words_for_priority_and_a_default_frequency(tmp_path: Path) -> None:
    config = load_assets(
        tmp_path,
        enqueue_interval_minutes=2,
        secondary_assets=[
            asset("A"),
            asset("B", priority="CRITICAL", update_frequency_seconds=7),
            asset("C", enabled=False),
        ],
    )
    assert [(row.symbol, row.rank, row.update_frequency_seconds) for row in config.secondary_assets] == [
        ("A", Priority.MEDIUM, 120),
        ("B", Priority.CRITICAL, 7),
    ]
    assert {row.role for row in config.secondary_assets} == {Role.SECONDARY}
    shortest = load_assets(tmp_path, enqueue_interval_minutes=0.001)
    assert {row.update_frequency_seconds for row in shortest.secondary_assets} == {1}


@pytest.mark.parametrize("symbol", ["GBPUSD", "gbpusd", "POUND"])
def test_a_default_secondary_asset_that_is_put_first_is_no_secondary_one(tmp_path: Path, symbol: str) -> None:
    moved = {"symbol": symbol, "polygon_ticker": "C:GBPUSD", "asset_type": "forex"}
    config = load_assets(tmp_path, priority_assets=[moved])
    assert [row.symbol for row in config.priority_assets] == [symbol]
    assert [row.symbol for row in config.secondary_assets] == ["ETHUSDT", "USDJPY", "XAGUSD"]


def test_default_priority_assets_are_dropped_by_nothing_but_a_list_of_ones_own(tmp_path: Path) -> None:
    gold = {"symbol": "XAUUSD", "polygon_ticker": "C:XAUUSD", "asset_type": "forex"}
    with pytest.raises(ConfigurationError, match="XAUUSD is a priority asset by default: give batch"):
        load_assets(tmp_path, secondary_assets=[gold])
    config = load_assets(tmp_path, secondary_assets=[gold], priority_assets=[])
    assert [row.symbol for row in config.assets] == ["XAUUSD"]


def test_effective_tells_value_and_origin_of_every_key(tmp_path: Path) -> None:
    config = load_in(
        tmp_path,
        EMBEDDED + "pings: {run_priority: 'https://hc-ping.com/x'}\nprovider: {plan: basic}\n",
        {"POLYGON_API_KEY": "thekey", "QUEUE_MAX_SIZE": "9"},
    )
    rows = {key: (value, origin) for key, value, origin in show.effective(config)}
    assert rows["queue.max_size"] == (9, "QUEUE_MAX_SIZE")
    assert rows["pings.run_priority"] == ("***", "config.yaml:2")
    assert rows["pings.drain_queue"] == (None, "default")
    assert rows["api_key"] == ("***", "POLYGON_API_KEY")
    assert rows["redis_url"] == (None, "not given")
    assert rows["rate_limiting.calls_per_minute"] == (5, "the plan, free")
    assert rows["database.embedded"] == (True, "config.yaml:1")
    assert rows["batch.priority_assets"][0][0]["symbol"] == "XAUUSD"
    assert {key for key, _ in keys.leaves()} - rows.keys() == {
        "rate_limiting.tier",
        "database.host",
        "database.port",
        "database.user",
    }


def test_the_document_is_json(tmp_path: Path) -> None:
    config = load_in(tmp_path, "", {"DATABASE_URL": "postgresql://u:pw@h/d"})
    document = json.loads(json.dumps(show.effective_document(config)))
    assert document["file"] == str(tmp_path / "config.yaml")
    values = {row["key"]: row for row in document["values"]}
    assert values["database.described"]["value"] == "d on h:5432 (DATABASE_URL)"
    assert values["database.name"] == {"key": "database.name", "value": "d", "origin": "DATABASE_URL"}


def test_defaults_are_a_configuration_and_change_nothing(tmp_path: Path) -> None:
    text = show.defaults_yaml(embedded=True)
    config = load_in(tmp_path, text)
    assert config.database.embedded
    assert without_database(config.settings) == Settings()
    for key, field in keys.leaves():
        assert re.search(rf"^ *(# )?{key.rpartition('.')[2]}:", text, re.MULTILINE), key
        assert (keys.meta(field.type).description or "?") in text
    examples = re.sub(r"^(\s*)# (\w+: )", r"\1\2", text, flags=re.MULTILINE).replace("  embedded: true", "  #")
    assert load_in(tmp_path, examples).settings.rate_limiting.calls_per_minute == 5


def test_defaults_go_with_an_environment_that_names_a_database(tmp_path: Path) -> None:
    config = load_in(tmp_path, show.defaults_yaml(embedded=False), {"DATABASE_URL": "postgresql://h/d"})
    assert config.settings == Settings()


ODD_ASSETS = [
    asset("NO", name="Yes"),
    asset("ON", name="null: 'x' # \"y\" \\ 🥇 {a, b} "),
    asset("1E5", name="~", enabled=False, priority=7, update_frequency_seconds=1),
]
ODD = json.dumps(ODD_ASSETS, ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (EMBEDDED, {}),
        (SPECIFICATION, {"POLYGON_API_KEY": "thekey", "REDIS_URL": "redis://:pw@h"}),
        ("", {"DATABASE_URL": "postgresql://u:pw@h/d", "POLYGON_TIER": "starter", "POLYGON_RATE_LIMIT": "unlimited"}),
        ("database: {host: '::1', port: 6000, name: a.b$c, user: 1e5}", {"DB_PASSWORD": "pw"}),
        ("database: {host: filehost, name: d}", {"DB_HOST": "h", "DB_USER": "no"}),
        ("database: {embedded: true, name: other}\nprovider: {plan: basic}\nbars: {enabled: false}", {}),
        (EMBEDDED + "pings: {run_priority: 'https://u:pw@h/x'}\nprovider: {max_calls_per_second: null}", {}),
        (EMBEDDED + "batch: {priority_assets: [], secondary_assets: [], interval_minutes: 0.00001}", {}),
        (
            EMBEDDED + f"batch: {{priority_assets: {ODD}}}\nalerts: {{priority_latency_ms_max: 1234567.25}}",
            {},
        ),
        (EMBEDDED + "queue: {retry_delay_seconds: 0.30000000000000004}\nevents: {max_age_minutes: 500000}", {}),
    ],
)
def test_what_is_in_force_is_a_configuration_that_means_the_same(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    config = load_in(tmp_path, text, environ)
    shown = show.effective_yaml(config)
    assert not re.search("pw|thekey", shown)
    again = load_in(tmp_path, shown, environ)
    pings = msgspec.structs.replace(config.settings, pings=Settings().pings)
    assert again.settings == pings
    assert (again.database.name, again.database.embedded) == (config.database.name, config.database.embedded)
    assert again.calls_per_window(again.types) == config.calls_per_window(config.types)


def test_json_schema_is_tight_and_commented() -> None:
    schema = json.loads(json.dumps(show.json_schema()))
    for name, definition in schema["$defs"].items():
        assert definition["additionalProperties"] is False, name
    limiting = schema["$defs"]["RateLimiting"]["properties"]
    assert "null" in {part["type"] for part in limiting["calls_per_minute"]["anyOf"]}
    assert "default" not in limiting["calls_per_minute"]
    assert "starter" in limiting["tier"]["enum"]
    assert schema["$defs"]["PriorityAsset"]["required"] == ["symbol", "polygon_ticker", "asset_type"]
    assert schema["$defs"]["Provider"]["properties"]["batch_size"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 250,
        "default": 250,
        "description": "assets in one snapshot call; 1: a single-ticker call for each asset",
    }
    assert {"type": "null"} in schema["$defs"]["Settings"]["properties"]["rate_limiting"]["anyOf"]
