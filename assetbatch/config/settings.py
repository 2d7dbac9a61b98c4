"""All keys of config.yaml: one declaration gives a key's type, range, default, comment and JSON Schema.

Frozen `msgspec.Struct`s, named as the YAML is; durations carry their unit in their name. A description is the
comment of `config show --defaults`, an example stands there for a key without default; `extra["expected"]` is said
where a pattern would be. One long table on purpose: whoever looks for a key finds it here.
"""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from assetbatch.config.secret import ENCODE, HOST, USERINFO
from assetbatch.markets import TICKER_PATTERN, TICKERS_DESCRIBED, TRAITS
from assetbatch.model import Product
from assetbatch.plans import ALIASES, FREE, MOST_TICKERS, PLANS

if TYPE_CHECKING:
    PlanWord: TypeAlias = str
    StocksPlanWord: TypeAlias = str
    IndicesPlanWord: TypeAlias = str
    TypeWord: TypeAlias = str
    ClusterWord: TypeAlias = str
else:  # no type checker reads a table
    PlanWord = Literal[(*PLANS[Product.CURRENCIES], *ALIASES)]
    StocksPlanWord = Literal[(*PLANS[Product.STOCKS], *ALIASES)]
    IndicesPlanWord = Literal[(*PLANS[Product.INDICES], *ALIASES)]
    TypeWord = Literal[tuple(asset_type.value for asset_type in TRAITS)]
    ClusterWord = TypeWord
PriorityWord: TypeAlias = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW"]


def about(description: str, *, expected: str = "", example: object = None) -> Meta:
    """Return what is said of a key: its comment, what it can hold, what stands there where it has no default."""
    extra = {"expected": expected} if expected else None
    return Meta(description=description, extra=extra, examples=None if example is None else [example])


