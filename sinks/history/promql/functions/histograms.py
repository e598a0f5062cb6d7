"""Quantiles and fractions of classic histograms: one series per bucket, cumulative, the bound in the label `le`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from agent.core.labels import METRIC_NAME, Labels, drop, quote, value_of, with_label
from sinks.history.promql import numbers
from sinks.history.promql.ast import Call, Expr
from sinks.history.promql.numbers import INF, NAN
from sinks.history.promql.values import Cells, Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

Buckets: TypeAlias = list[tuple[float, float]]  # upper bound, observations up to it

_BOUND: Final = "le"
_NEGLIGIBLE: Final = 1e-12  # relative difference of counts that float arithmetic alone explains
_MONOTONICITY: Final = (
    "input to histogram_quantile needed to be fixed for monotonicity "
    "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)


def _bound(text: str) -> float | None:
    """Upper bound of a bucket, None where the label is no number."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _about(message: str, labels: Labels) -> str:
    name = value_of(labels, METRIC_NAME)
    return f"{message} for metric name {quote(name)}" if name else message


def _histograms(run: "Evaluation", node: Expr, steps: Steps) -> dict[Labels, list[tuple[float, StepSeries]]]:
    """The buckets of each histogram, ascending by bound; warns of series without one."""
    found: dict[Labels, list[tuple[float, StepSeries]]] = {}
    for s in run.vector(node, steps):
        text = value_of(s.labels, _BOUND)
        bound = _bound(text)
        if bound is None:
            message = f"bucket label {quote(_BOUND)} is missing or has a malformed value of {quote(text)}"
            run.remarks.warn(_about(message, s.labels), node)
            continue
        found.setdefault(drop(s.labels, (_BOUND,)), []).append((bound, s))
    for buckets in found.values():
        buckets.sort(key=lambda pair: pair[0])
    return found


def _evaluated(
    histograms: dict[Labels, list[tuple[float, StepSeries]]],
    steps: Steps,
    function: Callable[[Buckets, int, Labels], float | None],
) -> list[StepSeries]:
    found = []
    for labels, series in histograms.items():
        bounds = [bound for bound, _ in series]
        cells: Cells = []
        for step, row in enumerate(zip(*[s.values for _, s in series], strict=True)):
            buckets = _coalesced([(bound, n) for bound, n in zip(bounds, row, strict=True) if n is not None])
            cells.append(function(buckets, step, labels) if buckets else None)
        if cells.count(None) < steps.count:
            found.append(StepSeries(labels, cells, True))
    return found


def _coalesced(buckets: Buckets) -> Buckets:
    """Buckets of equal bound added up; `le` may be written 1 and 1.0."""
    merged: Buckets = []
    for bound, n in buckets:
        if merged and merged[-1][0] == bound:
            merged[-1] = (bound, merged[-1][1] + n)
        else:
            merged.append((bound, n))
    return merged


def _monotonic(buckets: Buckets) -> tuple[Buckets, bool]:
    """Buckets whose counts never fall, and whether that took more than evening out float noise."""
    fixed = [buckets[0]]
    forced = False
    highest = buckets[0][1]
    for bound, n in buckets[1:]:
        if n != highest:
            difference, size = abs(n - highest), abs(n) + abs(highest)
            if difference < _NEGLIGIBLE * size:
                pass
            elif n < highest:
                forced = True
            else:
                highest = n
        fixed.append((bound, highest))
    return fixed, forced


def quantile(q: float, buckets: Buckets) -> tuple[float, bool]:
    """The quantile by linear interpolation inside its bucket, and whether the counts had to be made monotonic.

    NaN where q is NaN, there is no bucket up to +Inf, or nothing was observed.
    """
    if q != q:
        return NAN, False
    if not 0 <= q <= 1:
        return (-INF if q < 0 else INF), False
    if buckets[-1][0] != INF:
        return NAN, False
    buckets, forced = _monotonic(buckets)
    observed = buckets[-1][1]
    if len(buckets) < 2 or observed == 0 or observed != observed:
        return NAN, forced
    rank = q * observed
    index = next((i for i, (_, n) in enumerate(buckets[:-1]) if n >= rank), len(buckets) - 1)
    upper, n = buckets[index]
    if index == len(buckets) - 1:
        return buckets[-2][0], forced
    if index == 0 and upper <= 0:
        return upper, forced
    lower, below = buckets[index - 1] if index else (0.0, 0.0)
    return lower + (upper - lower) * numbers.divide(rank - below, n - below), forced


