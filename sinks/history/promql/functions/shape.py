"""Functions between scalars and vectors, of time, of absence, and of order."""

import math
from typing import TYPE_CHECKING

from agent.core.labels import METRIC_NAME, NO_LABELS, Labels, labels_of
from sinks.history.promql import selection
from sinks.history.promql.ast import Call, Expr, MatrixSelector, VectorSelector, unwrapped
from sinks.history.promql.functions.over_time import OVER_TIME, ranges, walk
from sinks.history.promql.numbers import NAN
from sinks.history.promql.values import Cells, Steps, StepSeries

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation


def pi(run: "Evaluation", call: Call, steps: Steps) -> list[float]:  # noqa: ARG001
    """pi()."""
    return [math.pi] * steps.count


def time(run: "Evaluation", call: Call, steps: Steps) -> list[float]:  # noqa: ARG001
    """time(): the time of evaluation, in seconds."""
    return [moment / 1000 for moment in steps.times]


def greater_or_less(run: "Evaluation", call: Call, steps: Steps) -> list[float]:
    """max_of(a, b) and min_of(a, b); NaN where one of them is."""
    choose = max if call.func == "max_of" else min
    pairs = zip(*[run.scalar(arg, steps) for arg in call.args], strict=True)
    return [choose(a, b) if a == a and b == b else NAN for a, b in pairs]


def scalar(run: "Evaluation", call: Call, steps: Steps) -> list[float]:
    """scalar(v): the value of the only series, NaN where there is none or more than one."""
    series = run.vector(call.args[0], steps)
    if not series:
        return [NAN] * steps.count
    found = []
    for row in zip(*[s.values for s in series], strict=True):
        values = [value for value in row if value is not None]
        found.append(values[0] if len(values) == 1 else NAN)
    return found


def vector(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """vector(s)."""
    cells: Cells = list(run.scalar(call.args[0], steps))
    return [StepSeries(NO_LABELS, cells)]


def timestamp(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """timestamp(v): the time of the samples of a selector; of anything else the time of evaluation."""
    node = unwrapped(call.args[0])
    if isinstance(node, VectorSelector):
        return selection.instants(run, node, steps, stamps=True)
    found = []
    for s in run.vector(node, steps):
        cells = [None if x is None else at / 1000 for x, at in zip(s.values, steps.times, strict=True)]
        found.append(StepSeries(s.labels, cells, True))
    return found


def _labels_of_absent(node: Expr) -> Labels:
    """What a selector says about the series it misses: labels that it fixes by one equality."""
    node = unwrapped(node)
    if isinstance(node, MatrixSelector):
        node = node.vector
    if not isinstance(node, VectorSelector):
        return NO_LABELS
    names = [matcher.name for matcher in node.matchers]
    return labels_of(
        (matcher.name, matcher.value)
        for matcher in node.matchers
        if matcher.op == "=" and matcher.name != METRIC_NAME and names.count(matcher.name) == 1
    )


def _where_missing(node: Expr, present: list[bool]) -> list[StepSeries]:
    cells: Cells = [None if there else 1.0 for there in present]
    return [] if all(present) else [StepSeries(_labels_of_absent(node), cells)]


def absent(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """absent(v): 1 where no series has a value."""
    present = [False] * steps.count
    for s in run.vector(call.args[0], steps):
        present = [was or value is not None for was, value in zip(present, s.values, strict=True)]
    return _where_missing(call.args[0], present)


def absent_over_time(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """absent_over_time(range): 1 where no series has a sample in the window."""
    present = [False] * steps.count
    for s in walk(run, ranges(run, call, steps), steps, "present_over_time", OVER_TIME["present_over_time"]):
        present = [was or value is not None for was, value in zip(present, s.values, strict=True)]
    return _where_missing(call.args[0], present)


def sort(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """sort(v) and sort_desc(v): by value, NaN last in both; a range query is ordered by labels whatever it says."""
    series = run.vector(call.args[0], steps)
    run.warn_sort(call)
    if steps.count > 1:
        return series
    sign = -1.0 if call.func == "sort_desc" else 1.0

    def key(s: StepSeries) -> tuple[bool, float]:
        value = s.values[0]
        return (True, 0.0) if value is None or value != value else (False, sign * value)

    return sorted(series, key=key)


def nothing(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """Functions of native histograms: samples are floats, so nothing is what they find."""
    run.vector(call.args[0], steps)
    return []
