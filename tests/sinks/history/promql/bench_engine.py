"""What queries cost, the store's part left out. Not collected by default:

pytest tests/sinks/history/promql/bench_engine.py
"""

from collections.abc import Sequence
from typing import Any

import pytest

from agent.core.labels import Matcher
from sinks.history.promql.engine import Engine
from sinks.history.promql.storage import SelectHints, SeriesColumns
from tests.sinks.history.promql.memory_storage import MemoryStorage

DAY_S = 86_400


class Remembering:
    """A store that answers the same question from memory, so that only the engine is measured."""

    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.answers: dict[tuple[Any, ...], list[SeriesColumns]] = {}

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        key = (tuple(matchers), start_ms, end_ms)
        if key not in self.answers:
            self.answers[key] = self.storage.select(matchers, start_ms, end_ms, hints)
        return self.answers[key]


@pytest.fixture(scope="module")
def day() -> Engine:
    storage = MemoryStorage()
    storage.add({"__name__": "bytes_total"}, [(i * 1000, float(i * 37 % 1_000_003)) for i in range(DAY_S)])
    return Engine(Remembering(storage))


@pytest.fixture(scope="module")
def host() -> Engine:
    storage = MemoryStorage()
    for cpu in range(8):
        shared = {"cpu": str(cpu), "job": "node", "instance": "host"}
        storage.add({"__name__": "load", **shared}, [(i * 1000, float(i % 7)) for i in range(600)])
        storage.add({"__name__": "cpu_total", "mode": "idle", **shared}, [(i * 1000, float(i)) for i in range(600)])
    return Engine(Remembering(storage))


RANGES = [
    "rate(bytes_total[5m])",
    "avg_over_time(bytes_total[5m])",
    "max_over_time(bytes_total[5m])",
    "stddev_over_time(bytes_total[5m])",
    "quantile_over_time(0.9, bytes_total[5m])",
    "deriv(bytes_total[5m])",
    "bytes_total",
]
RULES = [
    "load > 4",
    'rate(cpu_total{mode="idle"}[5m]) > 0.5',
    '(1 - avg by (instance) (rate(cpu_total{mode="idle"}[5m]))) * 100 > 90',
    'absent(up{job="node"})',
    "predict_linear(load[5m], 3600) < 0 and load > 1",
    "sum by (job) (load) / on (job) group_left sum by (job) (cpu_total)",
]


@pytest.mark.parametrize("text", RANGES)
def test_a_day_of_seconds_in_500_steps(benchmark: Any, day: Engine, text: str) -> None:
    result = benchmark(day.range, text, 300_000, DAY_S * 1000 - 1, 172_000)
    assert len(result.matrix()[0].values) > 490


@pytest.mark.parametrize("text", RULES)
def test_an_alert_expression(benchmark: Any, host: Engine, text: str) -> None:
    assert benchmark(host.instant, text, 599_000).kind == "vector"
