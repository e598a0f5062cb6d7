"""The nodes of a parsed query.

Durations are milliseconds; `start` and `end` are offsets into the text, end exclusive.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from agent.core.labels import Matcher

ValueType: TypeAlias = Literal["scalar", "string", "instant vector", "range vector"]
At: TypeAlias = int | Literal["start", "end"] | None

SCALAR: Final[ValueType] = "scalar"
STRING: Final[ValueType] = "string"
VECTOR: Final[ValueType] = "instant vector"
MATRIX: Final[ValueType] = "range vector"

COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
SET_OPERATORS: Final = frozenset({"and", "or", "unless"})
AGGREGATORS: Final = frozenset(
    {"sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values"}
)
AGGREGATORS_WITH_PARAMETER: Final = frozenset({"topk", "bottomk", "quantile", "count_values"})


@dataclass(slots=True, kw_only=True)
class Node:
    """What every node has: its place in the text, and how many levels lie below it."""

    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)
    height: int = field(default=0, compare=False)


@dataclass(slots=True)
class NumberLiteral(Node):
    value: float


@dataclass(slots=True)
class StringLiteral(Node):
    value: str


@dataclass(slots=True)
class VectorSelector(Node):
    """`matchers` include the one on the metric name where the text gives one (`name`)."""

    name: str
    matchers: tuple[Matcher, ...]
    offset_ms: int = 0
    at: At = None


@dataclass(slots=True)
class MatrixSelector(Node):
    vector: VectorSelector
    range_ms: int


@dataclass(slots=True)
class Subquery(Node):
    """`step_ms` is None where the text leaves it to the engine's default."""

    expr: "Expr"
    range_ms: int
    step_ms: int | None
    offset_ms: int = 0
    at: At = None


@dataclass(slots=True)
class Paren(Node):
    expr: "Expr"


@dataclass(slots=True)
class Unary(Node):
    op: Literal["+", "-"]
    expr: "Expr"


@dataclass(slots=True, frozen=True)
class Matching:
    """`on` or `ignoring` these labels; `group` is the "many" side, whose labels win, plus those of `include`."""

    on: bool = False
    labels: tuple[str, ...] = ()
    group: Literal["", "left", "right"] = ""
    include: tuple[str, ...] = ()


@dataclass(slots=True)
class Binary(Node):
    op: str
    lhs: "Expr"
    rhs: "Expr"
    return_bool: bool = False
    matching: Matching = Matching()


@dataclass(slots=True)
class Aggregate(Node):
    op: str
    expr: "Expr"
    param: "Expr | None" = None
    grouping: tuple[str, ...] = ()
    without: bool = False
    grouped: bool = False  # the text has a `by` or `without`, were it empty


@dataclass(slots=True)
class Call(Node):
    func: str
    args: "tuple[Expr, ...]"
    returns: ValueType


Expr: TypeAlias = (
    NumberLiteral
    | StringLiteral
    | VectorSelector
    | MatrixSelector
    | Subquery
    | Paren
    | Unary
    | Binary
    | Aggregate
    | Call
)


def value_type(node: Expr) -> ValueType:
    """The type of the value a node yields."""
    while isinstance(node, (Paren, Unary)):
        node = node.expr
    match node:
        case NumberLiteral():
            return SCALAR
        case StringLiteral():
            return STRING
        case MatrixSelector() | Subquery():
            return MATRIX
        case Call():
            return node.returns
        case Binary():
            both_scalar = value_type(node.lhs) == SCALAR and value_type(node.rhs) == SCALAR
            return SCALAR if both_scalar else VECTOR
        case _:
            return VECTOR


def children(node: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside a node, in the order of the text."""
    match node:
        case Paren() | Unary() | Subquery():
            return (node.expr,)
        case MatrixSelector():
            return (node.vector,)
        case Binary():
            return (node.lhs, node.rhs)
        case Aggregate():
            return (node.expr,) if node.param is None else (node.param, node.expr)
        case Call():
            return node.args
        case _:
            return ()


def walk(node: Expr) -> Iterator[Expr]:
    """The node and everything below it, parents first."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(reversed(children(current)))


def unwrapped(node: Expr) -> Expr:
    """The node inside any parentheses."""
    while isinstance(node, Paren):
        node = node.expr
    return node
