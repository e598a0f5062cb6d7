"""What flows between the steps of an evaluation: the times, series over those times, and series with windows."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agent.core.labels import Labels, without_name
from agent.core.query import ExecutionError
from sinks.history.promql.storage import WindowAnswers

Cells: TypeAlias = list[float | None]  # one per step, None where the series has no value
WindowFunction: TypeAlias = Callable[[int, int, int], float | None]  # first index, last index + 1, number of the step

SAME_LABELSET = "vector cannot contain metrics with the same labelset"


@dataclass(slots=True)
class Steps:
    """The moments an expression is evaluated at: one for an instant query."""

    times: Sequence[int]

    @property
    def count(self) -> int:
        return len(self.times)


@dataclass(slots=True)
class StepSeries:
    """One series with a cell for each step. `drop_name`: its metric name goes when the query ends, not before."""

    labels: Labels
    values: Cells
    drop_name: bool = False


@dataclass(slots=True)
class RangeSeries:
    """One series with a window for each step: samples lo <= index < hi, in (end - range, end], stale ones left out.

    `fixed`: every step has the same window (`@`), so only the first is kept in `bounds` and `ends`.
    """

    labels: Labels
    drop_name: bool
    t: "array[int]"
    v: "array[float]"
    bounds: list[tuple[int, int]]
    ends: list[int]
    range_ms: int
    fixed: bool
    answers: WindowAnswers | None = None


def unique(series: list[StepSeries]) -> list[StepSeries]:
    """Series of equal labels joined into one where no step has two of them. Raise ExecutionError where one has."""
    if len({one.labels for one in series}) == len(series):
        return series
    joined: dict[Labels, StepSeries] = {}
    for one in series:
        known = joined.get(one.labels)
        if known is None:
            joined[one.labels] = StepSeries(one.labels, list(one.values), one.drop_name)
        else:
            merge(known.values, one.values, SAME_LABELSET)
            known.drop_name = known.drop_name or one.drop_name
    return list(joined.values())


def when_present(times: Sequence[int], cells: Cells) -> list[int]:
    """The moments at which there is a value."""
    # Without a tuple for each cell: half a million of them wake the cyclic collector, which stops the event loop too.
    return [at for at, value in zip(times, cells, strict=True) if value is not None]


def merge(into: Cells, values: Cells, message: str) -> None:
    """Fill the gaps of `into` from `values`. Raise ExecutionError(message) where both have a value."""
    for step, value in enumerate(values):
        if value is not None:
            if into[step] is not None:
                raise ExecutionError(message)
            into[step] = value


def named_out(series: Iterable[StepSeries]) -> list[StepSeries]:
    """The final labels: without the metric name where it was to be dropped. Raise ExecutionError on duplicates."""
    return unique([StepSeries(without_name(s.labels), s.values) if s.drop_name else s for s in series])
