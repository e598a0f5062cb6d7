"""Walks a parsed query over all its steps at once: every node yields its cells for every step."""

from dataclasses import dataclass, field
from typing import Final

from agent.core.query import ExecutionError
from sinks.history.promql import aggregate, binary, selection
from sinks.history.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
    unwrapped,
    value_type,
)
from sinks.history.promql.budget import Budget, Remarks
from sinks.history.promql.functions.registry import SCALAR_FUNCTIONS, VECTOR_FUNCTIONS
from sinks.history.promql.storage import Storage
from sinks.history.promql.values import RangeSeries, Steps, StepSeries

NOTHING_AROUND: Final[tuple[str, tuple[str, ...], bool]] = ("", (), False)


@dataclass(slots=True)
class Evaluation:
    """One run of one query. `start_ms` and `end_ms` are those of the whole query, for `@ start()` and `@ end()`."""

    storage: Storage
    budget: Budget
    remarks: Remarks
    start_ms: int
    end_ms: int
    lookback_ms: int
    subquery_step_ms: int
    is_range: bool
    around: tuple[str, tuple[str, ...], bool] = field(default=NOTHING_AROUND)  # function, grouping, by: for hints

    def vector(self, node: Expr, steps: Steps) -> list[StepSeries]:
        """The series of an instant vector at every step. Raise QueryError."""
        self.budget.check()
        match node:
            case VectorSelector():
                series = selection.instants(self, node, steps)
            case Call():
                self.around = (node.func, (), False)
                series = VECTOR_FUNCTIONS[node.func](self, node, steps)
            case Aggregate():
                self.around = (node.op, node.grouping, node.grouped and not node.without)
                series = aggregate.evaluate(self, node, steps)
            case Binary():
                self.around = NOTHING_AROUND
                series = binary.vectors(self, node, steps)
            case Paren():
                return self.vector(node.expr, steps)
            case Unary():
                series = self._signed(node, steps)
            case _:
                raise ExecutionError(f"a {value_type(node)} is no instant vector")
        self.around = NOTHING_AROUND
        self.budget.cells(len(series), steps.count)
        return series

    def _signed(self, node: Unary, steps: Steps) -> list[StepSeries]:
        self.around = NOTHING_AROUND
        series = self.vector(node.expr, steps)
        if node.op == "+":
            return series
        return [StepSeries(s.labels, [None if x is None else -x for x in s.values], True) for s in series]

    def scalar(self, node: Expr, steps: Steps) -> list[float]:
        """The scalar at every step. Raise QueryError."""
        match node:
            case NumberLiteral():
                return [node.value] * steps.count
            case Paren():
                return self.scalar(node.expr, steps)
            case Unary():
                values = self.scalar(node.expr, steps)
                return [-value for value in values] if node.op == "-" else values
            case Binary():
                return binary.scalars(node.op, self.scalar(node.lhs, steps), self.scalar(node.rhs, steps))
            case Call():
                self.around = (node.func, (), False)
                return SCALAR_FUNCTIONS[node.func](self, node, steps)
            case _:
                raise ExecutionError(f"a {value_type(node)} is no scalar")

    def text(self, node: Expr) -> str:
        """The text of a literal. Raise ExecutionError for anything else."""
        literal = unwrapped(node)
        if not isinstance(literal, StringLiteral):
            raise ExecutionError(f"a {value_type(node)} is no string")
        return literal.value

    def ranges(self, node: Expr, steps: Steps) -> list[RangeSeries]:
        """The windows of a range vector at every step. Raise QueryError."""
        inner = unwrapped(node)
        if isinstance(inner, MatrixSelector):
            return selection.windows(self, inner, steps)
        if isinstance(inner, Subquery):
            self.around = NOTHING_AROUND
            return selection.subquery_windows(self, inner, steps)
        raise ExecutionError(f"a {value_type(node)} is no range vector")

    def warn_sort(self, call: Call) -> None:
        """Say that sorting does nothing in a range query."""
        if self.is_range:
            message = "sort is ineffective for range queries since results are always ordered by labels"
            self.remarks.warn(message, call)
