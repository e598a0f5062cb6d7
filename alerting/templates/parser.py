"""Tokens to nodes: a recursive-descent parser of Go's template grammar. Facts: the documentation of text/template."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable

from alerting.templates.lexer import Token, tokens, where
from alerting.templates.nodes import (
    Action,
    Branch,
    Call,
    Command,
    Dot,
    Fields,
    Function,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
    Tree,
    Variable,
)
from alerting.templates.values import TemplateError

_DEEPEST = 100  # blocks and parentheses inside one another


def parse(template: str, functions: Collection[str], variables: Iterable[str] = ()) -> Tree:
    """The template as nodes. `functions` and `variables` ("$value") are the names it may use. Raise TemplateError."""
    parser = _Parser(template, functions, variables)
    body, ended_by = parser.nodes()
    if ended_by.kind != "eof":
        raise parser.error(ended_by, f"'{ended_by.kind}' without the block it belongs to")
    return Tree(template, body, parser.defined)


class _Parser:
    def __init__(self, template: str, functions: Collection[str], variables: Iterable[str]) -> None:
        self.template = template
        self.functions = functions
        self.tokens = list(tokens(template))
        self.at = 0
        self.depth = 0
        self.range_depth = 0
        self.variables = ["$", *variables]
        self.defined: dict[str, tuple[Node, ...]] = {}

    def error(self, token: Token, message: str) -> TemplateError:
        return TemplateError(f"{where(self.template, token.at)}: {message}")

    def next(self) -> Token:
        token = self.tokens[self.at]
        self.at += token.kind != "eof"
        return token

    def peek(self) -> Token:
        return self.tokens[self.at]

    def skip_space(self) -> None:
        while self.peek().kind == "space":
            self.at += 1

    def next_word(self) -> Token:
        self.skip_space()
        return self.next()

    def expect(self, kind: str, wanted: str) -> Token:
        token = self.next_word()
        if token.kind != kind:
            raise self.error(token, f"found {_shown(token)}; expected {wanted}")
        return token

    # Blocks.

    def nodes(self) -> tuple[tuple[Node, ...], Token]:
        """Nodes up to `end`, `else` or the end of the text, and the token that ended them (its `{{` consumed)."""
        found: list[Node] = []
        while True:
            token = self.next()
            if token.kind == "eof":
                return tuple(found), token
            if token.kind == "text":
                found.append(Text(token.text))
                continue
            self.skip_space()
            word = self.peek()
            if word.kind in {"end", "else"}:
                self.at += 1
                return tuple(found), word
            node = self.action(token)
            if node is not None:
                found.append(node)

    def action(self, left: Token) -> Node | None:
        word = self.peek()
        if word.kind in {"if", "with", "range"}:
            self.at += 1
            return self.branch(word)
        if word.kind == "define":
            self.at += 1
            self._define(word)
            return None
        if word.kind in {"block", "template"}:
            self.at += 1
            return self._block(word) if word.kind == "block" else self._template(word)
        if word.kind in {"break", "continue"}:
            self.at += 1
            self.expect("right", "'}}'")
            if not self.range_depth:
                raise self.error(word, f"'{word.kind}' outside of a range")
            return Leave(word.kind)
        return Action(self.pipeline("right", "action"), left.at)

    def branch(self, word: Token) -> Branch:
        with _Deeper(self, word):
            known = len(self.variables)
            pipeline = self.pipeline("right", word.kind)
            self.range_depth += word.kind == "range"
            body, ended_by = self.nodes()
            self.range_depth -= word.kind == "range"
            otherwise: tuple[Node, ...] = ()
            if ended_by.kind == "else":
                self.skip_space()
                if self.peek().kind == word.kind != "range":  # one {{end}} closes the whole chain of else if
                    otherwise = (self.branch(self.next()),)
                    del self.variables[known:]
                    return Branch(word.kind, pipeline, body, otherwise, word.at)
                self.expect("right", "'}}'")
                otherwise, ended_by = self.nodes()
            self._closed(word, ended_by)
            del self.variables[known:]
            return Branch(word.kind, pipeline, body, otherwise, word.at)

    def _closed(self, word: Token, ended_by: Token) -> None:
        if ended_by.kind == "eof":
            raise self.error(word, f"'{word.kind}' without its '{{{{end}}}}'")
        if ended_by.kind == "else":
            raise self.error(ended_by, "found 'else'; expected '{{end}}'")
        self.expect("right", "'}}'")

    def _define(self, word: Token) -> None:
        name = self._name()
        self.expect("right", "'}}'")
        self.defined[name] = self._body_of(word)

    def _block(self, word: Token) -> Call:
        name = self._name()
        pipeline = self.pipeline("right", "block")
        self.defined[name] = self._body_of(word)
        return Call(name, pipeline, word.at)

    def _body_of(self, word: Token) -> tuple[Node, ...]:
        with _Deeper(self, word):
            outer, self.variables = self.variables, ["$"]
            body, ended_by = self.nodes()
            self._closed(word, ended_by)
            self.variables = outer
            return body

    def _template(self, word: Token) -> Call:
        name = self._name()
        self.skip_space()
        if self.peek().kind == "right":
            self.at += 1
            return Call(name, None, word.at)
        return Call(name, self.pipeline("right", "template"), word.at)

    def _name(self) -> str:
        token = self.next_word()
        if token.kind not in {"string", "raw"}:
            raise self.error(token, f"found {_shown(token)}; expected the template's name in quotes")
        return _unquote(self, token)

    # Pipelines.

    def pipeline(self, ends_with: str, context: str) -> Pipeline:
        self.skip_space()
        declares, is_assignment = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self.next_word()
            if token.kind == ends_with:
                break
            if token.kind in {"right", "close", "eof", "pipe", "declare", "assign", "comma"}:
                raise self.error(token, f"found {_shown(token)} in {context}; expected a value")
            self.at -= 1
            commands.append(self.command(context))
        if not commands:
            raise self.error(self.peek(), f"missing value for {context}")
        for command in commands[1:]:
            if isinstance(command.words[0], (Literal, Dot)):
                raise TemplateError(
                    f"{where(self.template, command.at)}: a constant takes no argument; after '|' stands a function"
                )
        self.variables += declares if not is_assignment else ()
        return Pipeline(tuple(commands), declares, is_assignment)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or `$i, $x :=` at the start; else nothing is consumed."""
        start, names = self.at, []
        while True:
            token = self.next_word()
            if token.kind != "variable":
                break
            names.append(token.text)
            token = self.next_word()
            if token.kind in {"declare", "assign"}:
                if token.kind == "assign":
                    self._known(names, token)
                return tuple(names), token.kind == "assign"
            if token.kind != "comma" or context != "range" or len(names) == 2:
                break
        self.at = start
        return (), False

    def _known(self, names: list[str], token: Token) -> None:
        for name in names:
            if name not in self.variables:
                raise self.error(token, f"undefined variable {name!r}")

    def command(self, context: str) -> Command:
        start = self.peek().at
        words: list[Operand] = []
        while True:
            self.skip_space()
            operand = self.operand()
            if operand is not None:
                words.append(operand)
            token = self.next()
            if token.kind == "space":
                continue
            if token.kind in {"right", "close"}:
                self.at -= 1
            elif token.kind == "pipe":
                pass  # Go takes a pipe with nothing behind it for no pipe
            else:
                raise self.error(token, f"found {_shown(token)} in {context}; a space or '|' would be right")
            break
        if not words:
            raise self.error(self.peek(), f"missing value for {context}")
        return Command(tuple(words), start)

    def operand(self) -> Operand | None:
        term = self.term()
        if term is None or self.peek().kind != "field":
            return term
        fields = self._fields()
        if isinstance(term, Variable):
            return Variable(term.name, term.fields + fields)
        if isinstance(term, Fields):
            return Fields(term.fields + fields, term.of)
        if isinstance(term, Literal):
            raise self.error(self.tokens[self.at - 1], f"found {fields[0]!r} after a constant")
        return Fields(fields, None if isinstance(term, Dot) else term)

    def _fields(self) -> tuple[str, ...]:
        found = []
        while self.peek().kind == "field":
            found.append(self.next().text[1:])
        return tuple(found)

    def term(self) -> Operand | None:
        token = self.next()
        if token.kind == "word":
            if token.text not in self.functions:
                raise self.error(token, f"function {token.text!r} not defined")
            return Function(token.text)
        if token.kind == "dot":
            return Dot()
        if token.kind == "field":
            return Fields((token.text[1:],))
        if token.kind == "variable":
            self._known([token.text], token)
            return Variable(token.text)
        if token.kind in {"string", "raw", "char", "number", "true", "false", "nil"}:
            return Literal(_constant(self, token))
        if token.kind == "open":
            with _Deeper(self, token):
                return self.pipeline("close", "parentheses")
        self.at -= token.kind != "eof"
        return None


