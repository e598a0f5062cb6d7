"""Statistics of series over a window, and how they compare with yesterday and a week ago."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, Final

from agent.core.labels import METRIC_NAME, Labels, Matcher, value_of, with_label
from agent.core.query import Limits
from agent.http.asked import written
from agent.http.faces import HistoryFace
from agent.http.refusals import Refusal

MOST_SERIES: Final = 200
_DAY_MS: Final = 86_400_000

# Each statistic as PromQL, so that a long window is answered from the tiers; `{}` stands for the range selector.
STATISTICS: Final = {
    "count": "count_over_time({})",
    "min": "min_over_time({})",
    "max": "max_over_time({})",
    "avg": "avg_over_time({})",
    "p50": "quantile_over_time(0.5, {})",
    "p95": "quantile_over_time(0.95, {})",
    "p99": "quantile_over_time(0.99, {})",
}
COMPARED: Final = {"yesterday": _DAY_MS, "last_week": 7 * _DAY_MS}

Facts = dict[str, float]


def summaries(
    history: HistoryFace,
    selectors: Sequence[tuple[Matcher, ...]],
    window_ms: tuple[int, int],
    limits: Callable[[], Limits],
) -> tuple[list[tuple[Labels, dict[str, Any]]], tuple[str, ...]]:
    """Statistics by series, ordered, and warnings; `limits` gives those of the next query. Raise QueryError."""
    start_ms, end_ms = window_ms
    series = sorted({one for matchers in selectors for one in history.series(matchers, start_ms, end_ms)})
    if len(series) > MOST_SERIES:
        raise Refusal("bad_data", f"{len(series)} series; ask for at most {MOST_SERIES} at a time")
    # Functions drop the metric name, so each name is asked for on its own and put back.
    asked = {
        (value_of(labels, METRIC_NAME), matchers)
        for matchers in selectors
        for labels in series
        if all(matcher.matches(value_of(labels, matcher.name)) for matcher in matchers)
    }
    asking = _Asking(history, end_ms - start_ms, limits)
    now = asking.statistics(asked, end_ms)
    before = {word: asking.statistics(asked, end_ms - ago) for word, ago in COMPARED.items()}
    found: list[tuple[Labels, dict[str, Any]]] = []
    for labels in sorted(now):
        compared = {word: _compared(now[labels], then.get(labels)) for word, then in before.items()}
        found.append((labels, {**now[labels], "compared": compared}))
    return found, tuple(asking.warnings)


class _Asking:
    """Statistics of windows of one length."""

    def __init__(self, history: HistoryFace, range_ms: int, limits: Callable[[], Limits]) -> None:
        self._querier = history.querier()
        self._range_ms = range_ms
        self._limits = limits
        self.warnings: dict[str, None] = {}

    def statistics(self, asked: set[tuple[str, tuple[Matcher, ...]]], end_ms: int) -> dict[Labels, Facts]:
        """Every statistic by series, for the window that ends at `end_ms`."""
        found: dict[Labels, Facts] = {}
        for name, matchers in sorted(asked, key=str):
            ranged = f"{written((*matchers, Matcher(METRIC_NAME, '=', name)))}[{self._range_ms}ms]"
            for word, form in STATISTICS.items():
                result = self._querier.instant(form.format(ranged), end_ms, self._limits())
                self.warnings.update(dict.fromkeys(result.warnings))
                for sample in result.vector():
                    found.setdefault(with_label(sample.labels, METRIC_NAME, name), {})[word] = sample.value
        return found


def _compared(now: Facts, then: Facts | None) -> dict[str, Any] | None:
    """The window of then, and by how many percent its average has changed since; None where there was nothing."""
    if then is None:
        return None
    change = None
    if isfinite(then["avg"]) and then["avg"] != 0 and isfinite(now["avg"]):
        change = 100 * (now["avg"] - then["avg"]) / abs(then["avg"])
    return {**then, "avg_change_percent": change}
