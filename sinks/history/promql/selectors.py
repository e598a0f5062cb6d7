"""Which series a query asks for: to check rules against what is collected, and to tell no data from no breach."""

from dataclasses import dataclass

from agent.core.labels import Matcher
from sinks.history.promql.ast import Expr, MatrixSelector, Subquery, VectorSelector, children


@dataclass(frozen=True, slots=True)
class Selector:
    """One selector of a query. `name` is "" where no equality fixes the metric name.

    `range_ms` is 0 for an instant selector. `reach_ms` is how far before the evaluation samples may lie that decide
    the result, without the lookback; None where `@` pins it to a moment.
    """

    name: str
    matchers: tuple[Matcher, ...]
    range_ms: int
    reach_ms: int | None
    start: int
    end: int


def selectors(node: Expr) -> list[Selector]:
    """Every selector, in the order of the text."""
    found: list[Selector] = []
    _collect(node, 0, False, found)
    return found


def _collect(node: Expr, reach_ms: int, pinned: bool, found: list[Selector]) -> None:
    match node:
        case VectorSelector():
            found.append(_selector(node, node, 0, reach_ms, pinned))
        case MatrixSelector():
            found.append(_selector(node, node.vector, node.range_ms, reach_ms, pinned))
        case Subquery():
            below = reach_ms + node.range_ms + node.offset_ms
            _collect(node.expr, below, pinned or node.at is not None, found)
        case _:
            for child in children(node):
                _collect(child, reach_ms, pinned, found)


def _selector(place: Expr, node: VectorSelector, range_ms: int, reach_ms: int, pinned: bool) -> Selector:
    reach = None if pinned or node.at is not None else reach_ms + range_ms + node.offset_ms
    return Selector(node.name, node.matchers, range_ms, reach, place.start, place.end)
