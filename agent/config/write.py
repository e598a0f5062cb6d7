"""Values as YAML text that reads back as the same values, in the units that people write."""

from __future__ import annotations

import re
import typing
from typing import Any

from agent.config.declared import element_of, is_section, members, options_of, unit_of
from agent.config.expand import escape
from agent.config.scalars import write_number
from agent.core.secrets import Secret

MASK = '"***"'
_PLAIN = re.compile(r"[A-Za-z0-9_/.](?:[A-Za-z0-9_/.:@+ -]*[A-Za-z0-9_/.@+-])?")
# Words and numbers that other readers of YAML take for something else than text.
_DOUBTFUL = re.compile(
    r"(?i:true|false|yes|no|on|off|y|n|null)"
    r"|[-+]?[0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)?|0[xo][0-9a-fA-F_]+|[0-9]+(?::[0-9]+)+|[0-9]{4}-[0-9-]+"
)


def quote(text: str) -> str:
    """A text as one YAML scalar, in quotes where it needs them."""
    text = escape(text)
    if _PLAIN.fullmatch(text) and ": " not in text and not _DOUBTFUL.fullmatch(text):
        return text
    if "\\" in text and text.isprintable() and "'" not in text:
        return f"'{text}'"  # a regular expression, readable
    return '"' + "".join(map(_escaped, text)) + '"'


def inline(kind: Any, value: Any) -> str:
    """The value of an option of type `kind` on one line; secrets are masked."""
    if value is None:
        return "null"
    if isinstance(value, Secret):
        return MASK
    base, unit = unit_of(_member_of(kind, value))
    if is_section(base):
        options = options_of(base).values()
        return _flow((option.name, inline(option.kind, getattr(value, option.field))) for option in options)
    element = element_of(base)
    if isinstance(value, dict):
        return _flow((quote(key), inline(element, item)) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        items = [inline(element, item) for item in value]
        return f"[{', '.join(sorted(items) if isinstance(value, set | frozenset) else items)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and typing.get_origin(base) is not typing.Literal:
        return write_number(value, unit)
    return quote(value.pattern if isinstance(value, re.Pattern) else str(value))


def _flow(pairs: typing.Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"


def _member_of(kind: Any, value: Any) -> Any:
    """The member of a union that the value belongs to."""
    choices = members(kind)
    for choice in choices:
        base = unit_of(choice)[0]
        if type(value) is (typing.get_origin(base) or base):
            return choice
    return next((choice for choice in choices if choice is not type(None)), kind)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def _escaped(character: str) -> str:
    if character.isprintable() and character not in _ESCAPES:
        return character
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
