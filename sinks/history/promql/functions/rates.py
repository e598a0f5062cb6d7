"""Functions of values and their times: rates of counters, slopes, smoothing."""

import math
from bisect import bisect_left
from operator import lt, mul
from typing import TYPE_CHECKING, Final

from agent.core.labels import METRIC_NAME, quote, value_of
from agent.core.query import ExecutionError
from sinks.history.promql.ast import Call
from sinks.history.promql.functions.over_time import Prepare, places, range_argument, ranges, walk
from sinks.history.promql.numbers import NAN, divide
from sinks.history.promql.values import RangeSeries, Steps, StepSeries, WindowFunction

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_COUNTER_ENDINGS: Final = ("_total", "_sum", "_count", "_bucket")
_BEYOND: Final = 1.1  # a gap to the window's edge up to this many sample distances is bridged whole, else half a one


def _increase(is_counter: bool, per_second: bool) -> Prepare:
    """The change over the window, extrapolated to its edges as far as the samples' distance allows."""

    def prepare(series: RangeSeries) -> WindowFunction:
        t, v, ends, range_ms = series.t, series.v, series.ends, series.range_ms
        resets = places(series, lt) if is_counter else []
        range_s = range_ms / 1000

        def of(low: int, high: int, step: int) -> float | None:
            if high - low < 2:
                return None
            first = v[low]
            change = v[high - 1] - first
            if resets:
                for index in resets[bisect_left(resets, low + 1) : bisect_left(resets, high)]:
                    change += v[index - 1]
            sampled = (t[high - 1] - t[low]) / 1000
            distance = sampled / (high - low - 1)
            to_start = (t[low] - ends[step] + range_ms) / 1000
            to_end = (ends[step] - t[high - 1]) / 1000
            if to_start >= distance * _BEYOND:
                to_start = distance / 2
            if is_counter and change > 0 and first >= 0:  # a counter was 0 no later than the line through it says
                to_start = min(to_start, sampled * (first / change))
            if to_end >= distance * _BEYOND:
                to_end = distance / 2
            factor = (sampled + to_start + to_end) / sampled
            return change * (factor / range_s if per_second else factor)

        return of

    return prepare


def _instant(is_rate: bool) -> Prepare:
    """The change between the last two samples, per second for a counter."""

    def prepare(series: RangeSeries) -> WindowFunction:
        t, v = series.t, series.v

        def of(low: int, high: int, step: int) -> float | None:  # noqa: ARG001
            if high - low < 2:
                return None
            last, before = v[high - 1], v[high - 2]
            if not is_rate:
                return last - before
            change = last if last < before else last - before
            return change / ((t[high - 1] - t[high - 2]) / 1000)

        return of

    return prepare


RATES: Final[dict[str, Prepare]] = {
    "rate": _increase(is_counter=True, per_second=True),
    "increase": _increase(is_counter=True, per_second=False),
    "delta": _increase(is_counter=False, per_second=False),
    "irate": _instant(is_rate=True),
    "idelta": _instant(is_rate=False),
}


def rates(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """Any function of the table above."""
    found = walk(run, ranges(run, call, steps), steps, call.func, RATES[call.func])
    if call.func in {"rate", "increase"}:
        for name in {value_of(one.labels, METRIC_NAME): None for one in found}:
            if name and not name.endswith(_COUNTER_ENDINGS):
                message = (
                    f"metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {quote(name)}"
                )
                run.remarks.inform(message, range_argument(call))
    return found


def _line(series: RangeSeries, low: int, high: int, at_ms: int) -> tuple[float, float]:
    """Slope per second and value at `at_ms` of the least-squares line through the window."""
    values = series.v[low:high]
    first = values[0]
    if values.count(first) == len(values):
        return (NAN, NAN) if math.isinf(first) else (0.0, first)
    seconds = [(time - at_ms) / 1000 for time in series.t[low:high]]
    n = high - low
    try:
        sum_x, sum_y = math.fsum(seconds), math.fsum(values)
        covariance = math.fsum(map(mul, seconds, values)) - sum_x * sum_y / n
        spread = math.fsum(map(mul, seconds, seconds)) - sum_x * sum_x / n
    except (OverflowError, ValueError):
        return NAN, NAN
    slope = divide(covariance, spread)
    return slope, sum_y / n - slope * sum_x / n


def deriv(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """deriv(range): slope per second."""

    def prepare(series: RangeSeries) -> WindowFunction:
        t = series.t
        return lambda low, high, step: _line(series, low, high, t[low])[0] if high - low > 1 else None  # noqa: ARG005

    return walk(run, ranges(run, call, steps), steps, "deriv", prepare)


def predict_linear(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """predict_linear(range, seconds): the line's value that long after the time of evaluation."""
    ahead = run.scalar(call.args[1], steps)

    def prepare(series: RangeSeries) -> WindowFunction:
        def of(low: int, high: int, step: int) -> float | None:
            if high - low < 2:
                return None
            slope, now = _line(series, low, high, steps.times[step])
            return slope * ahead[step] + now

        return of

    return walk(run, ranges(run, call, steps), steps, "", prepare, varies=True)


def _factors(run: "Evaluation", call: Call, steps: Steps, index: int, what: str) -> list[float]:
    values = run.scalar(call.args[index], steps)
    for value in values:
        if not 0 < value < 1:
            raise ExecutionError(f"invalid {what} factor. Expected: 0 < {what[0]}f < 1, got: {value:f}")
    return values


def double_exponential_smoothing(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """double_exponential_smoothing(range, sf, tf): Holt's linear trend. Raise ExecutionError for other factors."""
    smoothing = _factors(run, call, steps, 1, "smoothing")
    trending = _factors(run, call, steps, 2, "trend")

    def prepare(series: RangeSeries) -> WindowFunction:
        v = series.v

        def of(low: int, high: int, step: int) -> float | None:
            if high - low < 2:
                return None
            sf, tf = smoothing[step], trending[step]
            values = v[low:high]
            level, trend = values[0], values[1] - values[0]
            before = level
            for index in range(1, len(values)):
                if index > 1:
                    trend = tf * (level - before) + (1 - tf) * trend
                before, level = level, sf * values[index] + (1 - sf) * (level + trend)
            return level

        return of

    return walk(run, ranges(run, call, steps), steps, "", prepare, varies=True)
