"""Every PromQL function by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from sinks.history.promql.ast import Call
from sinks.history.promql.functions import dates, elementwise, histograms, over_time, rates, relabel, shape
from sinks.history.promql.values import Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

VectorFunction: TypeAlias = Callable[["Evaluation", Call, Steps], list[StepSeries]]
ScalarFunction: TypeAlias = Callable[["Evaluation", Call, Steps], list[float]]

SCALAR_FUNCTIONS: Final[dict[str, ScalarFunction]] = {
    "max_of": shape.greater_or_less,
    "min_of": shape.greater_or_less,
    "pi": shape.pi,
    "scalar": shape.scalar,
    "time": shape.time,
}

VECTOR_FUNCTIONS: Final[dict[str, VectorFunction]] = {
    **dict.fromkeys(elementwise.ELEMENTWISE, elementwise.mapped),
    **dict.fromkeys(dates.DATES, dates.dated),
    **dict.fromkeys(over_time.OVER_TIME, over_time.over_time),
    **dict.fromkeys(rates.RATES, rates.rates),
    **dict.fromkeys([f"histogram_{what}" for what in ("avg", "count", "stddev", "stdvar", "sum")], shape.nothing),
    "absent": shape.absent,
    "absent_over_time": shape.absent_over_time,
    "clamp": elementwise.clamp,
    "clamp_max": elementwise.clamp_max,
    "clamp_min": elementwise.clamp_min,
    "deriv": rates.deriv,
    "double_exponential_smoothing": rates.double_exponential_smoothing,
    "histogram_fraction": histograms.histogram_fraction,
    "histogram_quantile": histograms.histogram_quantile,
    "histogram_quantiles": histograms.histogram_quantiles,
    "label_join": relabel.label_join,
    "label_replace": relabel.label_replace,
    "predict_linear": rates.predict_linear,
    "quantile_over_time": over_time.quantile_over_time,
    "round": elementwise.rounded,
    "sort": shape.sort,
    "sort_by_label": relabel.sort_by_label,
    "sort_by_label_desc": relabel.sort_by_label,
    "sort_desc": shape.sort,
    "timestamp": shape.timestamp,
    "vector": shape.vector,
}
