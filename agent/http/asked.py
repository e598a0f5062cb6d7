"""What a request asks: its parameters, from the address and from a posted form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from agent.core.labels import Labels, Matcher, quote
from agent.core.query import ParseError
from agent.http.refusals import Refusal, bad, of_query
from agent.http.times import parse_length, parse_moment
from sinks.history.promql.ast import VectorSelector
from sinks.history.promql.parser import parse

MOST_PARAMETERS = 500
_FORM = "application/x-www-form-urlencoded"


class Asked:
    """Parameters by name, those of the form before those of the address. Every getter raises Refusal."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str, default: str = "") -> str:
        """The first value; `default` where it is absent or empty."""
        return self._values.get(name, [""])[0] or default

    def moment(self, name: str) -> int:
        """Milliseconds of a moment that must be given."""
        try:
            return parse_moment(self.text(name))
        except ValueError as error:
            raise bad(name, str(error)) from error

    def moment_or(self, name: str, default_ms: int) -> int:
        """Milliseconds of a moment that may be left out."""
        if not self.text(name):
            return default_ms
        try:
            return parse_moment(self.text(name))
        except ValueError as error:
            raise bad(name, f"Invalid time value for '{name}': {error}") from error

    def length(self, name: str) -> int:
        """Milliseconds of a duration that must be given."""
        try:
            return parse_length(self.text(name))
        except ValueError as error:
            raise bad(name, str(error)) from error

    def length_or(self, name: str, default_ms: int) -> int:
        """Milliseconds of a duration that may be left out."""
        return self.length(name) if self.text(name) else default_ms

    def count(self, name: str, default: int, most: int = 2**31) -> int:
        """A whole number from 0 to `most`."""
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
            raise bad(name, f"a whole number from 0 to {most} would be right")
        return int(text)

    def selectors(self, name: str = "match[]") -> list[tuple[Matcher, ...]]:
        """The matchers of each selector asked for."""
        return [selector(text) for text in self.all(name)]


def selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of one series selector, such as `up{job="node"}`."""
    try:
        node = parse(text)
    except ParseError as error:
        raise bad("match[]", str(of_query(error))) from error
    if not isinstance(node, VectorSelector) or node.offset_ms or node.at is not None:
        raise bad("match[]", 'not a series selector; write it like up{job="node"}')
    return node.matchers


def exactly(labels: Labels) -> str:
    """The selector of one series and no other, as text."""
    return written(Matcher(name, "=", value) for name, value in labels)


def written(matchers: Iterable[Matcher]) -> str:
    """A selector as text."""
    return "{" + ",".join(f"{_label_name(m.name)}{m.op}{quote(m.value)}" for m in matchers) + "}"


def _label_name(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else quote(name)


async def asked_by(request: Request) -> Asked:
    """The parameters of a request. Raise Refusal for more of them than anyone needs, or text that is not UTF-8."""
    found: list[tuple[str, str]] = []
    if request.method == "POST" and request.headers.get("content-type", _FORM).partition(";")[0].strip() == _FORM:
        found += _pairs((await request.body()).decode("utf-8", "surrogateescape"))
    found += _pairs(request.scope["query_string"].decode("latin-1"))
    return Asked(found)


def _pairs(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    try:
        text.encode()
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except UnicodeError as error:
        raise Refusal("bad_data", "parameters are not UTF-8") from error
    except ValueError as error:
        raise Refusal("bad_data", f"more than {MOST_PARAMETERS} parameters") from error