# A scheme, a host, and perhaps a path: user, password and query would put secrets into log lines.
Url: TypeAlias = Annotated[str, Meta(pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[^\s?#@]*)?$", max_length=500)]
_PLAIN_URL = "an http:// or https:// address without user, password or query"
StreamUrl: TypeAlias = Annotated[
    Annotated[str, Meta(pattern=r"^wss?://[A-Za-z0-9._:\[\]-]+(/[^\s?#@]*)?$", max_length=500)] | UnsetType,
    about(
        "absent: where the vendor has it",
        expected="a wss:// or ws:// address without user, password or query",
        example="wss://socket.massive.com/…",
    ),
]
PingUrl: TypeAlias = Annotated[
    Annotated[str, Meta(pattern=rf"^https?://{USERINFO}({HOST}([/?#]\S*)?|[^\s@]*)$", max_length=2000)] | None,
    about("URL in the manner of healthchecks.io; a secret", expected=f"an http:// or https:// URL, or null; {ENCODE}"),
]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping in config.yaml that knows all its keys."""


class Plans(Section, frozen=True, kw_only=True):
    """The plans of what is sold by itself: a paid currencies key is a free stocks key."""

    stocks: Annotated[StocksPlanWord, about(" | ".join(PLANS[Product.STOCKS]))] = FREE.name
    indices: Annotated[IndicesPlanWord, about(" | ".join(PLANS[Product.INDICES]))] = FREE.name


class Provider(Section, frozen=True, kw_only=True):
    """Where prices come from, and what the plan gives."""

    base_url: Annotated[Url, about("https://api.polygon.io, its old name, works too", expected=_PLAIN_URL)] = (
        "https://api.massive.com"
    )
    plan: Annotated[PlanWord, about(f"of forex and crypto: {' | '.join(PLANS[Product.CURRENCIES])}")] = FREE.name
    plans: Plans = Plans()
    upgrade_url: Annotated[Url, about("shown where a plan stands in the way", expected=_PLAIN_URL)] = (
        "https://massive.com/pricing"
    )
    mode: Annotated[Literal["auto", "live", "end_of_day"], about("auto (as the plan says) | live | end_of_day")] = (
        "auto"
    )
    batch_size: Annotated[
        int,
        Meta(ge=1, le=MOST_TICKERS, description="assets in one snapshot call; 1: a single-ticker call for each asset"),
    ] = MOST_TICKERS
    concurrency: Annotated[int, Meta(ge=1, le=64, description="calls at once on an unlimited plan")] = 8
    max_calls_per_second: Annotated[
        Annotated[float, Meta(gt=0, le=10_000)] | None, about("on an unlimited plan; null: no bound")
    ] = 100.0
    connect_timeout_seconds: Annotated[float, Meta(gt=0, le=60, description="until a connection stands")] = 5.0
    timeout_seconds: Annotated[float, Meta(gt=0, le=300, description="of the whole answer, not of one read")] = 20.0


class RateLimiting(Section, frozen=True, kw_only=True):
    """How often the key may be used, by all programs and hosts together."""

    calls_per_minute: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | UnsetType | None,
        about("calls in any window_seconds; absent: as the plan says; null: unlimited", example=FREE.calls_per_minute),
    ] = UNSET
    window_seconds: Annotated[float, Meta(gt=0, le=3600, description="the window in which calls count")] = 60.0
    margin_seconds: Annotated[float, Meta(ge=0, le=60, description="covers a server that counts in whole seconds")] = (
        1.0
    )
    min_spacing_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="12 spreads 5 calls evenly over the minute")
    ] = 0.0
    reservation_grace_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="a slot kept for run-priority may come free this late")
    ] = 10.0
    tier: Annotated[
        PlanWord | UnsetType, about("another name for provider.plan: give one of the two", example=FREE.name)
    ] = UNSET


_TICKERS = " or ".join(
    f"{traits.prefix}… ({', '.join(traits.included)})" if traits.prefix else f"{traits.example} ({kind})"
    for kind, traits in TRAITS.items()
)
_TYPES = [
    f"{name} ({', '.join(others)} included)" if others else name
    for name, *others in (traits.included for traits in TRAITS.values())
]


class AssetSection(Section, frozen=True, kw_only=True):
    """What assets of both lists have."""

    symbol: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=50)],
        about(
            "its name in trading.symbols, at most 50 bytes",
            expected="1 to 50 of A-Z a-z 0-9 . _ / - that begin with a letter or digit",
        ),
    ]
    polygon_ticker: Annotated[
        Annotated[str, Meta(pattern=TICKER_PATTERN, max_length=50)],
        about(
            f"the vendor's name: {TICKERS_DESCRIBED}",
            expected=f"{_TICKERS}, as the vendor writes it: case matters",
        ),
    ]
    asset_type: Annotated[
        TypeWord,
        about(" | ".join(_TYPES), expected=" or ".join(_TYPES)),
    ]
    name: Annotated[str, Meta(max_length=200, description="for people")] = ""
    update_frequency_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | UnsetType,
        about("absent: batch.interval_minutes (priority) or enqueue_interval_minutes (secondary)"),
    ] = UNSET
    enabled: Annotated[bool, about("false: left alone")] = True


class PriorityAsset(AssetSection, frozen=True, kw_only=True):
    """An asset that run-priority updates before anything else."""

    priority: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | UnsetType, about("1 comes first; absent: place in the list")
    ] = UNSET


class SecondaryAsset(AssetSection, frozen=True, kw_only=True):
    """An asset that waits its turn in the queue."""

    priority: Annotated[PriorityWord, about("CRITICAL | HIGH | MEDIUM | LOW")] = "MEDIUM"


def _priority(rank: int, ticker: str, asset_type: str, name: str) -> PriorityAsset:
    return PriorityAsset(
        symbol=ticker.partition(":")[2],
        polygon_ticker=ticker,
        asset_type=asset_type,
        name=name,
        priority=rank,
        update_frequency_seconds=300,
    )


PRIORITY_ASSETS = (
    _priority(1, "C:XAUUSD", "forex", "Gold Spot"),
    _priority(2, "C:EURUSD", "forex", "Euro/US Dollar"),
    _priority(3, "X:BTCUSD", "crypto", "Bitcoin/US Dollar"),
)
SECONDARY_ASSETS = (
    SecondaryAsset(symbol="ETHUSDT", polygon_ticker="X:ETHUSDT", asset_type="crypto"),
    SecondaryAsset(symbol="GBPUSD", polygon_ticker="C:GBPUSD", asset_type="forex"),
    SecondaryAsset(symbol="USDJPY", polygon_ticker="C:USDJPY", asset_type="forex"),
    SecondaryAsset(symbol="XAGUSD", polygon_ticker="C:XAGUSD", asset_type="forex"),
)


class Batch(Section, frozen=True, kw_only=True):
    """Which assets, and how often."""

    interval_minutes: Annotated[
        float, Meta(gt=0, le=1440, description="how often cron starts run-priority; fractions allowed")
    ] = 5.0
    max_cycle_seconds: Annotated[float, Meta(gt=0, le=3600, description="a priority run begins no call after that")] = (
        60.0
    )
    priority_assets_enabled: Annotated[bool, about("false: run-priority has nothing to do")] = True
    priority_assets: Annotated[tuple[PriorityAsset, ...], about("updated first, in order of priority")] = (
        PRIORITY_ASSETS
    )
    secondary_assets: Annotated[tuple[SecondaryAsset, ...], about("wait their turn in the queue")] = SECONDARY_ASSETS
    secondary_source: Annotated[
        Literal["config", "database"], about("config | database (enabled rows of assetbatch.assets)")
    ] = "config"
    enqueue_interval_minutes: Annotated[
        float, Meta(gt=0, le=1440, description="also the default update frequency of secondary assets")
    ] = 30.0


class Queue(Section, frozen=True, kw_only=True):
    """The durable queue of secondary assets."""

    max_size: Annotated[int, Meta(ge=1, le=10_000_000, description="what does not fit is dropped and counted")] = 1000
    retry_max_attempts: Annotated[int, Meta(ge=0, le=100, description="after the first try; then a dead letter")] = 3
    retry_delay_seconds: Annotated[float, Meta(ge=0, le=86_400, description="doubles with each attempt")] = 60.0
    lease_seconds: Annotated[
        float, Meta(ge=1, le=86_400, description="after that the work of a killed worker is taken over")
    ] = 120.0
    aging_minutes: Annotated[
        float, Meta(ge=0, le=525_600, description="what a step of priority is worth in waiting; 0: strict order")
    ] = 30.0


class Bars(Section, frozen=True, kw_only=True):
    """5-minute bars for the ML engine."""

    enabled: Annotated[
        bool | Literal["auto"], about("auto: on an unlimited plan and in end-of-day mode | true | false")
    ] = "auto"
    backfill_days: Annotated[int, Meta(ge=0, le=36_500, description="how far back a new asset's bars begin")] = 30
    settle_seconds: Annotated[
        float,
        Meta(ge=0, le=86_400, description="a bar fetched this long after its end is final"),
    ] = 90.0
    recheck_hours: Annotated[
        float, Meta(ge=0, le=8760, description="once a day this much before the newest bar is fetched again")
    ] = 48.0
    retention_months: Annotated[Annotated[int, Meta(ge=1, le=1200)] | None, about("null: bars are kept for ever")] = (
        None
    )
    changes_retention_days: Annotated[
        int, Meta(ge=1, le=3650, description="for so long a cursor of `bars export` is good")
    ] = 30


class DatabaseSection(Section, frozen=True, kw_only=True):
    """Where the data lives: embedded, or a PostgreSQL server (which the environment may name instead)."""

    embedded: Annotated[bool, about("the tool's own PostgreSQL; not beside host or DATABASE_URL")] = False
    host: Annotated[
        Annotated[str, Meta(pattern=r"^(/\S*|[\w.:,%-]+)$", max_length=1000)] | UnsetType,
        about("name, address or socket folder", expected="a host's name or address", example="db.example.com"),
    ] = UNSET
    port: Annotated[Annotated[int, Meta(ge=1, le=65_535)] | UnsetType, about("absent: 5432", example=5432)] = UNSET
    name: Annotated[
        Annotated[str, Meta(pattern=r"^[\w.$-]+$", max_length=63)] | UnsetType,
        about(
            "the database; embedded has a default: assetbatch",
            expected="a database's name, at most 63 letters, digits, _ . $ -",
            example="trading",
        ),
    ] = UNSET
    user: Annotated[
        Annotated[str, Meta(pattern=r"^\S+$", max_length=255)] | UnsetType,
        about("absent: the operating system's user", expected="a user's name without spaces", example="assetbatch"),
    ] = UNSET


class Events(Section, frozen=True, kw_only=True):
    """asset:update:{symbol}, once for each stored change."""

    backend: Annotated[
        Literal["auto", "redis", "postgres", "none"],
        about("auto: redis when REDIS_URL is set, else postgres (NOTIFY) | redis | postgres | none"),
    ] = "auto"
    max_age_minutes: Annotated[
        float, Meta(gt=0, le=525_600, description="older events are dropped, but each symbol's newest")
    ] = 60.0
    stream: Annotated[bool, about("true: also XADD to a capped Redis stream")] = False


class StreamUrls(Section, frozen=True, kw_only=True):
    """Where each cluster of the WebSocket is; absent: where the vendor has it."""

    forex: StreamUrl = UNSET
    crypto: StreamUrl = UNSET
    stocks: StreamUrl = UNSET
    indices: StreamUrl = UNSET


class Stream(Section, frozen=True, kw_only=True):
    """Live prices over the vendor's WebSocket, on paid plans."""

    enabled: Annotated[bool, about("true: a stream is meant to run; one that is away is an alert")] = False
    flush_seconds: Annotated[
        float, Meta(ge=0.1, le=60, description="the newest price of each asset is stored so often")
    ] = 1.0
    clusters: Annotated[
        Literal["auto"] | Annotated[tuple[ClusterWord, ...], Meta(min_length=1)],
        about("auto: those of all enabled assets | a list, as [forex, crypto]"),
    ] = "auto"
    urls: StreamUrls = StreamUrls()
    bars: Annotated[bool, about("true: minutes build the open 5-minute bar, gaps are asked for")] = True


class Alerts(Section, frozen=True, kw_only=True):
    """Thresholds of status and its --check."""

    priority_success_rate_min: Annotated[float, Meta(ge=0, le=1, description="a share: 0.90 is 90 %")] = 0.90
    priority_latency_ms_max: Annotated[float, Meta(gt=0, le=86_400_000, description="mean of a priority run")] = (
        30_000.0
    )
    queue_size_max: Annotated[int, Meta(ge=0, le=10_000_000, description="items, now and one interval ago")] = 500
    rate_limit_waits_per_hour_max: Annotated[
        int, Meta(ge=0, le=1_000_000, description="priority calls that waited too long, and 429 answers")
    ] = 10
    assets_not_well_max: Annotated[
        int, Meta(ge=0, le=10_000_000, description="secondary assets that may be stale, failing or never updated")
    ] = 0


class Pings(Section, frozen=True, kw_only=True):
    """URLs that are called when a job ends, at most 5 s, never fatal; each is a secret."""

    run_priority: PingUrl = None
    drain_queue: PingUrl = None
    enqueue_secondary: PingUrl = None

    def __repr__(self) -> str:
        return "Pings(***)"


class Settings(Section, frozen=True, kw_only=True):
    """config.yaml."""

    provider: Provider = Provider()
    rate_limiting: RateLimiting = RateLimiting()
    batch: Batch = Batch()
    queue: Queue = Queue()
    bars: Bars = Bars()
    database: DatabaseSection = DatabaseSection()
    events: Events = Events()
    stream: Stream = Stream()
    alerts: Alerts = Alerts()
    pings: Pings = Pings()
    instance: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100)] | None,
        about("what metrics call this installation; null: by its host and database"),
    ] = None
    retention_days: Annotated[
        int, Meta(ge=1, le=36_500, description="days that runs and calls are kept, for status and metrics")
    ] = 30
