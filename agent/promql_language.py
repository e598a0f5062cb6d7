"""PromQL as the rules see it: the parser of history behind the words of alerting."""

from __future__ import annotations

from agent.core.labels import Labels, labels_of
from agent.core.query import ParseError
from alerting.expressions import Expression, Input
from sinks.history.promql.ast import COMPARISONS, Binary, Call, Expr, NumberLiteral, VectorSelector, children, walk
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
    """Where numbers stand that something else is compared with, in the order of the text."""
    found = []
    for one in walk(node):
        if isinstance(one, Binary) and one.op in COMPARISONS:
            sides = [side for side in children(one) if isinstance(side, NumberLiteral)]
            if len(sides) == 1:
                found.append((sides[0].start, sides[0].end))
    return tuple(sorted(found))
