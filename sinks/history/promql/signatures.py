"""What each PromQL function takes and returns; the parser checks calls against it."""

from dataclasses import dataclass
from typing import Final

from sinks.history.promql.ast import MATRIX, SCALAR, STRING, VECTOR, ValueType


@dataclass(frozen=True, slots=True)
class Signature:
    """`args` are the types in order; at least `least` of them. `endless`: the last type may repeat."""

    args: tuple[ValueType, ...]
    least: int
    returns: ValueType = VECTOR
    endless: bool = False

    @property
    def most(self) -> int | None:
        """The greatest number of arguments, None where there is no limit."""
        return None if self.endless else len(self.args)

    def type_of(self, index: int) -> ValueType:
        """The type wanted at this place."""
        return self.args[min(index, len(self.args) - 1)]


def _takes(*args: ValueType, returns: ValueType = VECTOR, least: int | None = None, endless: bool = False) -> Signature:
    return Signature(args, len(args) if least is None else least, returns, endless)


_OF_VECTOR = (
    "abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor histogram_avg histogram_count "
    "histogram_stddev histogram_stdvar histogram_sum ln log10 log2 rad sgn sin sinh sort sort_desc sqrt tan tanh "
    "timestamp"
)
_OF_RANGE = (
    "absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta increase irate "
    "last_over_time mad_over_time max_over_time min_over_time present_over_time rate resets stddev_over_time "
    "stdvar_over_time sum_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time"
)
_OF_TIME = "day_of_month day_of_week day_of_year days_in_month hour minute month year"

SIGNATURES: Final[dict[str, Signature]] = {
    **{name: _takes(VECTOR) for name in _OF_VECTOR.split()},
    **{name: _takes(MATRIX) for name in _OF_RANGE.split()},
    **{name: _takes(VECTOR, least=0) for name in _OF_TIME.split()},
    "clamp": _takes(VECTOR, SCALAR, SCALAR),
    "clamp_max": _takes(VECTOR, SCALAR),
    "clamp_min": _takes(VECTOR, SCALAR),
    "double_exponential_smoothing": _takes(MATRIX, SCALAR, SCALAR),
    "histogram_fraction": _takes(SCALAR, SCALAR, VECTOR),
    "histogram_quantile": _takes(SCALAR, VECTOR),
    "histogram_quantiles": _takes(VECTOR, STRING, SCALAR, endless=True),
    "label_join": _takes(VECTOR, STRING, STRING, STRING, least=3, endless=True),
    "label_replace": _takes(VECTOR, STRING, STRING, STRING, STRING),
    "max_of": _takes(SCALAR, SCALAR, returns=SCALAR),
    "min_of": _takes(SCALAR, SCALAR, returns=SCALAR),
    "pi": _takes(returns=SCALAR),
    "predict_linear": _takes(MATRIX, SCALAR),
    "quantile_over_time": _takes(SCALAR, MATRIX),
    "round": _takes(VECTOR, SCALAR, least=1),
    "scalar": _takes(VECTOR, returns=SCALAR),
    "sort_by_label": _takes(VECTOR, STRING, least=1, endless=True),
    "sort_by_label_desc": _takes(VECTOR, STRING, least=1, endless=True),
    "time": _takes(returns=SCALAR),
    "vector": _takes(SCALAR),
}

LEFT_OUT: Final = {
    "info": "join with * on(...) group_left(...) instead",
    "start_timestamp": "start timestamps are not kept",
    **dict.fromkeys(("start", "end", "step", "range"), "duration expressions are not supported"),
    "limitk": "use topk, or a label matcher",
    "limit_ratio": "use a label matcher",
    "holt_winters": "it is called double_exponential_smoothing now",
}
