"""Rules, alerts and metadata of a running agent, beside a real Prometheus that scrapes it and has the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers.http_call import call
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.prometheus import Prometheus
from tests.servers.vigilhost import Vigilhost

RULES = """\
groups:
  - name: both
    interval: 1s
    limit: 50
    rules:
      - alert: MemoryThere
        expr: node_memory_MemTotal_bytes{job="node"} / node_memory_MemTotal_bytes > 0.5
        labels: {severity: info, which: "{{ $labels.instance }}"}
        annotations: {summary: "all of it: {{ $value | humanizePercentage }}", plain: "text"}
      - alert: Never
        expr: node_memory_MemTotal_bytes < 0
      - alert: Waiting
        expr: sum by (instance) (node_memory_MemTotal_bytes) * 0 + 1234.5e3 > 0
        for: 1h
        keep_firing_for: 5m
        annotations: {summary: "waits"}
      - record: instance:memory:sum
        expr: sum by (instance) (node_memory_MemTotal_bytes)
        labels: {from: rules}
      - record: plain:one
        expr: vector(1)
      - alert: Broken
        expr: node_cpu_seconds_total + on (instance) node_cpu_seconds_total
"""
SCRAPE = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules/*.yml]
scrape_configs:
- {{job_name: node, static_configs: [{{targets: ['{target}'], labels: {{instance: web1}}}}]}}
"""
CONFIG = """\
hostname: web1
alerting: {{rules: {{interval: 1s, defaults: false, directory: "{rules}"}}}}
"""
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9:]{5})")


@dataclass
class Both:
    agent: Vigilhost
    real: Prometheus

    def ask(self, path: str, **params: Any) -> tuple[Any, Any]:
        """`data` of our answer and of the other's."""
        answers = [call(f"{url}/api/v1/{path}", params=params).json() for url in (self.agent.url, self.real.url)]
        assert [answer["status"] for answer in answers] == ["success", "success"]
        return answers[0]["data"], answers[1]["data"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    need("prometheus")
    directory = tmp_path_factory.mktemp("rules")
    (directory / "both.yml").write_text(RULES)
    with Vigilhost(CONFIG.format(rules=directory)) as agent:
        config = SCRAPE.format(target=agent.url.removeprefix("http://"))
        with Prometheus(config, rules={"both": RULES}) as real:
            asked = Both(agent, real)
            wait_until(lambda: all(_judged(one) for one in asked.ask("rules")), "both to have judged", 60.0)
            yield asked


def _judged(data: Any) -> bool:
    rules = data["groups"][0]["rules"] if data["groups"] else []
    return [(rule["health"], rule.get("state")) for rule in rules] == [
        ("ok", "firing"), ("ok", "inactive"), ("ok", "pending"), ("ok", None), ("ok", None), ("err", "inactive"),
    ]  # fmt: skip


def same(ours: Any, theirs: Any, path: str = "") -> None:
    """The same fields, kinds and texts; moments and durations by their form only."""
    assert type(ours) is type(theirs) or {type(ours), type(theirs)} == {int, float}, path
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key, value in ours.items():
            if key not in {"file", "lastError"}:
                same(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{path}[{at}]")
    elif isinstance(ours, str) and _MOMENT.fullmatch(ours):
        assert _MOMENT.fullmatch(theirs), path
    elif not path.endswith("evaluationTime"):
        assert ours == theirs, path


def test_rules_have_the_fields_and_values_that_prometheus_gives(both: Both) -> None:
    same(*both.ask("rules"))
    same(*both.ask("rules", type="alert"))
    same(*both.ask("rules", type="record"))


def test_alerts_have_the_fields_and_values_that_prometheus_gives(both: Both) -> None:
    ours, theirs = both.ask("alerts")
    for found in (ours, theirs):
        found["alerts"].sort(key=lambda one: one["labels"]["alertname"])
    same(ours, theirs)
    assert len(ours["alerts"]) == 2


def test_metadata_is_that_of_a_scrape(both: Both) -> None:
    ours, theirs = both.ask("metadata")
    names = [name for name in both.real.get("label/__name__/values") if name.startswith("node_")]
    assert len(names) > 100
    for name in names:
        # Scraping OpenMetrics, Prometheus knows a counter by its name without _total only.
        (found,), (expected,) = ours[name], theirs.get(name) or theirs[name.removesuffix("_total")]
        assert found.keys() == expected.keys()
        assert (found["type"], found["help"]) == (expected["type"], expected["help"]), name


def test_series_written_by_rules_are_found_by_both(both: Both) -> None:
    for query in ("instance:memory:sum", "plain:one", 'ALERTS{alertname="MemoryThere"}', "ALERTS_FOR_STATE * 0"):
        found = both.ask("query", query=query)
        labels = [sorted(tuple(sorted(one["metric"].items())) for one in data["result"]) for data in found]
        assert labels[0], query
        if query == "plain:one":
            continue  # what a rule makes without labels has job and instance here, as everything has
        assert labels[0] == labels[1], query
