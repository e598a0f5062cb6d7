"""The walk over the windows of a range vector, and the functions that see only the values in a window."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable
from itertools import compress, count
from operator import lt, ne
from typing import TYPE_CHECKING, Final, TypeAlias

from sinks.history.promql import numbers
from sinks.history.promql.ast import MATRIX, Call, Expr, value_type
from sinks.history.promql.values import Cells, RangeSeries, Steps, StepSeries, WindowFunction

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

Prepare: TypeAlias = Callable[[RangeSeries], WindowFunction]


def range_argument(call: Call) -> Expr:
    """The argument that is a range vector."""
    return next(arg for arg in call.args if value_type(arg) == MATRIX)


def ranges(run: "Evaluation", call: Call, steps: Steps) -> list[RangeSeries]:
    """The windows of the call's range vector."""
    run.around = (call.func, (), False)
    return run.ranges(range_argument(call), steps)


def walk(
    run: "Evaluation",
    series: list[RangeSeries],
    steps: Steps,
    function: str,
    prepare: Prepare,
    *,
    keeps_name: bool = False,
    varies: bool = False,
) -> list[StepSeries]:
    """Each series through its windows; empty windows give nothing.

    `prepare` sees a series once and returns the function of a window. `function` is the name under which a store may
    answer from aggregates, "" for never. `varies`: the result depends on the step even where the window does not.
    """
    found = []
    for one in series:
        answered = one.answers.windows(function, one.ends, one.range_ms) if one.answers and function else None
        if answered is not None:
            cells: Cells = list(answered)
        else:
            bounds = one.bounds * steps.count if one.fixed and varies else one.bounds
            cells = _windows(run, bounds, prepare(one))
        if one.fixed and len(cells) < steps.count:
            cells *= steps.count
        if cells.count(None) < len(cells):
            found.append(StepSeries(one.labels, cells, one.drop_name or not keeps_name))
    return found


def _windows(run: "Evaluation", bounds: list[tuple[int, int]], function: WindowFunction) -> Cells:
    cells: Cells = []
    work = run.budget.work
    for step, (low, high) in enumerate(bounds):
        if low < high:
            work(high - low)
            cells.append(function(low, high, step))
        else:
            cells.append(None)
    return cells


def _of_values(function: "Callable[[array[float]], float]") -> Prepare:
    def prepare(series: RangeSeries) -> WindowFunction:
        v = series.v
        return lambda low, high, step: function(v[low:high])  # noqa: ARG005

    return prepare


def places(series: RangeSeries, differs: Callable[[float, float], bool]) -> list[int]:
    """Indices of samples that differ so from the one before: differs(sample, before), over all windows."""
    if not series.bounds:
        return []
    low, high = series.bounds[0][0], series.bounds[-1][1]
    v = series.v[low:high]
    return list(compress(count(low + 1), map(differs, v[1:], v)))


def _changes(series: RangeSeries) -> WindowFunction:
    v = series.v
    found = [i for i in places(series, ne) if v[i] == v[i] or v[i - 1] == v[i - 1]]  # NaN to NaN is no change
    return lambda low, high, step: float(bisect_left(found, high) - bisect_left(found, low + 1))  # noqa: ARG005


def _resets(series: RangeSeries) -> WindowFunction:
    found = places(series, lt)
    return lambda low, high, step: float(bisect_left(found, high) - bisect_left(found, low + 1))  # noqa: ARG005


def _median_deviation(values: "array[float]") -> float:
    """Median of the distances to the median; NaN where a value is, which a median alone might pass over."""
    if any(value != value for value in values):
        return numbers.NAN
    middle = numbers.quantile(0.5, values)
    return numbers.quantile(0.5, [abs(value - middle) for value in values])


def _stamp(pick: "Callable[[array[float]], int]") -> Prepare:
    def prepare(series: RangeSeries) -> WindowFunction:
        t, v = series.t, series.v
        return lambda low, high, step: t[low + pick(v[low:high])] / 1000  # noqa: ARG005

    return prepare


def _last_of(best: "Callable[[array[float]], float]") -> "Callable[[array[float]], int]":
    """Index of the last sample that equals the best one; 0 where all are NaN."""

    def pick(values: "array[float]") -> int:
        wanted = best(values)
        return next((i for i in range(len(values) - 1, -1, -1) if values[i] == wanted), 0)

    return pick


def _first(series: RangeSeries) -> WindowFunction:
    v = series.v
    return lambda low, high, step: v[low]  # noqa: ARG005


def _last(series: RangeSeries) -> WindowFunction:
    v = series.v
    return lambda low, high, step: v[high - 1]  # noqa: ARG005


OVER_TIME: Final[dict[str, Prepare]] = {
    "avg_over_time": _of_values(numbers.mean),
    "changes": _changes,
    "count_over_time": lambda series: lambda low, high, step: float(high - low),  # noqa: ARG005
    "first_over_time": _first,
    "last_over_time": _last,
    "mad_over_time": _of_values(_median_deviation),
    "max_over_time": _of_values(numbers.highest),
    "min_over_time": _of_values(numbers.lowest),
    "present_over_time": lambda series: lambda low, high, step: 1.0,  # noqa: ARG005
    "resets": _resets,
    "stddev_over_time": _of_values(lambda values: math.sqrt(numbers.variance(values))),
    "stdvar_over_time": _of_values(numbers.variance),
    "sum_over_time": _of_values(numbers.total),
    "ts_of_first_over_time": _stamp(lambda values: 0),  # noqa: ARG005
    "ts_of_last_over_time": _stamp(lambda values: len(values) - 1),
    "ts_of_max_over_time": _stamp(_last_of(numbers.highest)),
    "ts_of_min_over_time": _stamp(_last_of(numbers.lowest)),
}
_KEEP_NAME: Final = frozenset({"first_over_time", "last_over_time"})


def over_time(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """Any function of the table above."""
    series = ranges(run, call, steps)
    return walk(run, series, steps, call.func, OVER_TIME[call.func], keeps_name=call.func in _KEEP_NAME)


def quantile_over_time(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """quantile_over_time(q, range)."""
    ranks = run.scalar(call.args[0], steps)
    series = ranges(run, call, steps)
    if series:
        for rank in dict.fromkeys(ranks):
            if not 0 <= rank <= 1:
                message = f"quantile value should be between 0 and 1, got {numbers.general(rank)}"
                run.remarks.warn(message, call.args[0])

    def prepare(one: RangeSeries) -> WindowFunction:
        v = one.v
        return lambda low, high, step: numbers.quantile(ranks[step], v[low:high])

    return walk(run, series, steps, "", prepare, varies=True)
