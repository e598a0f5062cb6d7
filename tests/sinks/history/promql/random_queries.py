"""Random PromQL over series that exist: every operator, aggregation and function that Prometheus 2.42 knows.

Left out, with the reason:

- functions and syntax younger than 2.42 (`mad_over_time`, `sort_by_label`, `ts_of_*`, `first_over_time`,
  `double_exponential_smoothing`, `histogram_avg`, UTF-8 names): it refuses them;
- functions over several metric names at once, and grouping by `__name__`: 2.42 drops names early, we drop them last;
- comparisons that filter several series down to the one that matches: 2.42 takes that for a match of one to one;
- its faults of then: `atan2` keeps the metric name, `predict_linear` of a range with `@` loses steps, the variance of a
  single infinity or NaN is 0;
- what is not continuous (comparisons, `sgn`, `floor`, `%`, `ln`, ...) over what is rounded (an average, a rate): both
  are right to the last digits and still answer differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from agent.core.labels import METRIC_NAME, Labels, quote

SMOOTH: Final = ("abs", "-", "sin", "cos", "atan", "deg", "rad", "exp", "cosh", "tanh", "asinh")
SHARP: Final = ("ceil", "floor", "sgn", "ln", "log2", "log10", "sqrt", "round", "hour", "minute", "month", "year",
                "day_of_week", "day_of_month", "day_of_year", "days_in_month", "acos", "atanh", "acosh", "sort",
                "sort_desc", "timestamp", "tan", "sinh")  # fmt: skip
EXACT_OVER_TIME: Final = ("min", "max", "count", "last", "present")
ROUNDED_OVER_TIME: Final = ("avg", "sum", "stddev", "stdvar")
RATES: Final = ("rate", "increase", "delta", "irate", "idelta", "deriv")
EXACT_GROUPS: Final = ("min", "max", "count", "group")
PINNED: Final = (" @ end()", " @ start()")
COMPARISONS: Final = ("==", "!=", ">", "<", ">=", "<=")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that exists, with its series."""

    name: str
    series: Sequence[Labels]

    @property
    def label_names(self) -> list[str]:
        return sorted({name for labels in self.series for name, _ in labels if name != METRIC_NAME})


def metrics_of(series: Sequence[Labels]) -> list[Metric]:
    """The metrics that these series belong to."""
    found: dict[str, list[Labels]] = {}
    for labels in sorted(series):
        found.setdefault(dict(labels)[METRIC_NAME], []).append(labels)
    return [Metric(name, labels) for name, labels in found.items()]


