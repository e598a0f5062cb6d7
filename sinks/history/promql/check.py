"""Types and counts: refuse what parses but means nothing. Each function raises ParseError at the fault."""

from typing import Final

from sinks.history.promql import lexer
from sinks.history.promql.ast import (
    AGGREGATORS,
    COMPARISONS,
    MATRIX,
    SCALAR,
    SET_OPERATORS,
    STRING,
    VECTOR,
    Aggregate,
    Binary,
    Call,
    Expr,
    MatrixSelector,
    ValueType,
    VectorSelector,
    unwrapped,
    value_type,
)
from sinks.history.promql.lexer import Token
from sinks.history.promql.signatures import SIGNATURES, Signature

_RANGE_HINT: Final = "append a range such as [5m]"


def did_you_mean(name: str) -> str:
    """A hint with the nearest function or aggregation, "" where none is near."""
    import difflib  # 0.2 MB that only a mistake needs

    near = difflib.get_close_matches(name[:60].lower(), [*SIGNATURES, *AGGREGATORS], n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def _expect(text: str, node: Expr, wanted: ValueType, where: str) -> None:
    found = value_type(node)
    if found == wanted:
        return
    hint = ""
    if wanted == MATRIX and found == VECTOR:
        hint = _RANGE_HINT if isinstance(unwrapped(node), VectorSelector) else "append a subquery such as [5m:1m]"
    elif wanted == VECTOR and found == MATRIX:
        hint = "wrap it in a function of a range, such as rate or avg_over_time"
    elif wanted == VECTOR and found == SCALAR:
        hint = "vector(...) makes one of a scalar"
    raise lexer.error(text, node.start, f"found {_a(found)} {where}, expected {_a(wanted)}", hint)


def _a(kind: ValueType) -> str:
    return f"an {kind}" if kind == VECTOR else f"a {kind}"


def call(text: str, node: Call, signature: Signature) -> None:
    """Arguments in number and type."""
    count, most = len(node.args), signature.most
    if count < signature.least or (most is not None and count > most):
        wanted = str(signature.least) if most == signature.least else f"at least {signature.least}"
        if most is not None and most != signature.least:
            wanted = f"{signature.least} to {most}"
        raise lexer.error(text, node.start, f"found {count} argument(s) for {node.func}, expected {wanted}")
    for index, arg in enumerate(node.args):
        _expect(text, arg, signature.type_of(index), f"as argument {index + 1} of {node.func}")


def aggregate(text: str, node: Aggregate) -> None:
    """What is aggregated is an instant vector; the parameter is a scalar, for count_values a text."""
    _expect(text, node.expr, VECTOR, f"in {node.op}")
    if node.param is not None:
        _expect(text, node.param, STRING if node.op == "count_values" else SCALAR, f"as parameter of {node.op}")


def unary(text: str, operand: Expr, sign: Token) -> None:
    """A sign before a number or a vector."""
    found = value_type(operand)
    if found not in {SCALAR, VECTOR}:
        raise lexer.error(
            text, sign.start, f"found {sign.kind!r} before {_a(found)}, expected a scalar or an instant vector"
        )


def binary(text: str, node: Binary, operator: Token, has_matching: bool) -> None:
    """Operand types, `bool` between scalars, and matching clauses where they have a meaning."""
    kinds = value_type(node.lhs), value_type(node.rhs)
    for kind, side in zip(kinds, (node.lhs, node.rhs), strict=True):
        if kind not in {SCALAR, VECTOR}:
            message = f"found {_a(kind)} beside {node.op!r}, expected a scalar or an instant vector"
            raise lexer.error(text, side.start, message)
    at = operator.start
    if kinds == (SCALAR, SCALAR) and node.op in COMPARISONS and not node.return_bool:
        hint = f"write {node.op} bool"
        raise lexer.error(text, at, "comparisons between scalars must use BOOL modifier", hint)
    if node.op in SET_OPERATORS:
        if SCALAR in kinds:
            raise lexer.error(text, at, f"found a scalar beside {node.op!r}, expected instant vectors on both sides")
        if node.matching.group:
            raise lexer.error(text, at, f"found group_{node.matching.group} with {node.op!r}, which never groups")
    if has_matching and kinds != (VECTOR, VECTOR):
        raise lexer.error(text, at, "vector matching only allowed between instant vectors")
    if node.matching.on:
        for name in node.matching.include:
            if name in node.matching.labels:
                raise lexer.error(text, at, f"label {name!r} must not occur in ON and GROUP clause at once")


def matrix(text: str, expr: Expr, opening: Token) -> None:
    """A range follows a selector without modifiers."""
    if not isinstance(expr, VectorSelector):
        hint = "a range after an expression is a subquery: write [5m:1m]"
        if isinstance(expr, MatrixSelector):
            hint = "one range is enough"
        raise lexer.error(text, opening.start, "ranges are only allowed after vector selectors", hint)
    if expr.offset_ms or expr.at is not None:
        raise lexer.error(text, opening.start, "found a range after offset or @, expected it before them")


def subquery(text: str, expr: Expr, opening: Token) -> None:
    """A subquery repeats an instant vector; a scalar has no history."""
    kind = value_type(expr)
    if kind != VECTOR:
        raise lexer.error(text, opening.start, f"found a subquery of {_a(kind)}, expected one of an instant vector")
