"""Recursive descent from tokens to nodes, all of PromQL except experimental syntax. Errors name place and remedy."""

import math
from functools import lru_cache
from typing import Final, Literal

from sinks.history.promql import check, lexer
from sinks.history.promql.ast import (
    AGGREGATORS,
    AGGREGATORS_WITH_PARAMETER,
    COMPARISONS,
    Aggregate,
    At,
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
    children,
)
from sinks.history.promql.lexer import Token
from sinks.history.promql.selector_text import SelectorParser
from sinks.history.promql.signatures import LEFT_OUT, SIGNATURES

MAX_HEIGHT: Final = 100  # levels; each takes up to five frames of the interpreter's thousand, callers need theirs

_PRECEDENCE: Final = {
    "or": 1, "and": 2, "unless": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "+": 4, "-": 4,
    "*": 5, "/": 5, "%": 5, "atan2": 5, "^": 6,
}  # fmt: skip
_POWER: Final = 6
_REMEMBERED_LENGTH: Final = 4096  # characters; longer texts are rare and their trees large
NEVER_A_METRIC: Final = frozenset({"bool", "on", "ignoring", "group_left", "group_right", "atan2", "inf", "nan"})


def parse(text: str) -> Expr:
    """The query as a tree; callers share it and must not change it. Raise ParseError."""
    return _remembered(text) if len(text) <= _REMEMBERED_LENGTH else _Parser(text).query()


@lru_cache(maxsize=2048)  # a thousand rules, evaluated in turn, must not evict each other
def _remembered(text: str) -> Expr:
    return _Parser(text).query()


