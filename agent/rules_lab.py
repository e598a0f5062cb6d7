"""Where rules are tried out: series in memory, or history with the series of the rules themselves laid over it."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from agent.core.labels import Labels, Matcher, select, value_of
from agent.core.query import DEFAULT_LIMITS, Limits, Result
from sinks.history.promql.engine import SUBQUERY_STEP_MS, Engine
from sinks.history.promql.storage import STALE, SelectHints, SeriesColumns, Storage

_NO_LIMIT_MS = 2**62


class RulesLab:
    """A Lab: querier, recorder and clock in one. Nothing later than `until_ms` is seen.

    `base` has the series that are not of the lab's own making; a series that both have is the lab's.
    """

    def __init__(self, subquery_step_ms: int = SUBQUERY_STEP_MS, base: Storage | None = None) -> None:
        self.until_ms = _NO_LIMIT_MS
        self._base = base
        self._by_name: dict[str, dict[Labels, SeriesColumns]] = {}
        self._live: dict[str, set[Labels]] = {}  # of each source, as of its last record
        self._engine = Engine(self, subquery_step_ms=subquery_step_ms)

    # What rules ask and write.

    def instant(self, expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The value of `expr` at one moment. Raise QueryError."""
        return self._engine.instant(expr, time_ms, limits)

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The values of `expr` at start, start + step, ... up to end. Raise QueryError."""
        return self._engine.range(expr, start_ms, end_ms, step_ms, limits)

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        """Samples of a source; series it had at the last moment and has no longer end."""
        for labels in self._live.get(source, set()) - samples.keys():
            self._put(labels, time_ms, STALE)
        for labels, value in samples.items():
            self._put(labels, time_ms, value)
        self._live[source] = set(samples)

    def load(self, labels: Labels, samples: Iterable[tuple[int, float | None]]) -> None:
        """Samples of one series in order of time; None is a stale marker."""
        for time_ms, value in samples:
            self._put(labels, time_ms, STALE if value is None else value)

    def _put(self, labels: Labels, time_ms: int, value: float) -> None:
        series = self._by_name.setdefault(value_of(labels, "__name__"), {})
        columns = series.get(labels)
        if columns is None:
            columns = series[labels] = SeriesColumns(labels, array("q"), array("d"))
        at = bisect_left(columns.t, time_ms)
        if at == len(columns.t) or columns.t[at] != time_ms:  # the first sample of a moment stays
            columns.t.insert(at, time_ms)
            columns.v.insert(at, value)

    # What the engine asks.

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        """Every series that meets all matchers, with its samples in [start, end] and not after `until_ms`."""
        end_ms = min(end_ms, self.until_ms)
        found = []
        own = set()
        for labels, columns in self._candidates(matchers):
            if select(labels, matchers):
                low, high = bisect_left(columns.t, start_ms), bisect_right(columns.t, end_ms)
                own.add(labels)
                if low < high:
                    found.append(SeriesColumns(labels, columns.t[low:high], columns.v[low:high]))
        if self._base is not None and end_ms >= start_ms:
            found += [one for one in self._base.select(matchers, start_ms, end_ms, hints) if one.labels not in own]
        return found

    def _candidates(self, matchers: Sequence[Matcher]) -> Iterable[tuple[Labels, SeriesColumns]]:
        for matcher in matchers:
            if matcher.name == "__name__" and matcher.op == "=":
                return list(self._by_name.get(matcher.value, {}).items())
        return [pair for series in self._by_name.values() for pair in series.items()]
