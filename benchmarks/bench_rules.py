"""What an evaluation of rules costs: `pytest benchmarks/bench_rules.py --benchmark-only`.

Budgets: 1,000 rules over 1,000 series in 2 s; the rules of a host, each 15 s, 0.06 CPU seconds a minute.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agent.core.clock import FakeClock
from agent.core.labels import labels_of
from agent.promql_language import PromQL
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.rule_files import parse_rules
from benchmarks.each import note_each
from sinks.history.history import History
from sinks.history.options import HistoryOptions

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
