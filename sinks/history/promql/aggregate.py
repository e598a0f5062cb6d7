"""Aggregations: many series of a group to one, to some of them, or to a count for each value."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from agent.core.labels import METRIC_NAME, NO_LABELS, Labels, drop, keep, quote, with_label
from agent.core.query import ExecutionError
from sinks.history.promql import numbers
from sinks.history.promql.ast import Aggregate
from sinks.history.promql.values import Cells, Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_INT64: Final = 2.0**63


def _variance(values: Sequence[float]) -> float:
    return math.nan if not all(map(math.isfinite, values)) else numbers.variance(values)


_PLAIN: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": numbers.total,
    "avg": numbers.mean,
    "min": numbers.lowest,
    "max": numbers.highest,
    "count": lambda values: float(len(values)),
    "group": lambda values: 1.0,  # noqa: ARG005
    "stdvar": _variance,
    "stddev": lambda values: math.sqrt(_variance(values)),
}


def evaluate(run: "Evaluation", node: Aggregate, steps: Steps) -> list[StepSeries]:
    """The aggregation at every step. Raise ExecutionError on an impossible parameter."""
    if node.op in {"topk", "bottomk"}:
        return _extremes(run, node, steps)
    if node.op == "count_values":
        return _count_values(run, node, steps)
    if node.op == "quantile":
        assert node.param is not None
        around, run.around = run.around, ("", (), False)
        ranks = run.scalar(node.param, steps)
        run.around = around
        for rank in dict.fromkeys(ranks):
            if not 0 <= rank <= 1:
                run.remarks.warn(f"quantile value should be between 0 and 1, got {numbers.general(rank)}", node.param)
        return _reduced(node, run.vector(node.expr, steps), lambda values, step: numbers.quantile(ranks[step], values))
    function = _PLAIN[node.op]
    return _reduced(node, run.vector(node.expr, steps), lambda values, step: function(values))  # noqa: ARG005


def _key(node: Aggregate) -> Callable[[Labels], Labels]:
    """The labels of the group that a series belongs to."""
    if node.without:
        dropped = frozenset((*node.grouping, METRIC_NAME))
        return lambda labels: drop(labels, dropped)
    if node.grouping:
        kept = frozenset(node.grouping)
        return lambda labels: keep(labels, kept)
    return lambda labels: NO_LABELS  # noqa: ARG005


def _groups(node: Aggregate, series: list[StepSeries]) -> dict[Labels, list[StepSeries]]:
    key = _key(node)
    groups: dict[Labels, list[StepSeries]] = {}
    for one in series:
        groups.setdefault(key(one.labels), []).append(one)
    return groups


def _reduced(
    node: Aggregate, series: list[StepSeries], function: Callable[[Sequence[float], int], float]
) -> list[StepSeries]:
    found = []
    for labels, group in _groups(node, series).items():
        cells: Cells = []
        for step, row in enumerate(zip(*[one.values for one in group], strict=True)):
            values = [value for value in row if value is not None]
            cells.append(function(values, step) if values else None)
        if cells.count(None) < len(cells):
            found.append(StepSeries(labels, cells, any(one.drop_name for one in group)))
    return found


def _limits(run: "Evaluation", node: Aggregate, steps: Steps) -> list[int]:
    """How many series each step keeps. Raise ExecutionError for NaN and what no integer holds."""
    assert node.param is not None
    counts = []
    for value in run.scalar(node.param, steps):
        if value != value:
            raise ExecutionError("Parameter value is NaN")
        if not -_INT64 <= value < _INT64:
            side = "overflows" if value > 0 else "underflows"
            raise ExecutionError(f"Scalar value {numbers.general(value)} {side} int64")
        counts.append(int(value))
    return counts


def _extremes(run: "Evaluation", node: Aggregate, steps: Steps) -> list[StepSeries]:
    """topk and bottomk: the same series, with cells only where they are among the k. NaN comes last in both."""
    limits = _limits(run, node, steps)
    series = run.vector(node.expr, steps)
    if max(limits) < 1:
        return []
    sign = -1.0 if node.op == "topk" else 1.0
    found = []
    for group in _groups(node, series).values():
        cells: list[Cells] = [[None] * steps.count for _ in group]
        order: list[int] = []
        for step, limit in enumerate(limits):
            ranked = []
            for index, one in enumerate(group):
                value = one.values[step]
                if value is not None:
                    ranked.append((value != value, 0.0 if value != value else sign * value, index))
            order = [index for _, _, index in sorted(ranked)[: max(limit, 0)]]
            for index in order:
                cells[index][step] = group[index].values[step]
        wanted = order if steps.count == 1 else range(len(group))
        found += [
            StepSeries(group[index].labels, cells[index], group[index].drop_name)
            for index in wanted
            if cells[index].count(None) < steps.count
        ]
    return found


def _count_values(run: "Evaluation", node: Aggregate, steps: Steps) -> list[StepSeries]:
    assert node.param is not None
    name = run.text(node.param)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ExecutionError(f"invalid label name {quote(name)}") from None
    if not name:
        raise ExecutionError(f"invalid label name {quote(name)}")
    key = _key(node)
    shown: dict[float, str] = {}
    found: dict[Labels, StepSeries] = {}
    for one in run.vector(node.expr, steps):
        base = one.labels if node.without else key(one.labels)
        for step, value in enumerate(one.values):
            if value is None:
                continue
            text = shown.get(value) or shown.setdefault(value, numbers.plain(value))
            labels = with_label(base, name, text)
            if node.without:
                labels = key(labels)
            counted = found.get(labels)
            if counted is None:
                run.budget.cells(len(found) + 1, steps.count)
                counted = found[labels] = StepSeries(labels, [None] * steps.count)
            counted.drop_name = counted.drop_name or one.drop_name
            counted.values[step] = (counted.values[step] or 0.0) + 1.0
    return list(found.values())
