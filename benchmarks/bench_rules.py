"""What an evaluation of rules costs: `pytest benchmarks/bench_rules.py --benchmark-only`.

Budgets: 1,000 rules over 1,000 series in 2 s; the rules of a host, each 15 s, 0.06 CPU seconds a minute.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agent.core.clock import NS, FakeClock
from agent.core.labels import labels_of
from agent.promql_language import PromQL
from agent.rule_sets import load_rules
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.options import RulesOptions
from alerting.rule_files import parse_rules
from benchmarks.each import note_each
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from tests.collectors.every import FIRST_SLOT_S, run_twice
from tests.collectors.hosts import HostTree

T0 = 1_700_000_000
HISTORY_S = 600
EXPRESSIONS = (
    'metric{number}{{n="{n}"}} > 1e9',
    "rate(metric{number}[2m]) > 1e9",
    "sum by (n) (metric{number}) > 1e9",
    'avg_over_time(metric{number}{{n=~"[0-4]"}}[1m]) > 1e9',
    "metric{number} > {threshold}",
)


def rules(count: int, threshold: str) -> str:
    """Rules of five kinds in ten groups; one in five yields ten alerts when `threshold` is low."""
    lines = ["groups:"]
    for group in range(10):
        lines += [f"- name: g{group}", "  rules:"]
        for at in range(group, count, 10):
            expr = EXPRESSIONS[at // 10 % 5].format(number=at % 100, n=at % 10, threshold=threshold)
            lines += [f"  - alert: A{at}", f"    expr: {expr}", "    for: 5m", "    labels: {severity: warning}",
                      "    annotations: {summary: '{{ $labels.n }} is at {{ $value | humanize }}'}"]  # fmt: skip
    return "\n".join(lines)


def default_rules_on_a_host(directory: Path) -> Engine:
    """The rules that come with the agent, over five minutes of what the collectors see of the tests' smaller host."""
    history = History(HistoryOptions(), str(directory / "history"), FakeClock(FIRST_SLOT_S), "host")
    ticks = [tick for one in run_twice(HostTree("small", directory)) for tick in one.ticks]
    for at in range(0, 300, 15):
        for tick in ticks:
            history.append(replace(tick, time_ns=tick.time_ns + at * NS))
    found = Engine(history.querier(), history, NothingKnown())
    found.load(load_rules(RulesOptions(), "/nowhere").groups, FIRST_SLOT_S)
    return found


def test_the_default_rules(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """All of them once, which happens four times a minute; `cpu_s_per_min` is the processor's time of that."""
    judged = default_rules_on_a_host(tmp_path)
    moments = iter(range(FIRST_SLOT_S + 300, FIRST_SLOT_S + 600))
    spent: list[float] = []

    def evaluate() -> None:
        began, at = time.thread_time(), float(next(moments))
        for key in judged.groups:
            judged.evaluate(key, at)
        spent.append(time.thread_time() - began)

    benchmark.pedantic(evaluate, rounds=40, warmup_rounds=2)  # type: ignore[no-untyped-call]
    benchmark.extra_info["cpu_s_per_min"] = 4 * statistics.median(spent)
    note_each(benchmark, "rule", sum(len(group.rules) for group in judged.groups.values()))
    assert judged.failures == 0


def engine(directory: Path, series: int, text: str) -> Engine:
    """Over ten minutes of one sample a second, in ten sources."""
    history = History(HistoryOptions(), str(directory), FakeClock(T0), "host")
    names = [
        labels_of({"__name__": f"metric{at // 10}", "n": str(at % 10), "job": "node", "instance": "host"})
        for at in range(series)
    ]
    for second in range(-HISTORY_S, 1):
        for source in range(10):
            own = names[source * series // 10 : (source + 1) * series // 10]
            samples = {labels: float(second % 7 + at) for at, labels in enumerate(own)}
            history.record(str(source), (T0 + second) * 1000, samples)
    found = Engine(history.querier(), history, NothingKnown())
    read = parse_rules(text, "f", PromQL())
    assert read.errors == []
    found.load(read.groups, T0)
    return found


@pytest.mark.parametrize(
    ("count", "series", "threshold"), [(1000, 1000, "0"), (1000, 1000, "1e9"), (60, 500, "1e9")],
    ids=["1000 rules with 2000 alerts", "1000 quiet rules", "60 quiet rules"],
)  # fmt: skip
def test_an_evaluation(benchmark: BenchmarkFixture, tmp_path: Path, count: int, series: int, threshold: str) -> None:
    """All groups once. `cpu_s` is the processor's time of the last one, which a busy machine does not change."""
    judged = engine(tmp_path, series, rules(count, threshold))
    moments = iter(range(T0, T0 + 200))
    spent = 0.0

    def evaluate() -> None:
        nonlocal spent
        began, at = time.thread_time(), float(next(moments))
        for key in judged.groups:
            judged.evaluate(key, at)
        spent = time.thread_time() - began

    benchmark.pedantic(evaluate, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["cpu_s"] = spent
    note_each(benchmark, "rule", count)
    assert judged.failures == 0
