"""PromQL as the rules see it: the parser of history behind the words of alerting."""

from __future__ import annotations

from agent.core.labels import Labels, labels_of
from agent.core.query import ParseError
from alerting.expressions import Expression, Input
from sinks.history.promql.ast import (
    COMPARISONS,
    Binary,
    Call,
    Expr,
    NumberLiteral,
    Paren,
    Unary,
    VectorSelector,
    walk,
)
from sinks.history.promql.parser import parse
from sinks.history.promql.selectors import selectors
from sinks.history.promql.unparse import unparse

_ABSENCE = frozenset({"absent", "absent_over_time"})


class PromQL:
    """A Language."""

    def read(self, text: str) -> Expression:
        """The expression. Raise ParseError."""
        node = parse(text)
        absent = _spans_of_absence(node)
        inputs = tuple(
            Input(one.name, one.matchers, one.range_ms, any(low <= one.start < high for low, high in absent))
            for one in selectors(node)
        )
        return Expression(text, unparse(node), inputs, _thresholds(node))

    def series(self, text: str) -> Labels:
        """The labels of a series as written; `{}` has none. Raise ParseError."""
        if text.strip() == "{}":
            return ()
        node = parse(text)
        if not isinstance(node, VectorSelector) or node.offset_ms or node.at is not None:
            raise ParseError("found no series", 1, 1, 'write it like up{job="node"}')
        for matcher in node.matchers:
            if matcher.op != "=":
                raise ParseError(f"found {matcher.op!r} beside {matcher.name!r}, expected '='", 1, 1)
        return labels_of((matcher.name, matcher.value) for matcher in node.matchers)


def _spans_of_absence(node: Expr) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in walk(node) if isinstance(one, Call) and one.func in _ABSENCE]


def _thresholds(node: Expr) -> tuple[tuple[int, int], ...]:
    """Where the numbers stand that something else is compared with: the leading one, else all in the text's order.

    `100 * a / b > 90 and on () c == 0` is about 90; what stands behind `and` only narrows it down.
    """
    leading = _leading(node)
    if leading is not None:
        return ((leading.start, leading.end),)
    numbers = [_compared(one) for one in walk(node) if isinstance(one, Binary)]
    return tuple(sorted((one.start, one.end) for one in numbers if one is not None))


def _leading(node: Expr) -> Expr | None:
    """The number of the first comparison from the top that all of the result has passed; None where there is none."""
    while True:
        match node:
            case Paren():
                node = node.expr
            case Binary() if node.op in COMPARISONS:
                return _compared(node)
            case Binary() if node.op != "or":
                node = node.lhs
            case _:
                return None


def _compared(node: Binary) -> Expr | None:
    """The constant side of a comparison; None where both sides are, or neither is."""
    if node.op not in COMPARISONS:
        return None
    sides = [side for side in (node.lhs, node.rhs) if _is_constant(side)]
    return sides[0] if len(sides) == 1 else None


def _is_constant(node: Expr) -> bool:
    return all(isinstance(one, NumberLiteral | Binary | Paren | Unary) for one in walk(node))
