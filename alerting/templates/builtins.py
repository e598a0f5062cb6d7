"""The functions Go brings along, and how any function is called. Facts: the documentation of text/template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from alerting.templates.goformat import sprint, sprintf, sprintln
from alerting.templates.values import StringMap, Struct, TemplateError, is_true, type_name


@dataclass(frozen=True, slots=True)
class Callee:
    """A function and the kinds of its parameters (`text`, `any`, `samples`, `sample`, `map`); `*any` takes the rest."""

    run: Callable[..., Any]
    takes: tuple[str, ...]

    def call(self, name: str, values: Sequence[Any]) -> Any:
        """Check number and kind of the arguments, as Go's type checker would, then call. Raise TemplateError."""
        rest = self.takes[-1][1:] if self.takes and self.takes[-1][0] == "*" else ""
        fixed = self.takes[:-1] if rest else self.takes
        if len(values) < len(fixed) or (len(values) > len(fixed) and not rest):
            least = "at least " if rest else ""
            raise TemplateError(f"{name}: wrong number of arguments: want {least}{len(fixed)} got {len(values)}")
        for at, value in enumerate(values):
            kind = fixed[at] if at < len(fixed) else rest
            if not _FITS[kind](value):
                raise TemplateError(
                    f"{name}: wrong type for argument {at + 1}: {type_name(value)}; {kind} would be right"
                )
        try:
            return self.run(*values)
        except (TypeError, AttributeError, ValueError, ArithmeticError) as error:  # an element of the wrong type
            raise TemplateError(f"error calling {name}: {error}") from error


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "any": lambda _: True,
    "text": lambda value: isinstance(value, str),
    "samples": lambda value: isinstance(value, list),
    "sample": lambda value: isinstance(value, Struct) and value.type_name == "template.sample",
    "list": lambda value: isinstance(value, list),
}


def _kind(value: Any) -> str:
    return {bool: "bool", str: "string", float: "float"}.get(type(value), "int" if isinstance(value, int) else "other")


def _equal(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    kinds = _kind(first), _kind(second)
    if "other" in kinds:
        raise TemplateError(f"non-comparable type {type_name(first if kinds[0] == 'other' else second)}")
    if kinds[0] != kinds[1]:
        raise TemplateError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    return bool(first == second)


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq: missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _less(first: Any, second: Any) -> bool:
    kinds = _kind(first), _kind(second)
    if kinds[0] in {"other", "bool"} or kinds[1] in {"other", "bool"}:
        raise TemplateError("invalid type for comparison: neither number nor text")
    if kinds[0] != kinds[1]:
        raise TemplateError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    return bool(first < second)


def _less_or_equal(first: Any, second: Any) -> bool:
    return _less(first, second) or _equal(first, second)


def _greater(first: Any, second: Any) -> bool:
    return not _less_or_equal(first, second)


def _greater_or_equal(first: Any, second: Any) -> bool:
    return not _less(first, second)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise TemplateError(f"index: a map's key is a text, not {type_name(key)}")
            value = value.get(key, "" if isinstance(value, StringMap) else None)
        elif isinstance(value, (list, str)):
            items = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            value = items[_position(key, len(items) - 1)]
        else:
            raise TemplateError(f"index: can't index item of type {type_name(value)}")
    return value


def _position(key: Any, last: int) -> int:
    if not isinstance(key, int) or isinstance(key, bool):
        raise TemplateError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= last:
        raise TemplateError(f"index out of range: {key}")
    return key


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list)):
        raise TemplateError(f"slice: can't slice item of type {type_name(value)}")
    raw: Any = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if len(bounds) > (2 if isinstance(value, str) else 3):
        raise TemplateError(f"slice: too many slice indexes: {len(bounds)}")
    low = _position(bounds[0], len(raw)) if bounds else 0
    high = _position(bounds[1], len(raw)) if len(bounds) > 1 else len(raw)
    if low > high:
        raise TemplateError(f"slice: invalid slice index: {low} > {high}")
    cut = raw[low:high]
    return cut.decode("utf-8", "surrogateescape") if isinstance(cut, bytes) else cut


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (dict, list)):
        return len(value)
    raise TemplateError(f"len: len of type {type_name(value)}")


_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def html(*values: Any) -> str:
    """Text safe inside HTML."""
    return sprint(values).translate(_HTML)


def _js(*values: Any) -> str:
    return "".join(
        _JS.get(char) or (f"\\u{ord(char):04X}" if ord(char) < 0x20 or not char.isprintable() else char)
        for char in sprint(values)
    )


def _urlquery(*values: Any) -> str:
    return quote_plus(sprint(values), safe="-_.~", errors="surrogateescape")


GO_FUNCTIONS: Mapping[str, Callee] = {
    "and": Callee(lambda *values: next((one for one in values if not is_true(one)), values[-1]), ("any", "*any")),
    "or": Callee(lambda *values: next((one for one in values if is_true(one)), values[-1]), ("any", "*any")),
    "not": Callee(lambda value: not is_true(value), ("any",)),
    "eq": Callee(_eq, ("any", "*any")),
    "ne": Callee(lambda first, second: not _equal(first, second), ("any", "any")),
    "lt": Callee(_less, ("any", "any")),
    "le": Callee(_less_or_equal, ("any", "any")),
    "gt": Callee(_greater, ("any", "any")),
    "ge": Callee(_greater_or_equal, ("any", "any")),
    "len": Callee(_len, ("any",)),
    "index": Callee(_index, ("any", "*any")),
    "slice": Callee(_slice, ("any", "*any")),
    "print": Callee(lambda *values: sprint(values), ("*any",)),
    "printf": Callee(lambda template, *values: sprintf(template, values), ("text", "*any")),
    "println": Callee(lambda *values: sprintln(values), ("*any",)),
    "html": Callee(html, ("*any",)),
    "js": Callee(_js, ("*any",)),
    "urlquery": Callee(_urlquery, ("*any",)),
}