class _Deeper:
    """Counts nesting. Raise TemplateError before Python's own stack ends."""

    def __init__(self, parser: _Parser, token: Token) -> None:
        self.parser = parser
        self.token = token

    def __enter__(self) -> None:
        self.parser.depth += 1
        if self.parser.depth > _DEEPEST:
            raise self.parser.error(self.token, f"more than {_DEEPEST} blocks or parentheses inside one another")

    def __exit__(self, *_: object) -> None:
        self.parser.depth -= 1


def _shown(token: Token) -> str:
    return "the end of the template" if token.kind == "eof" else repr(token.text)


_ESCAPE = re.compile(r"\\(?:[abfnrtv\\'\"]|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")


def _unquote(parser: _Parser, token: Token) -> str:
    """Go's string and character literals; `\\xNN` and octal escapes are bytes of UTF-8."""
    if token.kind == "raw":
        return token.text[1:-1].replace("\r", "")
    inner = token.text[1:-1]
    at, out = 0, b""
    while at < len(inner):
        if inner[at] != "\\":
            out += inner[at].encode("utf-8", "surrogatepass")
            at += 1
            continue
        match = _ESCAPE.match(inner, at)
        if match is None:
            raise parser.error(token, f"{inner[at : at + 2]!r} is not an escape; write a backslash as \\\\")
        escape = match[0]
        if escape[1] in "x01234567":
            out += bytes([int(f"0{escape[1:]}", 16 if escape[1] == "x" else 8) & 0xFF])
        else:
            out += str(ast.literal_eval(f'"{escape}"')).encode("utf-8", "surrogatepass")
        at = match.end()
    return out.decode("utf-8", "surrogateescape")


def _constant(parser: _Parser, token: Token) -> object:
    if token.kind in {"true", "false", "nil"}:
        return {"true": True, "false": False, "nil": None}[token.kind]
    if token.kind in {"string", "raw"}:
        return _unquote(parser, token)
    if token.kind == "char":
        text = _unquote(parser, token)
        if len(text) != 1:
            raise parser.error(token, f"{token.text} is not one character")
        return ord(text)
    digits = token.text.replace("_", "")
    try:
        is_float = digits.lower().lstrip("+-")[:2] not in {"0x", "0b", "0o"} and any(c in digits for c in ".eE")
        number = float(digits) if is_float else _integer(digits)
    except (ValueError, OverflowError) as error:
        raise parser.error(token, f"{token.text!r} is not a number") from error
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise parser.error(token, f"{token.text} does not fit 64 bits")
    return number


def _integer(digits: str) -> int:
    bare = digits.lstrip("+-")
    if len(bare) > 1 and bare[0] == "0" and bare.isdigit():
        return int(digits, 8)  # a leading zero means octal in Go
    return int(digits, 0)
