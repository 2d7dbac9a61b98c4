"""Prometheus's rules and Grafana's dashboard, held against what `metrics` writes, and the page that tells of alerts."""

from __future__ import annotations

import ast
import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from assetbatch.database import streams
from assetbatch.database.streams import Report
from assetbatch.markets import TRAITS
from assetbatch.report import alerts, job_alerts, stream_alerts
from assetbatch.schedule import JOBS
from tests.conftest import ran

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "scripts" / "monitoring"
RULES = FOLDER / "prometheus-rules.yml"
TESTS = sorted(FOLDER.glob("*-test.yml"))
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PAGE = (PROJECT / "docs" / "operate" / "alerts.md").read_text()
# Of the node exporter's own; which labels they have was looked up in what it serves.
COLLECTOR: dict[str, dict[str, set[str]]] = {
    "node_textfile_mtime_seconds": {"file": {"/var/lib/node_exporter/assetbatch.prom"}},
    "node_textfile_scrape_error": {"instance": set()},
}
# Given by Prometheus to whatever it scrapes: the label `job` of ours becomes `exported_job`.
SCRAPED = {"instance", "job", "exported_job"}
# Parts of a metric that are different with each alert: as the page calls them, and some that there are.
VARIABLE = {
    "job": ("JOB", list(JOBS)),
    "job.name": ("JOB", list(JOBS)),
    "market": ("MARKET", [one.value for one in TRAITS]),
    "one.asset.symbol": ("SYMBOL", ["XAUUSD", "I:SPX", "BRK.A"]),
}
SELECTOR = re.compile(r"\b((?:assetbatch|node)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")


@promtool
def test_promtool_finds_the_rules_right_and_each_fires_on_its_trouble_alone() -> None:
    checked = ran(["promtool", "check", "rules", RULES])
    tested = ran(["promtool", "test", "rules", *TESTS], timeout=300)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_rule_is_tested_to_fire_and_to_be_silent() -> None:
    checks = [
        check
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for check in test["alert_rule_test"]
    ]
    for fires in (True, False):
        tested = {check["alertname"] for check in checks if bool(check["exp_alerts"]) is fires}
        assert tested == {rule["alert"] for rule in rules()}


def test_each_rule_says_what_it_is_how_bad_and_what_mends_it() -> None:
    anchors = {anchor(heading) for heading in re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)}
    for rule in rules():
        page, _, place = rule["annotations"]["runbook"].partition("#")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description", "runbook"} == set(rule["annotations"])
        assert (page, place in anchors or rule["alert"] == "AssetbatchOther") == ("docs/operate/alerts.md", True)
        assert f"`{rule['alert']}`" in PAGE, rule["alert"]


def test_whatever_rules_and_dashboard_name_is_what_metrics_writes(commands: Commands, connection: Connection) -> None:
    written = what_is_written(commands, connection)
    known = {label: values for labels in written.values() for label, values in labels.items()}

    named = [(rule["alert"], rule["expr"]) for rule in rules()]
    named += [(title, target["expr"]) for title, target in targets()]
    for where, expression in named:
        for metric, matchers in SELECTOR.findall(expression):
            assert metric in written, (where, metric)
            for label, operator, value in MATCHER.findall(matchers):
                values = written[metric].get(label)
                assert values is not None, (where, metric, label)
                if label not in {"installation", "metric"}:
                    matches = [one for one in values if re.fullmatch(value, one)] if "~" in operator else [value]
                    assert matches, (where, metric, label, value)
                    assert values.issuperset(matches), (where, metric, label, value)
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert {one.strip() for one in grouped.split(",")} <= known.keys() | SCRAPED | {"which"}, where
    for title, target in targets():
        shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert set(shown) <= set(re.findall(r"\w+", target["expr"])), title


def test_the_figures_of_a_check_are_those_that_the_page_lists(commands: Commands) -> None:
    page = (PROJECT / "docs" / "operate" / "monitoring.md").read_text()
    table = page.partition("| label | is |")[2].partition("\n\n")[0]
    assert commands("init").returncode == 0

    written = re.findall(r"'(\w+)'=", commands("status", "--check").stdout)

    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert sorted(written) == sorted(label for row in rows for label in re.findall(r"`(\w+)`", row))


