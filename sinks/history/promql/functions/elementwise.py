"""Functions of one number at a time: arithmetic, trigonometry, rounding, clamping."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sinks.history.promql.ast import Call
from sinks.history.promql.numbers import INF, NAN, divide
from sinks.history.promql.values import Cells, Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

Number = Callable[[float], float]


def _total(function: Number, overflow: Number) -> Number:
    """The function with NaN outside its domain and `overflow(x)` where the result has no float."""

    def of(x: float) -> float:
        try:
            return function(x)
        except ValueError:
            return NAN
        except OverflowError:
            return overflow(x)

    return of


def _infinite(x: float) -> float:  # noqa: ARG001
    return INF


def _signed_infinite(x: float) -> float:
    return math.copysign(INF, x)


def _whole(function: Callable[[float], int]) -> Number:
    return lambda x: float(function(x)) if math.isfinite(x) else x


def _logarithm(function: Number) -> Number:
    return lambda x: function(x) if x > 0 else -INF if x == 0 else NAN


def _atanh(x: float) -> float:
    if abs(x) == 1:
        return math.copysign(INF, x)
    return math.atanh(x) if abs(x) < 1 else NAN


def _sign(x: float) -> float:
    return 1.0 if x > 0 else -1.0 if x < 0 else x


ELEMENTWISE: Final[dict[str, Number]] = {
    "abs": abs,
    "acos": _total(math.acos, _infinite),
    "acosh": _total(math.acosh, _infinite),
    "asin": _total(math.asin, _infinite),
    "asinh": math.asinh,
    "atan": math.atan,
    "atanh": _atanh,
    "ceil": _whole(math.ceil),
    "cos": _total(math.cos, _infinite),
    "cosh": _total(math.cosh, _infinite),
    "deg": math.degrees,
    "exp": _total(math.exp, _infinite),
    "floor": _whole(math.floor),
    "ln": _logarithm(math.log),
    "log10": _logarithm(math.log10),
    "log2": _logarithm(math.log2),
    "rad": math.radians,
    "sgn": _sign,
    "sin": _total(math.sin, _infinite),
    "sinh": _total(math.sinh, _signed_infinite),
    "sqrt": _total(math.sqrt, _infinite),
    "tan": _total(math.tan, _infinite),
    "tanh": math.tanh,
}


def mapped(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """Any function of the table above."""
    function = ELEMENTWISE[call.func]
    return [
        StepSeries(s.labels, [None if x is None else function(x) for x in s.values], True)
        for s in run.vector(call.args[0], steps)
    ]


def rounded(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """round(v, to): to the nearest multiple, halves up."""
    units = run.scalar(call.args[1], steps) if len(call.args) > 1 else [1.0] * steps.count
    # A multiple like 0.1 has no exact float, its inverse often does
    inverses = [divide(1.0, unit) for unit in units]

    def nearest(x: float, inverse: float) -> float:
        scaled = x * inverse + 0.5
        return divide(math.floor(scaled) if math.isfinite(scaled) else scaled, inverse)

    found = []
    for s in run.vector(call.args[0], steps):
        cells: Cells = [None if x is None else nearest(x, i) for x, i in zip(s.values, inverses, strict=True)]
        found.append(StepSeries(s.labels, cells, True))
    return found


def _clamped(run: "Evaluation", call: Call, steps: Steps, low: list[float], high: list[float]) -> list[StepSeries]:
    def clamp(x: float | None, least: float, most: float) -> float | None:
        if x is None or most < least:
            return None
        if x != x or least != least or most != most:
            return NAN
        return max(least, min(most, x))

    found = []
    for s in run.vector(call.args[0], steps):
        cells = [clamp(x, least, most) for x, least, most in zip(s.values, low, high, strict=True)]
        if cells.count(None) < steps.count:
            found.append(StepSeries(s.labels, cells, True))
    return found


def clamp(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """clamp(v, min, max): nothing where min is above max."""
    return _clamped(run, call, steps, run.scalar(call.args[1], steps), run.scalar(call.args[2], steps))


def clamp_min(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """clamp_min(v, min)."""
    return _clamped(run, call, steps, run.scalar(call.args[1], steps), [INF] * steps.count)


def clamp_max(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """clamp_max(v, max)."""
    return _clamped(run, call, steps, [-INF] * steps.count, run.scalar(call.args[1], steps))
