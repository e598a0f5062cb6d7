"""Float arithmetic as PromQL has it: IEEE results instead of exceptions, compensated sums, NaN rules."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Final

INF: Final = math.inf
NAN: Final = math.nan


def divide(a: float, b: float) -> float:
    """a / b, infinite or NaN where b is 0."""
    try:
        return a / b
    except ZeroDivisionError:
        if a == 0 or a != a:
            return NAN
        return math.copysign(INF, a) * math.copysign(1.0, b)


def modulo(a: float, b: float) -> float:
    """Remainder with the sign of a, NaN where there is none."""
    try:
        return math.fmod(a, b)
    except ValueError:
        return NAN


def power(a: float, b: float) -> float:
    """a to the b; infinite on overflow and for 0 to a negative power, NaN for a root of a negative number."""
    try:
        return math.pow(a, b)
    except OverflowError:
        return -INF if a < 0 and math.fmod(b, 2) != 0 else INF
    except ValueError:
        if a == 0:
            return math.copysign(INF, a) if abs(math.fmod(b, 2)) == 1 else INF
        return NAN


ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": divide,
    "%": modulo,
    "^": power,
    "atan2": math.atan2,
}
COMPARISON: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


# Below this share of n * max|x| a sum has cancelled so far that the exact result and Neumaier's differ visibly
_CANCELLED: Final = 1e-20


def total(values: Sequence[float]) -> float:
    """Sum as Neumaier's compensated summation gives it; in C and exact wherever the two agree to 1e-9."""
    try:
        exact = math.fsum(values)
    except (OverflowError, ValueError):
        return sum(values)  # an overflow, or infinities of both signs: plain addition gives the infinity or NaN
    bound = _CANCELLED * len(values) * max(max(values, default=0.0), -min(values, default=0.0))
    return _compensated(values) if -bound < exact < bound else exact


def _compensated(values: Sequence[float]) -> float:
    """Neumaier's sum of finite values whose sum is far from overflow."""
    result = lost = 0.0
    for value in values:
        new = result + value
        lost += (result - new) + value if abs(result) >= abs(value) else (value - new) + result
        result = new
    return result + lost


def mean(values: Sequence[float]) -> float:
    """Average of at least one value; finite where the average is, even if the sum is not."""
    count = len(values)
    result = total(values) / count
    if math.isinf(result) and all(map(math.isfinite, values)):
        return math.fsum([value / count for value in values])
    return result


def variance(values: Sequence[float]) -> float:
    """Population variance of at least one value."""
    middle = mean(values)
    try:
        spread = math.fsum([(value - middle) * (value - middle) for value in values]) / len(values)
    except OverflowError:
        return INF
    if 0 < spread < 1e-30 * middle * middle and min(values) == max(values):
        return 0.0  # the mean of equal values may miss them by a rounding
    return spread


def highest(values: Sequence[float]) -> float:
    """The greatest, NaN only where there is nothing else."""
    found = max(values)
    if found != found:  # max keeps a NaN only if it came first
        return max((value for value in values if value == value), default=NAN)
    return found


def lowest(values: Sequence[float]) -> float:
    """The least, NaN only where there is nothing else."""
    found = min(values)
    if found != found:
        return min((value for value in values if value == value), default=NAN)
    return found


def _nan_first(value: float) -> tuple[bool, float]:
    return (True, value) if value == value else (False, 0.0)


def quantile(q: float, values: Sequence[float]) -> float:
    """The q-quantile by linear interpolation, NaN sorting lowest; infinite where q is outside 0 to 1."""
    if not values or q != q:
        return NAN
    if q < 0:
        return -INF
    if q > 1:
        return INF
    ordered = sorted(values)
    if any(value != value for value in ordered):
        ordered.sort(key=_nan_first)
    rank = q * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(len(ordered) - 1, below + 1)
    weight = rank - below
    return ordered[below] * (1 - weight) + ordered[above] * weight


def plain(value: float) -> str:
    """Shortest text of a float without exponent: 1, 0.1, 100000000000000000000, +Inf, NaN."""
    if value != value:
        return "NaN"
    if value in {INF, -INF}:
        return "+Inf" if value > 0 else "-Inf"
    from decimal import Decimal  # 0.4 MB that few queries need

    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def scientific(value: float) -> str:
    """Shortest text of a finite float with an exponent: 1.5e+06, 1e-07."""
    forms = (f"{value:.{digits}e}" for digits in range(17))
    return next(text for text in forms if float(text) == value)


def general(value: float) -> str:
    """Text of a float in a message or a query: like `plain`, from a million on with an exponent, as Go's %v has it."""
    if value != value or value in {INF, -INF} or value == 0 or 1e-4 <= abs(value) < 1e6:
        return plain(value)
    return scientific(value)
