"""Environment variables in a text: `${NAME}`, `${NAME:-otherwise}`, and `$$` for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_DOLLAR = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NEEDS_ESCAPE = re.compile(r"\$(?=[${])")


@dataclass(frozen=True, slots=True)
class Expanded:
    """A text with its variables put in. `has_literal`: part of it stands in the file itself."""

    text: str
    has_literal: bool
    has_variable: bool


def expand(text: str, environ: Mapping[str, str]) -> Expanded:
    """Put the variables in; a variable that is unset or empty takes its `:-` text.

    Raise ValueError, without repeating the text, for a variable that is not set or a reference that is not well formed.
    """
    if "$" not in text:
        return Expanded(text, bool(text), has_variable=False)
    parts: list[str] = []
    at, has_literal, has_variable = 0, False, False
    for match in _DOLLAR.finditer(text):
        before = text[at : match.start()]
        at = match.end()
        has_literal |= bool(before)
        if match[0] == "$$":
            value, has_literal = "$", True
        else:
            value, is_own = _value(match[1], environ)
            has_literal |= is_own
            has_variable = True
        parts += (before, value)
    has_literal |= at < len(text)
    return Expanded("".join((*parts, text[at:])), has_literal, has_variable)


def escape(text: str) -> str:
    """The form that `expand` turns back into `text`."""
    return _NEEDS_ESCAPE.sub("$$", text)


def _value(reference: str | None, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The value of the reference between `${` and `}` (None: not closed), and whether it stands in the file."""
    match = _REFERENCE.fullmatch(reference) if reference is not None else None
    if match is None:
        raise ValueError("a '${' does not belong to a variable; write ${NAME}, ${NAME:-otherwise}, or $${ for the text")
    name, otherwise = match[1], match[2]
    value = environ.get(name, "")
    if not value and otherwise is not None:
        return otherwise, bool(otherwise)
    if name not in environ:
        raise ValueError(f"environment variable {name} is not set; set it, or write ${{{name}:-otherwise}}")
    if not value.isprintable() and not value.isascii():
        # Bytes that are not UTF-8 reach us as lone surrogates, which nothing can encode again.
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"environment variable {name} is not UTF-8") from None
    return value, False
