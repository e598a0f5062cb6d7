"""Series out of the store, laid over the steps: one value a step, or one window a step."""

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from sinks.history.promql.ast import MatrixSelector, Subquery, VectorSelector
from sinks.history.promql.storage import SelectHints, SeriesColumns, is_stale, without_stale
from sinks.history.promql.values import Cells, RangeSeries, Steps, StepSeries, when_present

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_FAR: Final = 2**62  # ms


def moments(run: "Evaluation", node: VectorSelector | Subquery, steps: Steps) -> tuple[list[int], bool]:
    """When the selector is looked at for each step, after `@` and offset; with `@` a single moment, and True."""
    if node.at is None:
        offset = node.offset_ms
        return [time - offset for time in steps.times] if offset else list(steps.times), False
    at = {"start": run.start_ms, "end": run.end_ms}.get(node.at, node.at) if isinstance(node.at, str) else node.at
    assert isinstance(at, int)
    return [at - node.offset_ms], True


def _select(
    run: "Evaluation", node: VectorSelector, times: list[int], before_ms: int, range_ms: int
) -> list[SeriesColumns]:
    run.budget.check()
    function, grouping, by = run.around
    hints = SelectHints(
        step_ms=times[1] - times[0] if len(times) > 1 else 0,
        range_ms=range_ms,
        lookback_ms=run.lookback_ms,
        function=function,
        grouping=grouping,
        by=by,
        is_newest_enough=len(times) == 1 and not range_ms,
        max_samples=run.budget.samples_left,
        check=run.budget.check,
    )
    start = max(times[0] - before_ms + 1, -_FAR)  # `@ 9e15` and its like stay within what a store can compare
    found = run.storage.select(node.matchers, start, min(max(times[-1], -_FAR), _FAR), hints)
    run.budget.read(sum(len(series.t) for series in found))
    run.budget.cells(len(found), len(times))
    return found


def instants(run: "Evaluation", node: VectorSelector, steps: Steps, stamps: bool = False) -> list[StepSeries]:
    """The newest sample not older than the lookback at each step; with `stamps` its time in seconds instead."""
    times, fixed = moments(run, node, steps)
    found = []
    for series in _select(run, node, times, run.lookback_ms, 0):
        run.budget.work(len(times))
        lookback = run.lookback_ms
        if series.resolution_ms > lookback:
            lookback = series.resolution_ms
            run.remarks.warn(f"lookback extended to the {lookback // 1000} s between stored samples", node)
        values = _newest(series, times, lookback, stamps)
        if values is None:
            continue
        if fixed:
            values = values * steps.count
        found.append(StepSeries(series.labels, values, drop_name=stamps))
    return found


def _newest(series: SeriesColumns, times: list[int], lookback_ms: int, stamps: bool) -> Cells | None:
    """The cells of one series, None where all are empty."""
    t, v = series.t, series.v
    out: Cells = []
    some = False
    behind = 0
    for time in times:
        behind = bisect_right(t, time, behind)
        if behind and t[behind - 1] > time - lookback_ms:
            value = v[behind - 1]
            if value == value or not is_stale(value):
                out.append(t[behind - 1] / 1000 if stamps else value)
                some = True
                continue
        out.append(None)
    return out if some else None


def windows(run: "Evaluation", node: MatrixSelector, steps: Steps) -> list[RangeSeries]:
    """Every series with its windows of samples."""
    times, fixed = moments(run, node.vector, steps)
    found = []
    for series in _select(run, node.vector, times, node.range_ms, node.range_ms):
        range_ms = node.range_ms
        if series.resolution_ms and 2 * series.resolution_ms > range_ms:
            range_ms = 2 * series.resolution_ms
            run.remarks.warn(f"range extended to {range_ms // 1000} s, two of the stored samples", node)
        t, v = without_stale(series.t, series.v)
        bounds = _bounds(t, times, range_ms)
        found.append(RangeSeries(series.labels, False, t, v, bounds, times, range_ms, fixed, series.answers))
        run.budget.work(len(times))
    return found


def _bounds(t: "array[int]", times: list[int], range_ms: int) -> list[tuple[int, int]]:
    bounds = []
    low = high = 0
    for time in times:
        low = bisect_right(t, time - range_ms, low)
        high = bisect_right(t, time, max(low, high))
        bounds.append((low, high))
    return bounds


def subquery_windows(run: "Evaluation", node: Subquery, steps: Steps) -> list[RangeSeries]:
    """The inner expression at every multiple of the subquery's step, as series with windows."""
    times, fixed = moments(run, node, steps)
    step = node.step_ms or run.subquery_step_ms
    first = (times[0] - node.range_ms) // step * step + step  # the first multiple after the left, open end
    count = (times[-1] - first) // step + 1
    if count <= 0:
        return []
    run.budget.cells(1, count)
    inner = Steps(range(first, times[-1] + 1, step))
    found = []
    for series in run.vector(node.expr, inner):
        t = array("q", when_present(inner.times, series.values))
        v = array("d", [value for value in series.values if value is not None])
        bounds = _bounds(t, times, node.range_ms)
        found.append(RangeSeries(series.labels, series.drop_name, t, v, bounds, times, node.range_ms, fixed))
        run.budget.work(count)
    return found