class _Parser(SelectorParser):
    """One pass over the tokens of one text."""

    def query(self) -> Expr:
        if self.now.kind == "end":
            raise self.wrong("found no expression, expected a query")
        expr = self.expression(1)
        if self.now.kind != "end":
            raise self.wrong(f"found {self.shown()}, expected an operator or the end of the query", self._end_hint())
        return expr

    def _end_hint(self) -> str:
        if self.now.kind == "=":
            return "comparison is written =="
        if self.now.kind == "word" and self.now.text.lower() in {"anchored", "smoothed", "fill"}:
            return f"{self.now.text} is not supported"
        return ""

    def expression(self, least: int) -> Expr:
        """An expression of operators that bind at least as tightly as `least`."""
        self.deeper()
        left = self._operand()
        while True:
            operator = self.now.text.lower() if self.now.kind == "word" else self.now.kind
            precedence = _PRECEDENCE.get(operator, 0)
            if precedence < least or precedence == 0:
                self.depth -= 1
                return left
            token = self.take()
            return_bool, matching, has_matching = self._modifiers(operator)
            right = self.expression(precedence if operator == "^" else precedence + 1)
            node = Binary(operator, left, right, return_bool, matching, start=left.start, end=right.end)
            check.binary(self.text, node, token, has_matching)
            left = self.placed(node)

    def placed(self, node: Expr) -> Expr:
        """The node with its height noted. Raise ParseError where the tree grows too high to walk."""
        node.height = 1 + max((child.height for child in children(node)), default=0)
        if node.height > MAX_HEIGHT:
            raise self.wrong_at(
                node.start, f"expression is nested more than {MAX_HEIGHT} deep", "split it by a recording rule"
            )
        return node

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_HEIGHT:
            raise self.wrong(f"expression is nested more than {MAX_HEIGHT} deep", "split it by a recording rule")

    def _operand(self) -> Expr:
        if self.now.kind not in {"+", "-"}:
            return self._with_suffixes(self._primary())
        sign = self.take()
        inner = self.expression(_POWER)
        op: Literal["+", "-"] = "+" if sign.kind == "+" else "-"
        check.unary(self.text, inner, sign)
        if isinstance(inner, NumberLiteral):
            return NumberLiteral(inner.value if op == "+" else -inner.value, start=sign.start, end=inner.end)
        return self.placed(Unary(op, inner, start=sign.start, end=inner.end))

    # -- operators -------------------------------------------------------------------------------------------------

    def _modifiers(self, operator: str) -> tuple[bool, Matching, bool]:
        return_bool = False
        if self.word("bool"):
            if operator not in COMPARISONS:
                raise self.wrong(f"found bool after {operator!r}, expected it after a comparison only")
            self.take()
            return_bool = True
        if not (self.word("on") or self.word("ignoring")):
            if self.word("group_left") or self.word("group_right"):
                raise self.wrong(f"found {self.shown()}, expected on(...) or ignoring(...) before it")
            self._refuse_fill()
            return return_bool, Matching(), False
        on = self.take().text.lower() == "on"
        names = self.label_list()
        group: Literal["", "left", "right"] = ""
        include: tuple[str, ...] = ()
        if self.word("group_left") or self.word("group_right"):
            group = "left" if self.take().text.lower() == "group_left" else "right"
            if self.now.kind == "(":
                include = self.label_list()
        self._refuse_fill()
        return return_bool, Matching(on, names, group, include), True

    def _refuse_fill(self) -> None:
        if self.now.kind == "word" and self.now.text.lower() in {"fill", "fill_left", "fill_right"} and self.peek("("):
            raise self.unsupported(f"{self.now.text} is not supported", "use `or` with a default")

    # -- primary expressions ---------------------------------------------------------------------------------------

    def _primary(self) -> Expr:
        token = self.now
        match token.kind:
            case "(":
                self.take()
                inner = self.expression(1)
                closing = self.expect(")")
                return self.placed(Paren(inner, start=token.start, end=closing.end))
            case "number" | "duration":
                self.take()
                return NumberLiteral(float(token.value), start=token.start, end=token.end)
            case "string":
                self.take()
                return StringLiteral(str(token.value), start=token.start, end=token.end)
            case "{":
                return self.selector(None)
            case "word":
                return self._word()
        raise self.wrong(f"found {self.shown()}, expected an expression")

    def _word(self) -> Expr:
        token = self.now
        lower = token.text.lower()
        if lower in {"limitk", "limit_ratio"} and (self.peek("(") or self.peek_word("by", "without")):
            raise self.unsupported(f"{token.text} is not supported", LEFT_OUT[lower])
        if lower in AGGREGATORS and (self.peek("(") or self.peek_word("by", "without")):
            return self._aggregate()
        if self.peek("("):
            return self._call()
        if lower in {"inf", "nan"}:
            self.take()
            return NumberLiteral(math.inf if lower == "inf" else math.nan, start=token.start, end=token.end)
        if lower in NEVER_A_METRIC:
            raise self.wrong(
                f"found the keyword {token.text!r}, expected an expression", f'write {{"{token.text}"}} for a metric'
            )
        self.take()
        return self.selector(token)

    def _aggregate(self) -> Expr:
        token = self.take()
        op = token.text.lower()
        clause = self._grouping()
        opening = self.expect("(")
        args = self._arguments()
        closing = self.expect(")")
        end = closing.end
        if clause is None:
            clause = self._grouping()
            if clause is not None:
                end = self.before.end
        wanted = 2 if op in AGGREGATORS_WITH_PARAMETER else 1
        if len(args) != wanted:
            example = f"{op}({'parameter, ' if wanted == 2 else ''}vector)"
            raise self.wrong_at(
                opening.start, f"found {len(args)} argument(s) for {op}, expected {wanted}", f"write {example}"
            )
        param = args[0] if wanted == 2 else None
        without, names = clause or (False, ())
        node = Aggregate(op, args[-1], param, names, without, clause is not None, start=token.start, end=end)
        check.aggregate(self.text, node)
        return self.placed(node)

    def _grouping(self) -> tuple[bool, tuple[str, ...]] | None:
        """`by (...)` or `without (...)`: is it without, and which labels; None where there is none."""
        if not (self.word("by") or self.word("without")):
            return None
        without = self.take().text.lower() == "without"
        return without, self.label_list()

    def _call(self) -> Expr:
        token = self.take()
        signature = SIGNATURES.get(token.text)
        if signature is None:
            self.now, self.index = token, self.index - 1
            if token.text in LEFT_OUT:
                raise self.unsupported(f"{token.text} is not supported", LEFT_OUT[token.text])
            raise self.wrong(f"found {token.text!r}, which is no function", check.did_you_mean(token.text))
        self.expect("(")
        args = self._arguments()
        closing = self.expect(")")
        node = Call(token.text, args, signature.returns, start=token.start, end=closing.end)
        check.call(self.text, node, signature)
        return self.placed(node)

    def _arguments(self) -> tuple[Expr, ...]:
        found: list[Expr] = []
        while self.now.kind != ")":
            found.append(self.expression(1))
            if self.now.kind != ",":
                break
            comma = self.take()
            if self.now.kind == ")":
                raise self.wrong_at(comma.start, "found ',' before ')', expected another argument or no comma")
        return tuple(found)

    # -- what follows an expression: [range], [range:step], offset, @ ----------------------------------------------

    def _with_suffixes(self, expr: Expr) -> Expr:
        levels = 0
        while True:
            if self.now.kind == "[":
                expr = self._brackets(expr)
            elif self.word("offset"):
                expr = self._offset(expr)
            elif self.now.kind == "@":
                expr = self._at(expr)
            else:
                return expr
            levels += 1
            if levels > MAX_HEIGHT:
                raise self.wrong("found more modifiers than any query needs, expected an operator or the end")

    def _brackets(self, expr: Expr) -> Expr:
        opening = self.take()
        range_ms = self._positive_duration("a range")
        if self.now.kind != ":":
            closing = self._closing_bracket()
            check.matrix(self.text, expr, opening)
            assert isinstance(expr, VectorSelector)
            return self.placed(MatrixSelector(expr, range_ms, start=expr.start, end=closing.end))
        self.take()
        step_ms = None if self.now.kind == "]" else self._positive_duration("a step")
        closing = self._closing_bracket()
        check.subquery(self.text, expr, opening)
        return self.placed(Subquery(expr, range_ms, step_ms, start=expr.start, end=closing.end))

    def _closing_bracket(self) -> Token:
        if self.now.kind in {"+", "-", "*", "/", "%", "^"}:
            raise self.unsupported(f"found {self.shown()}, expected ']'", "arithmetic on durations is not supported")
        return self.expect("]")

    def _positive_duration(self, what: str) -> int:
        token = self.now
        milliseconds = self._duration(what)
        if milliseconds <= 0:
            raise self.wrong_at(token.start, f"found {what} of {token.text}, expected more than 0")
        return milliseconds

    def _duration(self, what: str) -> int:
        token = self.now
        if token.kind == "duration":
            self.take()
            return lexer.duration_ms(self.text, token.start, token.text)
        if token.kind == "number":
            self.take()
            return self._milliseconds(token)
        if token.kind in {"(", "+", "-"} or (token.kind == "word" and self.peek("(")):
            raise self.unsupported(
                f"found {self.shown()}, expected {what} such as 5m", "duration expressions are not supported"
            )
        raise self.wrong(f"found {self.shown()}, expected {what} such as 5m")

    def _milliseconds(self, token: Token) -> int:
        seconds = float(token.value)
        if not abs(seconds) < 292 * 31_536_000:
            raise self.wrong_at(token.start, f"found {token.text}, a duration above 292 years")
        return round(seconds * 1000)

    def _sign(self) -> int:
        if self.now.kind in {"+", "-"}:
            return -1 if self.take().kind == "-" else 1
        return 1

    def _offset(self, expr: Expr) -> Expr:
        token = self.take()
        sign = self._sign()
        milliseconds = sign * self._duration("an offset")
        target = self._modified(expr, token, "offset")
        if target.offset_ms:
            raise self.wrong_at(token.start, "found a second offset, expected one")
        target.offset_ms = milliseconds
        expr.end = target.end = self.before.end
        return expr

    def _at(self, expr: Expr) -> Expr:
        token = self.take()
        moment: At
        if self.word("start") or self.word("end"):
            moment = "start" if self.take().text.lower() == "start" else "end"
            self.expect("(")
            self.expect(")")
        else:
            moment = self._timestamp()
        target = self._modified(expr, token, "@")
        if target.at is not None:
            raise self.wrong_at(token.start, "found a second @, expected one")
        target.at = moment
        expr.end = target.end = self.before.end
        return expr

    def _timestamp(self) -> int:
        sign = self._sign()
        token = self.now
        if token.kind == "word" and token.text.lower() in {"inf", "nan"}:
            raise self.wrong(f"found @ {token.text}, a timestamp out of bounds")
        if token.kind not in {"number", "duration"}:
            raise self.wrong(f"found {self.shown()}, expected a Unix time in seconds, start() or end()")
        self.take()
        seconds = float(token.value)
        if not seconds < 9.2e15:
            raise self.wrong_at(token.start, f"found @ {token.text}, a timestamp out of bounds")
        return sign * round(seconds * 1000)

    def _modified(self, expr: Expr, token: Token, what: str) -> VectorSelector | Subquery:
        """The selector or subquery that the modifier belongs to. Raise ParseError for anything else."""
        if isinstance(expr, MatrixSelector):
            return expr.vector
        if isinstance(expr, (VectorSelector, Subquery)):
            return expr
        raise self.wrong_at(
            token.start, f"found {what} after an expression, expected it right after a selector or a subquery"
        )