def fraction(low: float, high: float, buckets: Buckets) -> float:
    """The share of observations between low and high, by linear interpolation inside buckets."""
    if buckets[-1][0] != INF or low != low or high != high or buckets[-1][1] == 0:
        return NAN
    if low >= high:
        return 0.0
    observed = buckets[-1][1]
    return (_rank(high, buckets, observed) - _rank(low, buckets, observed)) / observed


def _rank(value: float, buckets: Buckets, observed: float) -> float:
    """Observations below the value."""
    lower, below = (0.0 if buckets[0][0] > 0 else -INF), 0.0
    for upper, n in buckets:
        if lower >= value:
            return min(below, observed)
        if upper > value:
            if lower == -INF:
                return min(n, observed)
            share = 0.0 if upper == INF else (value - lower) / (upper - lower)
            return min(below + (n - below) * share, observed)
        lower, below = upper, n
    return observed


def _ranks(run: "Evaluation", node: Expr, steps: Steps) -> list[float]:
    """The quantile asked for at every step; warns of those that are none."""
    ranks = run.scalar(node, steps)
    for rank in dict.fromkeys(ranks):
        if not 0 <= rank <= 1:
            run.remarks.warn(f"quantile value should be between 0 and 1, got {numbers.general(rank)}", node)
    return ranks


def _told(run: "Evaluation", node: Expr, labels: Labels, rank: float, buckets: Buckets) -> float:
    """The quantile, and that the counts had to be made monotonic."""
    value, forced = quantile(rank, buckets)
    if forced:
        run.remarks.inform(_about(_MONOTONICITY, labels), node)
    return value


def histogram_quantile(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """histogram_quantile(q, buckets)."""
    node = call.args[1]
    histograms = _histograms(run, node, steps)
    ranks = _ranks(run, call.args[0], steps)
    return _evaluated(histograms, steps, lambda buckets, step, labels: _told(run, node, labels, ranks[step], buckets))


def histogram_quantiles(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """histogram_quantiles(buckets, label, q...): a series for each quantile, which stands in the label."""
    node, label = call.args[0], run.text(call.args[1])
    histograms = _histograms(run, node, steps)
    found: list[StepSeries] = []
    for asked in call.args[2:]:
        ranks = _ranks(run, asked, steps)
        texts = [_rank_text(rank) for rank in ranks]
        for text, rank in dict(zip(texts, ranks, strict=True)).items():
            series = _at_rank(run, node, histograms, rank, [other == text for other in texts])
            found += [StepSeries(with_label(one.labels, label, text), one.values, True) for one in series]
            run.budget.cells(len(found), steps.count)
    return found


def _at_rank(
    run: "Evaluation",
    node: Expr,
    histograms: dict[Labels, list[tuple[float, StepSeries]]],
    rank: float,
    where: list[bool],
) -> list[StepSeries]:
    """One quantile of each histogram, at some of the steps."""

    def of(buckets: Buckets, step: int, labels: Labels) -> float | None:
        return _told(run, node, labels, rank, buckets) if where[step] else None

    return _evaluated(histograms, Steps(range(len(where))), of)


def _rank_text(rank: float) -> str:
    """As OpenMetrics writes a quantile: 0.5, 1.0, NaN."""
    text = numbers.plain(rank)
    return f"{text}.0" if text.lstrip("-").isdigit() else text


def histogram_fraction(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """histogram_fraction(low, high, buckets)."""
    low, high = run.scalar(call.args[0], steps), run.scalar(call.args[1], steps)
    histograms = _histograms(run, call.args[2], steps)
    return _evaluated(histograms, steps, lambda buckets, step, labels: fraction(low[step], high[step], buckets))  # noqa: ARG005