def test_the_dashboard_is_of_no_server_of_its_own_and_each_panel_tells_what_it_shows() -> None:
    assert {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]} == {
        "datasource": "datasource",
        "installation": "query",
    }
    uids = {one["uid"] for one in found(DASHBOARD, "datasource") if isinstance(one, dict)}
    assert uids == {"${datasource}", "-- Grafana --"}
    assert "id" not in DASHBOARD
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
    for one in panels:
        for other in panels:
            assert one is other or not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    legends = {target["legendFormat"] for _, target in targets()}
    words = {one["options"] for one in found(DASHBOARD, "matcher")}
    assert words <= legends | {"ok", "partial", "failed", "level"}


def test_every_alert_has_an_entry_on_its_page_and_a_rule_and_no_entry_is_without_an_alert() -> None:
    metrics = {name for name, _ in own_metrics()}

    assert set(re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)) == metrics
    assert len(metrics) > 30
    of_status = [rule for rule in rules() if "assetbatch_alerts{" in rule["expr"]]
    for _, some in own_metrics():
        for metric, level in product(some, ("critical", "warning")):
            told = [rule for rule in of_status if tells(rule["expr"], metric=metric, level=level)]
            assert [rule["labels"]["severity"] for rule in told] == [level], (metric, level)
            assert told[0]["alert"] != "AssetbatchOther", metric


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def found(document: Any, key: str) -> Iterator[Any]:
    """Yield all values of a key, however deep."""
    if isinstance(document, dict):
        yield from [document[key]] if key in document else []
    for one in document.values() if isinstance(document, dict) else document if isinstance(document, list) else []:
        yield from found(one, key)


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in ("xw", "yh"))


def anchor(heading: str) -> str:
    """Return what a heading is linked by: as its words are, without what is no word."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def what_is_written(commands: Commands, connection: Connection) -> dict[str, dict[str, set[str]]]:
    """Return the labels of each metric, and the values of each label, where there is something of everything."""
    (commands.folder / "config.yaml").write_text("bars: {enabled: true, backfill_days: 1}\n")
    for command in ("init", "run-priority", "enqueue-secondary"):
        assert commands(*command.split()).returncode == 0, command
    connection.execute("update assetbatch.queue set state = 'dead', died_at = clock_timestamp()")
    live = Report("crypto", "live", is_alive=True, asked=1, confirmed=1, connects=1, lag_p50_ms=10, lag_p95_ms=20)
    connection.ask(streams.tell(live, run_id=1, alive_seconds=20))
    written = {name: dict(labels) for name, labels in COLLECTOR.items()}
    for family in text_string_to_metric_families(commands("metrics").stdout):
        labels = written.setdefault(family.name, {})
        for sample in family.samples:
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    # Nothing critical is wrong here.
    written["assetbatch_alerts"]["level"] |= written["assetbatch_alerts_by_level"]["level"]
    return written


def own_metrics() -> Iterator[tuple[str, list[str]]]:
    """Yield the metric of each alert that is made: as the page calls it, and as it may be."""
    for module in (alerts, job_alerts, stream_alerts):
        assert module.__file__ is not None
        for function in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(function, ast.FunctionDef):
                yield from _metrics_in(function)


def _metrics_in(function: ast.FunctionDef) -> Iterator[tuple[str, list[str]]]:
    assigned: list[ast.expr] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = (
                    zip(target.elts, node.value.elts, strict=True)
                    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                    else [(target, node.value)]
                )
                assigned += [value for name, value in pairs if isinstance(name, ast.Name) and name.id == "metric"]
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Alert":
            metric = node.args[1]
            for expression in assigned if isinstance(metric, ast.Name) else [metric]:
                yield _named(expression)


def _named(expression: ast.expr) -> tuple[str, list[str]]:
    if isinstance(expression, ast.Constant):
        name = ast.literal_eval(expression)
        return name, [name]
    assert isinstance(expression, ast.JoinedStr), ast.unparse(expression)
    beginning, variable = expression.values
    assert isinstance(beginning, ast.Constant)
    assert isinstance(variable, ast.FormattedValue)
    word, some = VARIABLE[ast.unparse(variable.value)]
    area = ast.literal_eval(beginning)
    return area + word, [area + one for one in some]


def tells(expression: str, **labels: str) -> bool:
    """Return whether the matchers of a rule take an alert of these labels."""
    matchers = [matcher for _, inside in SELECTOR.findall(expression) for matcher in MATCHER.findall(inside)]
    return all((re.fullmatch(value, labels[name]) is None) is (operator == "!~") for name, operator, value in matchers)
