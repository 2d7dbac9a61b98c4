"""What is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.config import document, keys, load
from assetbatch.config.settings import Settings
from assetbatch.errors import ConfigurationError, Fault
from tests.unit.configs import EMBEDDED

ASSET = "{symbol: S, polygon_ticker: 'X:S', asset_type: crypto%s}"


def faults_of(folder: Path, text: str) -> list[str]:
    (folder / "config.yaml").write_text(text)
    try:
        load(file=Path("config.yaml"), environ={}, cwd=folder)
    except ConfigurationError as error:
        return [str(fault) for fault in error.faults]
    return []


def assets(*rows: str) -> str:
    return "batch:\n  priority_assets:\n" + "".join(f"    - {row}\n" for row in rows)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "batch: {intervall_minutes: 3}",
            "batch.intervall_minutes: unknown key; did you mean interval_minutes?",
        ),
        (
            "batch: {window_seconds: 3}",
            "batch.window_seconds: unknown key; window_seconds belongs under rate_limiting",
        ),
        ("plan: free", "plan: unknown key; plan belongs under provider"),
        (
            "queue: {retention_days: 3}",
            "queue.retention_days: unknown key; retention_days belongs to no section: write it at the top",
        ),
        ("queue: {windw_seconds: 3}", "unknown key; did you mean rate_limiting.window_seconds?"),
        ("batch.interval_minutes: 3", "unknown key; write interval_minutes in the section batch"),
        ("Batch: {}", "Batch: unknown key; did you mean batch?"),
        (
            "provider: {plans: {forex: starter}}",
            "provider.plans.forex: unknown key; the plan of forex is provider.plan",
        ),
        ("zzzzzz: 1", "zzzzzz: unknown key"),
        ("12: 1", "12: unknown key"),
        ("[a, b]: 1", "expected a word as key, not a list or mapping"),
        ("<<: {plan: free}", "merge keys are not read here"),
        (
            "provider: {batch_size: x}",
            'provider.batch_size: expected a whole number from 1 to 250, not "x"',
        ),
        (
            "provider: {batch_size: 251}",
            "provider.batch_size: expected a whole number from 1 to 250, not 251",
        ),
        ("provider: {batch_size: 2.5}", "expected a whole number from 1 to 250, not 2.5"),
        ("provider: {batch_size: yes}", "expected a whole number from 1 to 250, not yes"),
        ("provider: {batch_size: }", "expected a whole number from 1 to 250, not null"),
        ("stream: {clusters: [stock]}", 'indices, not "stock"; did you mean stocks?'),
        ("stream: {clusters: [forex, [crypto], 1]}", "indices, not a list"),
        ("stream: {clusters: Crypto}", 'indices, not "Crypto"; did you mean [crypto]?'),
        ("stream: {clusters: []}", "indices, not an empty one"),
        ("provider: {batch_size: [1]}", "expected a whole number from 1 to 250, not a list"),
        ("provider: {batch_size: !!int foo}", "not a number that cannot be read"),
        ("provider: {batch_size: !foo 3}", "not a YAML tag"),
        (f"provider: {{batch_size: 0x{'f' * 9000}}}", "expected a whole number from 1 to 250, not 0xfff"),
        (f"provider: {{batch_size: {'9' * 9000}}}", "expected a whole number from 1 to 250"),
        (
            "provider: {plan: startr}",
            'expected one of free, starter, developer, advanced, business, not "startr"; did you mean starter?',
        ),
        ("provider: {timeout_seconds: .nan}", "expected a number above 0, at most 300, not .nan"),
        ("provider: {timeout_seconds: .inf}", "expected a number above 0, at most 300"),
        ("provider: {max_calls_per_second: x}", "expected a number above 0, at most 10000 or null"),
        (
            "provider: {base_url: ftp://x}",
            "expected an http:// or https:// address without user, password or query",
        ),
        ("provider: {base_url: 'https://h/?apiKey=x'}", "expected an http:// or https:// address"),
        ('provider: {base_url: "https://h/\\n"}', "has a line break or another control character"),
        ("bars: {enabled: maybe}", 'expected true, false or auto, not "maybe"'),
        ("bars: {retention_months: 0}", "expected a whole number from 1 to 1200 or null, not 0"),
        ("alerts: {priority_success_rate_min: 90}", "expected a number from 0 to 1, not 90"),
        (
            "rate_limiting: {calls_per_minute: 0}",
            "expected a whole number from 1 to 100000 or null, not 0",
        ),
        ("events: [1]", "events: expected a mapping (lines of key: value), not a list"),
        ("events: redis", "events: expected a mapping (lines of key: value), not text"),
        (
            "batch: {priority_assets: {}}",
            "batch.priority_assets: expected a list, not a mapping; [] is an empty one",
        ),
        ("batch: {secondary_assets: }", "batch.secondary_assets: expected a list, not null"),
        (
            "provider: {mode: auto, mode: live}",
            "provider.mode: is given twice; the first one is at config.yaml:1",
        ),
        (
            "rate_limiting: {tier: starter}\nprovider: {plan: developer}",
            "rate_limiting.tier: says starter, while provider.plan says developer (config.yaml:2)",
        ),
        ("events: {backend: redis}", "events.backend: redis needs Redis: give REDIS_URL"),
        ("events: {stream: true}", "events.stream: true needs Redis"),
        (assets("foo"), "batch.priority_assets[0]: expected an asset"),
        (assets("{symbol: S, asset_type: crypto}"), "batch.priority_assets[0].polygon_ticker: is missing"),
        (assets(ASSET % ", priority: HIGH"), "expected a whole number from 1 to 1000"),
        (
            assets(ASSET % ", update_frequency_seconds: 86401"),
            "expected a whole number from 1 to 86400, not 86401",
        ),
        (assets(ASSET % ", prioritty: 3"), "unknown key; did you mean priority?"),
        (
            assets("{symbol: NO, polygon_ticker: 'X:NO', asset_type: crypto}"),
            "not NO, which YAML does not take for text: put it in quotes",
        ),
        (
            assets("{symbol: 'a b', polygon_ticker: 'X:NO', asset_type: crypto}"),
            'expected 1 to 50 of A-Z a-z 0-9 . _ / - that begin with a letter or digit, not "a b"',
        ),
        (
            assets(f"{{symbol: {'S' * 51}, polygon_ticker: 'X:NO', asset_type: crypto}}"),
            "expected 1 to 50 of",
        ),
        (
            assets("{symbol: ../x, polygon_ticker: 'X:NO', asset_type: crypto}"),
            "batch.priority_assets[0].symbol",
        ),
        (
            assets("{symbol: AAPL, polygon_ticker: AAPL, asset_type: crypto}"),
            "crypto does not go with AAPL, which is stocks",
        ),
        (
            assets("{symbol: SPX, polygon_ticker: 'I:SPX', asset_type: crypto}"),
            "crypto does not go with I:SPX, which is indices",
        ),
        (
            assets("{symbol: X, polygon_ticker: 'X:X', asset_type: stock}"),
            'expected forex (metals included) or crypto or stocks or indices, not "stock"',
        ),
        (
            assets("{symbol: X, polygon_ticker: 'X:X', asset_type: forex}"),
            "batch.priority_assets[0].asset_type: forex does not go with X:X, which is crypto",
        ),
        (
            assets(ASSET % "", ASSET % ""),
            "batch.priority_assets[1].symbol: S is there twice; the first one is at config.yaml:3",
        ),
        (
            assets(ASSET % "") + f"  secondary_assets: [{ASSET % ', enabled: false'}]",
            "batch.secondary_assets[0].symbol: S is there twice",
        ),
        (
            assets("{symbol: s, polygon_ticker: 'X:A', asset_type: crypto}", ASSET % ""),
            "batch.priority_assets[1].symbol: S is there twice; the first one is at config.yaml:3 (batch.priority",
        ),
        (
            assets(ASSET % "") + "  secondary_assets: [{symbol: A, polygon_ticker: 'X:S', asset_type: crypto}]",
            "batch.secondary_assets[0].polygon_ticker: X:S is there twice; the first one is at config.yaml:3 (batch.",
        ),
        (
            "batch: {secondary_assets: [{symbol: BtcUsd, polygon_ticker: 'X:B', asset_type: crypto, enabled: false}]}",
            "batch.secondary_assets[0].symbol: BtcUsd is a priority asset by default, as BTCUSD: give batch.priority",
        ),
        (
            "batch: {secondary_assets: [{symbol: GOLD, polygon_ticker: 'C:XAUUSD', asset_type: forex}]}",
            "batch.secondary_assets[0].polygon_ticker: C:XAUUSD is a priority asset by default, as XAUUSD: give batch",
        ),
        (
            f"batch: {{secondary_assets: [{ASSET % ', priority: HIHG'}]}}",
            'expected one of CRITICAL, HIGH, MEDIUM, LOW, not "HIHG"; did you mean HIGH?',
        ),
    ],
)
def test_one_fault_with_its_line_and_key(tmp_path: Path, text: str, fault: str) -> None:
    faults = faults_of(tmp_path, text + "\n" + EMBEDDED)
    assert len(faults) == 1, faults
    assert fault in faults[0]
    assert faults[0].startswith("config.yaml:")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("batch:\n\tinterval_minutes: 3\n", "config.yaml:2: not YAML: a tab cannot indent; use spaces"),
        ("batch: [1\n", "config.yaml:2: not YAML: did not find expected ',' or ']'"),
        ("batch: a: b\n", "config.yaml:1: not YAML: mapping values are not allowed in this context"),
        ("batch: *secretpassword\n", "config.yaml:1: not YAML: an alias (*…) without its anchor"),
        (
            "batch: {}\n---\nbatch: {}\n",
            "config.yaml:2: not one YAML document: a second one begins here (---)",
        ),
        (
            "batch: {}\nqueue: \x01\n",
            "config.yaml:2: has a control character, which YAML does not allow",
        ),
        ("- [1]\n", "config.yaml:1: expected a mapping (lines of key: value), not a list"),
        ("hello\n", "config.yaml:1: expected a mapping (lines of key: value), not text"),
    ],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, fault: str) -> None:
    faults = [fault for fault in faults_of(tmp_path, text) if "no database" not in fault]
    assert len(faults) == 1
    assert faults[0].startswith(fault)


@pytest.mark.parametrize("loader", [document.LOADER, yaml.SafeLoader])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 102 + "]" * 102,
        "[" * 400_000,
        "- " * 400_000,
        "[" * 2000 + "]" * 2000,
        "{" * 2000,
        "[{a: " * 2000,
        "? " * 2000,
        "[\n" * 2000,
        "&a [" * 2000,
        "!!seq [" * 2000,
        "# é\N{GRINNING FACE}\nbatch: {}\nfoo: " + "[" * 2000,
        "".join(" " * level + "a:\n" for level in range(1200)),
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_the_depth_that_is_allowed_is_ours_whatever_the_parser_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: Any, text: str
) -> None:
    monkeypatch.setattr(document, "LOADER", loader)
    assert faults_of(tmp_path, text)[0] == "config.yaml: is nested more than 100 levels deep"


def test_what_is_not_too_deep_is_told_as_what_it_is(tmp_path: Path) -> None:
    assert "config.yaml:1: foo: unknown key" in faults_of(tmp_path, "foo: " + "[" * 100 + "]" * 100)
    assert faults_of(tmp_path, "foo: " + "[" * 100)[0].startswith("config.yaml:2: not YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_only_lacks_a_database(tmp_path: Path, text: str) -> None:
    (fault,) = faults_of(tmp_path, text)
    assert fault.startswith("config.yaml: database: no database is named")


def test_a_section_whose_keys_are_all_commented_out_is_no_fault(tmp_path: Path) -> None:
    sections = [name for name, field in keys.fields(Settings).items() if keys.section_of(field.type)]
    text = EMBEDDED + "".join(f"{name}:\n  # x: 1\n" for name in sections if name != "database")
    assert faults_of(tmp_path, text) == []


def test_all_faults_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    faults = faults_of(
        tmp_path, "provider:\n  plan: x\n  mode: x\n  mode: y\nfoo: 1\nqueue: {max_size: 0}\n" + EMBEDDED
    )
    assert [fault.split(": ")[:2] for fault in faults] == [
        ["config.yaml:2", "provider.plan"],
        ["config.yaml:3", "provider.mode"],
        ["config.yaml:4", "provider.mode"],
        ["config.yaml:5", "foo"],
        ["config.yaml:6", "queue.max_size"],
    ]


def test_very_many_faults_are_cut_short(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, "".join(f"k{n}: 1\n" for n in range(300)) + EMBEDDED)
    assert len(faults) == 101
    assert faults[-1] == "and 200 more"


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("api_key: hunter22", "POLYGON_API_KEY"),
        ("provider: {api-key: hunter22}", "POLYGON_API_KEY"),
        ("database: {password: hunter22}", "DB_PASSWORD"),
        ("database: {url: 'postgresql://u:hunter22@h/d'}", "DATABASE_URL"),
        ("database: postgresql://u:hunter22@h/d", "DATABASE_URL"),
        ("database_url: postgresql://u:hunter22@h/d", "DATABASE_URL"),
        ("events: {redis_url: 'redis://:hunter22@h'}", "REDIS_URL"),
        ("redis: {url: 'redis://:hunter22@h'}", "REDIS_URL"),
    ],
)
def test_a_secret_has_no_place_in_the_file(tmp_path: Path, text: str, variable: str) -> None:
    (fault,) = faults_of(tmp_path, text if "database:" in text else text + "\n" + EMBEDDED)
    assert f"{variable} in the environment or in .env, {variable}_FILE, or a systemd credential" in fault
    assert "hunter22" not in fault


@pytest.mark.parametrize(
    "text",
    [
        "pings: {run_priority: 'ftp://hunter22'}",
        "database: {host: 'postgresql://u:hunter22@h/d'}",
        "database: {name: 'hunter22 x'}",
        "provider: {base_url: 'https://u:hunter22@h'}",
        "provider: {plan: 'https://u:hunter22@h'}",
        "api_key: *hunter22",
        "api_key: !hunter22 {",
        "api_key: [hunter22\nfoo: 'x",
    ],
)
def test_what_looks_like_a_secret_is_not_repeated(tmp_path: Path, text: str) -> None:
    faults = faults_of(tmp_path, text + "\n")
    assert faults
    assert "hunter22" not in "\n".join(faults)


def test_aliases_are_read_and_cannot_multiply(tmp_path: Path) -> None:
    shared = f"batch:\n  secondary_assets: &a [{ASSET % ''}]\n  priority_assets: []\n"
    assert faults_of(tmp_path, shared + EMBEDDED) == []
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    faults = faults_of(tmp_path, bomb + "batch: {priority_assets: *a29}\n" + EMBEDDED)
    assert len(faults) == 39
    assert any("batch.priority_assets[8]: expected an asset" in fault for fault in faults)
    assert faults_of(tmp_path, "batch: &b {priority_assets: *b}\n" + EMBEDDED) == [
        "config.yaml:1: batch.priority_assets: expected a list, not a mapping; [] is an empty one"
    ]
    assert len(faults_of(tmp_path, "batch: {priority_assets: &b [*b, *b]}\n" + EMBEDDED)) == 2


def test_the_reader_without_libyaml_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "provider:\n  plan: x\n  mode: x\n  mode: y\nfoo: &a 1\nbar: *a\n" + EMBEDDED
    fast = faults_of(tmp_path, text)
    monkeypatch.setattr(document, "LOADER", yaml.SafeLoader)
    assert faults_of(tmp_path, text) == fast
    assert "tab" in faults_of(tmp_path, "a:\n\tb: 1\n")[0]
    (broken,) = faults_of(tmp_path, "api_key: *hunter22\n")
    assert "hunter22" not in broken


NAMES = sorted({part for key, _ in keys.leaves() for part in key.split(".")} | {"symbol", "password", "x", "<<"})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)


def load_only(folder: Path) -> tuple[Fault, ...]:
    try:
        load(file=folder / "config.yaml", environ={}, cwd=folder)
    except ConfigurationError as error:
        return error.faults
    return ()


@given(tree=st.dictionaries(st.sampled_from(NAMES), JUNK))
def test_junk_in_the_file_is_only_ever_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True))
    for fault in load_only(folder):
        assert str(fault).isprintable() or "\n" not in str(fault)


@given(data=st.binary(max_size=60) | st.text(alphabet="{}[]:-&*!|>'\"#%@` \n\tab1", max_size=60).map(str.encode))
def test_any_bytes_are_only_ever_a_configuration_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "config.yaml").write_bytes(data)
    for fault in load_only(folder):
        assert fault.message
