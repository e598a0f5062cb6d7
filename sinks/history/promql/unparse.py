"""A parsed query back to text: one spacing, parentheses as they were written. Parsing the text gives the same tree."""

import re
from typing import Final

from agent.core.labels import METRIC_NAME, Matcher, quote
from sinks.history.promql.ast import (
    Aggregate,
    Binary,
    Call,
    Expr,
    Matching,
    MatrixSelector,
    NumberLiteral,
    Paren,
    StringLiteral,
    Subquery,
    Unary,
    VectorSelector,
)
from sinks.history.promql.numbers import general
from sinks.history.promql.parser import NEVER_A_METRIC

_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METRIC: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def unparse(node: Expr) -> str:
    """The query as text."""
    match node:
        case NumberLiteral():
            return general(node.value)
        case StringLiteral():
            return quote(node.value)
        case VectorSelector():
            return _selector(node) + _modifiers(node)
        case MatrixSelector():
            return f"{_selector(node.vector)}[{duration(node.range_ms)}]{_modifiers(node.vector)}"
        case Subquery():
            step = "" if node.step_ms is None else duration(node.step_ms)
            return f"{unparse(node.expr)}[{duration(node.range_ms)}:{step}]{_modifiers(node)}"
        case Paren():
            return f"({unparse(node.expr)})"
        case Unary():
            return f"{node.op}{unparse(node.expr)}"
        case Binary():
            between = f"{node.op}{' bool' if node.return_bool else ''}{_matching(node.matching)}"
            return f"{unparse(node.lhs)} {between} {unparse(node.rhs)}"
        case Aggregate():
            args = unparse(node.expr) if node.param is None else f"{unparse(node.param)}, {unparse(node.expr)}"
            clause = f" {'without' if node.without else 'by'} ({_names(node.grouping)}) " if node.grouped else ""
            return f"{node.op}{clause}({args})"
        case Call():
            return f"{node.func}({', '.join(unparse(arg) for arg in node.args)})"


def duration(milliseconds: int) -> str:
    """A duration as PromQL writes it, such as 1h30m; 0s for none."""
    parts, rest = [], abs(milliseconds)
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if milliseconds < 0 else "") + ("".join(parts) or "0s")


def _name(name: str) -> str:
    return name if _LABEL.fullmatch(name) else quote(name)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(_name(name) for name in names)


def _matcher(matcher: Matcher) -> str:
    return f"{_name(matcher.name)}{matcher.op}{quote(matcher.value)}"


def _selector(node: VectorSelector) -> str:
    equal = [matcher for matcher in node.matchers if matcher.name == METRIC_NAME and matcher.op == "="]
    bare = len(equal) == 1 and _METRIC.fullmatch(equal[0].value) and equal[0].value.lower() not in NEVER_A_METRIC
    if not bare:
        return "{" + ", ".join(_matcher(matcher) for matcher in node.matchers) + "}"
    rest = ", ".join(_matcher(matcher) for matcher in node.matchers if matcher is not equal[0])
    return equal[0].value + (f"{{{rest}}}" if rest else "")


def _modifiers(node: VectorSelector | Subquery) -> str:
    text = ""
    if node.at is not None:
        text += f" @ {node.at}()" if isinstance(node.at, str) else f" @ {_seconds(node.at)}"
    if node.offset_ms:
        text += f" offset {duration(node.offset_ms)}"
    return text


def _seconds(milliseconds: int) -> str:
    whole, rest = divmod(abs(milliseconds), 1000)
    return f"{'-' if milliseconds < 0 else ''}{whole}.{rest:03d}"


def _matching(matching: Matching) -> str:
    text = ""
    if matching.on or matching.labels or matching.group:
        text = f" {'on' if matching.on else 'ignoring'} ({_names(matching.labels)})"
    if matching.group:
        text += f" group_{matching.group} ({_names(matching.include)})"
    return text
