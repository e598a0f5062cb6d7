"""Templates carried out: what rules and messages call.

Template(text).expand(alert_data(labels, value), Helpers(query=..., external_url=...))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from agent.core.labels import Labels
from agent.core.query import QueryError
from alerting.templates.builtins import Callee
from alerting.templates.functions import FUNCTIONS
from alerting.templates.goformat import show
from alerting.templates.lexer import where
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
from alerting.templates.parser import parse
from alerting.templates.values import StringMap, Struct, TemplateError, is_true, type_name

_DEEPEST_CALL = 50  # templates that call one another
_MOST_CHARACTERS = 1_000_000  # of one expansion; an annotation of this size is a mistake
_MOST_STEPS = 200_000  # nodes carried out by one expansion

_RULE_VARIABLES = {"$labels": "Labels", "$externalLabels": "ExternalLabels", "$externalURL": "ExternalURL",
                   "$value": "Value"}  # fmt: skip
_OF_THE_AGENT = ("query", "externalURL", "pathPrefix", "tmpl", "now")

Query = Callable[[str], Iterable[tuple[Labels, float]]]


def _no_query(expression: str) -> Iterable[tuple[Labels, float]]:
    raise TemplateError(f"query {expression!r}: there is nothing to ask here")


@dataclass(frozen=True, slots=True)
class Helpers:
    """What a template asks the agent for. `query` answers PromQL at the alert's moment, or raises QueryError."""

    query: Query = _no_query
    external_url: str = ""
    now: float = 0.0  # Unix seconds of the evaluation


NO_HELPERS = Helpers()


def alert_data(labels: Labels, value: float, external_labels: Labels = (), external_url: str = "") -> Struct:
    """What the templates of a rule see: `.Labels`, `.Value`, `$labels` and the others."""
    return Struct("struct { Labels, ExternalLabels, ExternalURL, Value }", {
        "Labels": StringMap(labels),
        "ExternalLabels": StringMap(external_labels),
        "ExternalURL": external_url,
        "Value": float(value),
    })  # fmt: skip


class Template:
    """A parsed template, to be kept and expanded many times. Raise TemplateError when it cannot be read.

    `library` holds shared texts by name for `{{template "name" .}}`; each may hold `define`s too.
    """

    def __init__(self, text: str, *, is_rule: bool = True, library: Mapping[str, str] | None = None) -> None:
        self.text = text
        self._is_rule = is_rule
        self._plain = text if "{{" not in text else None  # most labels are plain; they need no parser
        names = {*FUNCTIONS, *_OF_THE_AGENT}
        self._tree = (
            Tree(text, ()) if self._plain is not None else parse(text, names, _RULE_VARIABLES if is_rule else ())
        )
        self._templates: dict[str, Tree] = {}
        for name, shared in (library or {}).items():
            tree = parse(shared, names)
            self._templates[name] = tree
            self._add(tree)
        self._add(self._tree)

    def _add(self, tree: Tree) -> None:
        for name, body in tree.defined.items():
            self._templates[name] = replace(tree, body=body)

    def expand(self, dot: Any, helpers: Helpers = NO_HELPERS) -> str:
        """The text. Raise TemplateError when it cannot be carried out."""
        if self._plain is not None:
            return self._plain
        variables = [("$", dot)]
        if self._is_rule:
            variables += [(name, dot.fields[field]) for name, field in _RULE_VARIABLES.items()]
        run = _Run(self._templates, helpers)
        try:
            run.nodes(self._tree, self._tree.body, dot, variables)
        except RecursionError as error:
            raise TemplateError("templates inside one another without an end") from error
        return "".join(run.out)

    def expand_or_say(self, dot: Any, helpers: Helpers = NO_HELPERS) -> tuple[str, str | None]:
        """The text and None; when it cannot be carried out, a text that says so and the error."""
        try:
            return self.expand(dot, helpers), None
        except TemplateError as error:
            return f"<error expanding template: {error}>", str(error)


class _Break(Exception):
    """`break` on its way to its range."""


