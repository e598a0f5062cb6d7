"""Answers queries: parse, evaluate over the store, shape the result. One engine serves many threads."""

import time
from collections.abc import Callable
from typing import TypeVar

from agent.core.query import (
    DEFAULT_LIMITS,
    ExecutionError,
    Limits,
    ParameterError,
    ParseError,
    Points,
    Result,
    Sample,
    TooMuchError,
)
from sinks.history.promql.ast import MATRIX, SCALAR, STRING, VECTOR, Expr, value_type
from sinks.history.promql.budget import Budget, Remarks
from sinks.history.promql.evaluate import Evaluation
from sinks.history.promql.parser import parse
from sinks.history.promql.storage import Storage
from sinks.history.promql.values import Steps, StepSeries, named_out, when_present

T = TypeVar("T")

LOOKBACK_MS = 300_000
SUBQUERY_STEP_MS = 60_000


class Engine:
    """A Querier over a Storage.

    `lookback_ms`: how old a sample may be and still be the value; `subquery_step_ms`: the step of `[5m:]`;
    `monotonic`: seconds, for deadlines.
    """

    def __init__(
        self,
        storage: Storage,
        lookback_ms: int = LOOKBACK_MS,
        subquery_step_ms: int = SUBQUERY_STEP_MS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._lookback_ms = lookback_ms
        self._subquery_step_ms = subquery_step_ms
        self._monotonic = monotonic

    def instant(self, expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The value of `expr` at one moment, of whichever kind. Raise QueryError."""
        node = parse(expr)
        run = self._run(expr, time_ms, time_ms, limits, is_range=False)
        return _guarded(lambda: _instant(run, node, time_ms))

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        """The values of `expr` at start, start + step, ... up to end: a matrix ordered by labels. Raise QueryError."""
        if step_ms < 1:
            raise ParameterError(f"step of {step_ms} ms; at least 1 ms would be right")
        if end_ms < start_ms:
            raise ParameterError("end is before start")
        steps = Steps(range(start_ms, end_ms + 1, step_ms))
        if steps.count > limits.steps:
            raise TooMuchError(
                f"{steps.count} steps, more than {limits.steps}; ask for a longer step or a shorter range"
            )
        node = parse(expr)
        kind = value_type(node)
        if kind not in {SCALAR, VECTOR}:
            hint = "wrap it in a function of a range, such as rate" if kind == MATRIX else ""
            message = f'invalid expression type "{kind}" for range query, must be scalar or instant vector'
            raise ParseError(message, 1, 1, hint)
        run = self._run(expr, start_ms, end_ms, limits, is_range=True)
        return _guarded(lambda: _range(run, node, steps))

    def _run(self, expr: str, start_ms: int, end_ms: int, limits: Limits, is_range: bool) -> Evaluation:
        budget = Budget(limits, self._monotonic)
        remarks = Remarks(expr)
        return Evaluation(
            self._storage, budget, remarks, start_ms, end_ms, self._lookback_ms, self._subquery_step_ms, is_range
        )


def _guarded(answer: Callable[[], T]) -> T:
    """Turn what only absurd numbers cause into a QueryError."""
    try:
        return answer()
    except (ArithmeticError, RecursionError, MemoryError) as error:
        raise ExecutionError(f"cannot be computed: {error}") from error


def _instant(run: Evaluation, node: Expr, time_ms: int) -> Result:
    steps = Steps((time_ms,))
    kind = value_type(node)
    if kind == STRING:
        return Result("string", run.text(node), time_ms)
    if kind == SCALAR:
        return _result(run, "scalar", run.scalar(node, steps)[0], time_ms)
    if kind == MATRIX:
        return _result(run, "matrix", _windows(run, node, steps), time_ms)
    samples = []
    for series in named_out(run.vector(node, steps)):
        value = series.values[0]
        if value is not None:
            samples.append(Sample(series.labels, time_ms, value))
    return _result(run, "vector", samples, time_ms)


def _windows(run: Evaluation, node: Expr, steps: Steps) -> list[Points]:
    """The samples of a range selector as they are."""
    found = []
    for series in run.ranges(node, steps):
        low, high = series.bounds[0]
        if low < high:
            found.append(Points(series.labels, series.t[low:high], series.v[low:high]))
    return sorted(found, key=lambda points: points.labels)


def _range(run: Evaluation, node: Expr, steps: Steps) -> Result:
    if value_type(node) == SCALAR:
        series = [StepSeries((), list(run.scalar(node, steps)))]
    else:
        series = named_out(run.vector(node, steps))
    found = []
    times = list(steps.times)
    for one in sorted(series, key=lambda s: s.labels):
        values = [x for x in one.values if x is not None]
        if len(values) == len(times):
            found.append(Points(one.labels, times, values))
        elif values:
            found.append(Points(one.labels, when_present(times, one.values), values))
    return _result(run, "matrix", found, run.end_ms)


def _result(run: Evaluation, kind: str, value: float | list[Sample] | list[Points], time_ms: int) -> Result:
    remarks = run.remarks
    if isinstance(value, float):
        return Result("scalar", value, time_ms, remarks.warnings, remarks.infos)
    return Result("matrix" if kind == "matrix" else "vector", value, time_ms, remarks.warnings, remarks.infos)
