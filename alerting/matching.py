"""Matchers as people write them in routes, silences and inhibitions: `severity="critical"`, `instance=~"db.*"`.

Facts: Alertmanager's configuration reference; quotes may be left out, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from agent.core.labels import Matcher, MatchOp, PatternError

_MATCHER = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_ONE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)


def parse_matcher(text: str) -> Matcher:
    """One matcher. Raise ValueError with the right form."""
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a matcher; write it like severity="critical" or instance=~"db.*"')
    name, op, value = found.groups()
    try:
        return Matcher(name, cast("MatchOp", op), _unquote(value, text))
    except PatternError as error:
        raise ValueError(f"{text!r}: {error}") from error


def parse_matchers(texts: str | Iterable[str]) -> tuple[Matcher, ...]:
    """Matchers from a list, or from one text such as `{a="b", c=~"d"}`. Raise ValueError."""
    if isinstance(texts, str):
        body = texts.strip()
        body = body[1:-1] if body.startswith("{") and body.endswith("}") else body
        parts = _ONE.findall(body)
        if len(",".join(parts)) < len(body.rstrip().rstrip(",")):
            raise ValueError(f'{texts!r}: a quote or a comma too many; write it like a="b", c=~"d"')
        return tuple(parse_matcher(part) for part in parts if part.strip())
    return tuple(one for text in texts for one in parse_matchers(text))


def show_matchers(matchers: Iterable[Matcher]) -> str:
    """As Alertmanager writes them in a route's key: {a="b",c=~"d"}."""
    return "{" + ",".join(map(str, sorted(matchers, key=lambda one: (one.name, one.value, one.op)))) + "}"


def _unquote(value: str, text: str) -> str:
    if not value.startswith('"'):
        if '"' in value:
            raise ValueError(f"{text!r}: a quote in the middle of a value; put the whole value in quotes")
        return value
    if len(value) < 2 or not value.endswith('"') or re.search(r'(?<!\\)(?:\\\\)*"', value[1:-1]):
        raise ValueError(f'{text!r}: quotes that do not close; write it like severity="critical"')
    escapes = {'\\"': '"', "\\n": "\n", "\\\\": "\\"}
    return re.sub(r"\\.", lambda found: escapes.get(found[0], found[0]), value[1:-1], flags=re.DOTALL)