class _Continue(Exception):
    """`continue` on its way to its range."""


Scope = list[tuple[str, Any]]


class _Run:
    """One expansion: what has been written, what it may still cost."""

    def __init__(self, templates: Mapping[str, Tree], helpers: Helpers) -> None:
        self.templates = templates
        self.out: list[str] = []
        self.steps = 0
        self.written = 0
        self.depth = 0
        external = urlsplit(helpers.external_url)
        self.functions: Mapping[str, Callee] = {
            **FUNCTIONS,
            "query": Callee(lambda expression: _samples(helpers.query, expression), ("text",)),
            "externalURL": Callee(lambda: helpers.external_url, ()),
            "pathPrefix": Callee(lambda: external.path, ()),
            "tmpl": Callee(self._tmpl, ("text", "any")),
            "now": Callee(lambda: helpers.now, ()),
        }

    def _tmpl(self, name: str, dot: Any) -> str:
        outer, self.out = self.out, []
        try:
            self._call(name, dot)
            return "".join(self.out)
        finally:
            self.out = outer

    def _call(self, name: str, dot: Any) -> None:
        if name not in self.templates:
            raise TemplateError(f"template {name!r} not defined")
        self.depth += 1
        if self.depth > _DEEPEST_CALL:
            raise TemplateError(f"template {name!r}: more than {_DEEPEST_CALL} templates inside one another")
        tree = self.templates[name]
        self.nodes(tree, tree.body, dot, [("$", dot)])
        self.depth -= 1

    def write(self, text: str) -> None:
        self.written += len(text)
        if self.written > _MOST_CHARACTERS:
            raise TemplateError(f"more than {_MOST_CHARACTERS} characters")
        self.out.append(text)

    def nodes(self, tree: Tree, nodes: Sequence[Node], dot: Any, scope: Scope) -> None:
        known = len(scope)
        for node in nodes:
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise TemplateError(f"more than {_MOST_STEPS} steps")
            if isinstance(node, Text):
                self.write(node.text)
            elif isinstance(node, Leave):
                raise _Break if node.kind == "break" else _Continue
            else:
                self._placed(tree, node, dot, scope)
        del scope[known:]

    def _placed(self, tree: Tree, node: Action | Branch | Call, dot: Any, scope: Scope) -> None:
        """Carry out one node; an error gets the place it happened at, unless it has one already."""
        try:
            self._node(tree, node, dot, scope)
        except _PlacedError:
            raise
        except TemplateError as error:
            raise _PlacedError(f"{where(tree.source, node.at)}: {error}") from error

    def _node(self, tree: Tree, node: Action | Branch | Call, dot: Any, scope: Scope) -> None:
        if isinstance(node, Action):
            value = self.pipeline(node.pipeline, dot, scope)
            if not node.pipeline.declares:
                self.write("<no value>" if value is None else show(value))
        elif isinstance(node, Call):
            self._call(node.name, None if node.pipeline is None else self.pipeline(node.pipeline, dot, scope))
        else:
            known = len(scope)
            if node.kind == "range":
                self._range(tree, node, dot, scope)
            else:
                value = self.pipeline(node.pipeline, dot, scope)
                inner = value if node.kind == "with" and is_true(value) else dot
                self.nodes(tree, node.body if is_true(value) else node.otherwise, inner, scope)
            del scope[known:]

    def _range(self, tree: Tree, node: Branch, dot: Any, scope: Scope) -> None:
        pipeline = node.pipeline
        value = self.pipeline(replace(pipeline, declares=()), dot, scope)
        known = len(scope)
        turns = _turns(value)
        for key, one in turns:
            names = pipeline.declares
            pairs = zip(names, (one,) if len(names) == 1 else (key, one), strict=False)
            for name, given in pairs:
                if pipeline.is_assignment:
                    _assign(scope, name, given)
                else:
                    scope.append((name, given))
            try:
                self.nodes(tree, node.body, one, scope)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del scope[known:]
        if not turns:
            self.nodes(tree, node.otherwise, dot, scope)

    # Values.

    def pipeline(self, pipeline: Pipeline, dot: Any, scope: Scope) -> Any:
        value: Any = None
        for at, command in enumerate(pipeline.commands):
            value = self._command(command, dot, scope, (value,) if at else ())
        for name in pipeline.declares:
            if pipeline.is_assignment:
                _assign(scope, name, value)
            else:
                scope.append((name, value))
        return value

    def _command(self, command: Command, dot: Any, scope: Scope, final: tuple[Any, ...]) -> Any:
        head, *rest = command.words
        if isinstance(head, Function):
            return self._function(head.name, rest, dot, scope, final)
        if isinstance(head, (Fields, Variable)) and head.fields:
            arguments = [self._operand(word, dot, scope) for word in rest]
            return self._with_fields(head, dot, scope, (*arguments, *final))
        if rest or final:
            raise TemplateError(f"can't give argument to non-function {_named(head)}")
        if isinstance(head, Literal) and head.value is None:
            raise TemplateError("nil is not a command")
        return self._operand(head, dot, scope)

    def _function(self, name: str, words: Sequence[Operand], dot: Any, scope: Scope, final: tuple[Any, ...]) -> Any:
        if name in {"and", "or"} and words:
            value: Any = None
            for word in words:  # what decides ends it: the rest is not looked at
                value = self._operand(word, dot, scope)
                if is_true(value) == (name == "or"):
                    return value
            return final[0] if final else value
        arguments = [self._operand(word, dot, scope) for word in words]
        return self.functions[name].call(name, (*arguments, *final))

    def _operand(self, operand: Operand, dot: Any, scope: Scope) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Pipeline):
            return self.pipeline(operand, dot, scope)
        if isinstance(operand, Function):
            return self.functions[operand.name].call(operand.name, ())
        return self._with_fields(operand, dot, scope, ())

    def _with_fields(self, operand: Fields | Variable, dot: Any, scope: Scope, arguments: tuple[Any, ...]) -> Any:
        if isinstance(operand, Variable):
            value = next(one for name, one in reversed(scope) if name == operand.name)
        else:
            value = dot if operand.of is None else self._operand(operand.of, dot, scope)
        for at, name in enumerate(operand.fields):
            value = _field(value, name, arguments if at == len(operand.fields) - 1 else ())
        return value


