"""Functions of the calendar, in UTC, of Unix times in seconds; without argument, of the time of evaluation."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.core.labels import NO_LABELS
from sinks.history.promql.ast import Call
from sinks.history.promql.numbers import NAN
from sinks.history.promql.values import Cells, Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_DAY: Final = 86_400
_DAYS_OF_MONTH: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def civil(days: int) -> tuple[int, int, int]:
    """Year, month, day of the proleptic Gregorian calendar, from days since 1970; any year, unlike datetime's."""
    era, day_of_era = divmod(days + 719_468, 146_097)  # an era is 400 years, counted from 1 March of year 0
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def _days_in_month(seconds: int) -> int:
    year, month, _ = civil(seconds // _DAY)
    return 29 if month == 2 and _is_leap(year) else _DAYS_OF_MONTH[month - 1]


def _day_of_year(seconds: int) -> int:
    year, month, day = civil(seconds // _DAY)
    return sum(_DAYS_OF_MONTH[: month - 1]) + day + (month > 2 and _is_leap(year))


DATES: Final[dict[str, Callable[[int], int]]] = {
    "minute": lambda seconds: seconds // 60 % 60,
    "hour": lambda seconds: seconds // 3600 % 24,
    "day_of_week": lambda seconds: (seconds // _DAY + 4) % 7,  # 1970 began on a Thursday; Sunday is 0
    "day_of_month": lambda seconds: civil(seconds // _DAY)[2],
    "day_of_year": _day_of_year,
    "days_in_month": _days_in_month,
    "month": lambda seconds: civil(seconds // _DAY)[1],
    "year": lambda seconds: civil(seconds // _DAY)[0],
}


def dated(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """Any function of the table above; NaN where the value is no time."""
    function = DATES[call.func]

    def of(value: float) -> float:
        return float(function(int(value))) if math.isfinite(value) else NAN

    if not call.args:
        cells: Cells = [of(time // 1000) for time in steps.times]
        return [StepSeries(NO_LABELS, cells)]
    return [
        StepSeries(s.labels, [None if x is None else of(x) for x in s.values], True)
        for s in run.vector(call.args[0], steps)
    ]