class Writer:
    """Writes queries, the same for the same seed. `offset` stands in all selectors below a subquery."""

    def __init__(self, metrics: Sequence[Metric], seed: int, ranges: Sequence[str], offset: str) -> None:
        self._random = Random(seed)
        self._metrics = metrics
        self._ranges = ranges
        self._offset = offset
        self._is_below = False  # a subquery

    def query(self) -> str:
        """One query."""
        one = self._random
        metric = one.choice(self._metrics)
        if one.random() < 0.05:  # at the top only: which of equal series is among the k is anybody's choice
            return f"{one.choice(('topk', 'bottomk'))}({one.randrange(1, 5)}, {self._selector(metric)})"
        return one.choice((self._exact, self._rounded, self._rounded, self._pair, self._set))(metric, 3)

    def _number(self) -> str:
        return self._random.choice(("0", "1", "2", "0.5", "-3", "100", "1e3", "1e9"))

    # -- selectors ---------------------------------------------------------------------------------------------------

    def _matchers(self, metric: Metric) -> str:
        one = self._random
        if one.random() < 0.5:
            return ""
        name, value = one.choice([pair for pair in one.choice(metric.series) if pair[0] != METRIC_NAME])
        op, text = one.choice((
            ("=", value), ("!=", value), ("=~", value[:1] + ".*"), ("!~", ".*" + value[-1:]), ("=~", ".+"), ("=", ""),
            ("=~", f"{value}|other"), ("!~", "(none|such)"),
        ))  # fmt: skip
        is_pattern = op in {"=~", "!~"} and not value.replace("_", "").isalnum()
        return "" if is_pattern else f"{{{name}{op}{quote(text)}}}"

    def _selector(self, metric: Metric, window: str = "", pinned: bool = True) -> str:
        text = metric.name + self._matchers(metric) + window
        if self._is_below:
            return f"{text} offset {self._offset}"
        return text + self._random.choice(("",) * 6 + (" offset 2s", " offset -1s", *(PINNED if pinned else ())))

    def _range(self, metric: Metric, pinned: bool = True) -> str:
        one = self._random
        if self._is_below or one.random() < 0.85:
            return self._selector(metric, f"[{one.choice(self._ranges)}]", pinned)
        self._is_below = True
        inner = one.choice((self._exact, self._rounded))(metric, 1)
        self._is_below = False
        return f"({inner})[{one.choice(('8s:2s', '6s:1s', '9s:3s'))}]"

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _exact(self, metric: Metric, depth: int) -> str:
        """A vector whose values are the same to the last bit whoever computes them."""
        one = self._random
        match one.randrange(8) if depth else 0:
            case 1:
                return f"{one.choice(EXACT_OVER_TIME)}_over_time({self._range_of_samples(metric)})"
            case 2:
                return f"{one.choice(('changes', 'resets'))}({self._range_of_samples(metric)})"
            case 3:
                return f"{one.choice(EXACT_GROUPS)}{self._grouping(metric)} ({self._exact(metric, depth - 1)})"
            case 4:
                comparison = one.choice(COMPARISONS) + one.choice((" ", " bool "))
                return f"({self._exact(metric, depth - 1)} {comparison}{self._number()})"
            case 5:
                return f"clamp{one.choice(('_min', '_max'))}({self._exact(metric, depth - 1)}, {self._number()})"
            case 6:
                return f'label_replace({self._exact(metric, depth - 1)}, "new", "<$1>", "instance", "(.).*")'
            case 7:
                return f'label_join({self._exact(metric, depth - 1)}, "new", "-", "job", "instance")'
        return self._selector(metric)

    def _range_of_samples(self, metric: Metric) -> str:
        return self._selector(metric, f"[{self._random.choice(self._ranges)}]")

    def _rounded(self, metric: Metric, depth: int) -> str:
        """A vector whose last digits depend on the order of summation."""
        one = self._random
        match one.randrange(12) if depth else 1:
            case 0 | 1:
                return f"{one.choice(RATES)}({self._range(metric)})"
            case 2:
                return f"{one.choice(ROUNDED_OVER_TIME)}_over_time({self._range(metric)})"
            case 3:
                return f"quantile_over_time({one.choice(('0', '0.3', '0.9', '1'))}, {self._range(metric)})"
            case 4:
                return f"predict_linear({self._range(metric, pinned=False)}, {one.choice(('60', '-5', '3600'))})"
            case 5 | 6:
                return f"{one.choice(('sum', 'avg'))}{self._grouping(metric)} ({self._rounded(metric, depth - 1)})"
            case 7:
                return f"{one.choice(SMOOTH)}({self._rounded(metric, depth - 1)})"
            case 8:
                return f"{one.choice(('stddev', 'stdvar'))}{self._grouping(metric)} ({self._selector(metric)})"
            case 9:
                operator = one.choice(("+", "-", "*"))
                return f"({self._rounded(metric, depth - 1)} {operator} {self._number()})"
        function = one.choice(SHARP)
        if function == "round":
            return f"round({self._exact(metric, depth - 1)}, {one.choice(('0.5', '10', '1'))})"
        return f"{function}({self._exact(metric, depth - 1)})"

    def _grouping(self, metric: Metric) -> str:
        one = self._random
        names = one.sample(metric.label_names, min(one.randrange(3), len(metric.label_names)))
        return one.choice(("", f" by ({', '.join(names)})", f" without ({', '.join(names)})"))

    # -- two vectors -------------------------------------------------------------------------------------------------

    def _pair(self, metric: Metric, depth: int) -> str:
        one = self._random
        names = metric.label_names
        left = one.choice((self._exact, self._rounded))(metric, depth - 2)
        operator = one.choice(("+", "-", "*", "/"))
        some = ", ".join(one.sample(names, one.randrange(1, len(names) + 1)))
        match one.randrange(4):
            case 0:
                return f"{left} {operator} {self._exact(metric, 0)}"
            case 1:
                return f"{left} {operator} on ({some}) group_left sum by ({some}) ({self._selector(metric)})"
            case 2:
                return f"max by ({some}) ({self._selector(metric)}) {operator} on ({some}) group_right () {left}"
        matching = one.choice(("", f"bool ignoring ({some}) "))
        return f"{self._exact(metric, depth - 2)} {one.choice(COMPARISONS)} {matching}{self._exact(metric, 0)}"

    def _set(self, metric: Metric, depth: int) -> str:
        one = self._random
        other = metric if one.random() < 0.5 else one.choice(self._metrics)
        names = [name for name in metric.label_names if name in other.label_names]
        matching = one.choice(("", f"on ({', '.join(names[:2])}) ", f"ignoring ({', '.join(names[:1])}) "))
        left, right = self._exact(metric, depth - 2), self._exact(other, depth - 2)
        if one.random() < 0.1:
            return f"absent({left})"
        if one.random() < 0.1:
            return f"scalar({left}) + scalar({right})"
        return f"{left} {one.choice(('and', 'or', 'unless'))} {matching}{right}"


def random_queries(metrics: Sequence[Metric], seed: int, count: int, ranges: Sequence[str], offset: str) -> list[str]:
    """As many different queries; `ranges` and `offset` as durations."""
    writer = Writer(metrics, seed, ranges, offset)
    found: dict[str, None] = {}
    while len(found) < count:
        found[writer.query()] = None
    return list(found)
