"""A Storage of plain columns in memory, for the tests of the engine."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from agent.core.labels import Labels, Matcher, labels_of, select
from sinks.history.promql.storage import SelectHints, SeriesColumns


class MemoryStorage:
    """Series by label set; `add` takes samples in order of time. `asked` holds the hints of every select."""

    def __init__(self) -> None:
        self.series: dict[Labels, SeriesColumns] = {}
        self.asked: list[SelectHints] = []

    def add(self, labels: Mapping[str, str], samples: Iterable[tuple[int, float]]) -> SeriesColumns:
        key = labels_of(labels)
        columns = self.series.setdefault(key, SeriesColumns(key, array("q"), array("d")))
        for time_ms, value in samples:
            columns.t.append(time_ms)
            columns.v.append(value)
        return columns

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, hints: SelectHints
    ) -> list[SeriesColumns]:
        self.asked.append(hints)
        found = []
        for labels, columns in self.series.items():
            if not select(labels, matchers):
                continue
            low = bisect_left(columns.t, start_ms - 2 * columns.resolution_ms)
            high = bisect_right(columns.t, end_ms)
            if low < high or columns.answers:
                t, v = columns.t[low:high], columns.v[low:high]
                found.append(SeriesColumns(labels, t, v, columns.resolution_ms, columns.answers))
        return found