class _PlacedError(TemplateError):
    """An error whose text already names its place."""


def _field(value: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    """`.name` of a value. Raise TemplateError when it has no such field."""
    fields: Mapping[str, Any] | None = getattr(value, "fields", None)
    if isinstance(value, dict) and (fields is None or name in value or name not in fields):
        found = value.get(name, "" if isinstance(value, StringMap) else None)
    elif fields is not None and name in fields:
        found = fields[name]
        if callable(found):
            return _called(name, found, arguments)
    elif value is None:
        raise TemplateError(f"nil data; no entry for key {name!r}")
    else:
        raise TemplateError(f"can't evaluate field {name} in type {type_name(value)}")
    if arguments:
        raise TemplateError(f"{name} is not a method but has arguments")
    return found


def _called(name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return method(*arguments)
    except (TypeError, AttributeError, ValueError) as error:
        raise TemplateError(f"error calling {name}: {error}") from error


def _assign(scope: Scope, name: str, value: Any) -> None:
    at = next(at for at in range(len(scope) - 1, -1, -1) if scope[at][0] == name)
    scope[at] = (name, value)


def _turns(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(at, at) for at in range(min(value, _MOST_STEPS + 1))]
    if value is None:
        return []
    raise TemplateError(f"range can't iterate over {show(value)}")


def _named(operand: Operand) -> str:
    if isinstance(operand, Literal):
        return show(operand.value)
    return operand.name if isinstance(operand, Variable) else "."


def _samples(query: Query, expression: str) -> list[Struct]:
    try:
        return [
            Struct("template.sample", {"Labels": StringMap(labels), "Value": value}, is_pointer=True)
            for labels, value in query(expression)
        ]
    except QueryError as error:
        raise TemplateError(f"query {expression!r}: {error}") from error
