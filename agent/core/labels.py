"""Label sets and the matchers that select them, for history, rules, silences and routes.

A label set is a tuple of (name, value) pairs sorted by name; a label with an empty value does not exist.
Patterns are RE2's, anchored at both ends, `.` matching line breaks too. RE2 runs in linear time, so a pattern written
by a stranger cannot stall the daemon; it is imported for the first pattern that is more than literals (3.4 MB).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
MatchOp: TypeAlias = Literal["=", "!=", "=~", "!~"]
Predicate: TypeAlias = Callable[[str], bool]

METRIC_NAME: Final = "__name__"
NO_LABELS: Final[Labels] = ()
NAMING: Final = frozenset({METRIC_NAME, "__type__", "__unit__"})  # what a computed value no longer is called

_REMEMBERED_ANSWERS = 4096  # per pattern; a match through the binding takes 5 us, a look-up 0.05
_MOST_LITERALS = 256  # that one pattern stands for where it has groups
_MOST_NESTED = 8
_META = frozenset("\\.+*?()|[]{}^$")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\v": "\\v"}  # fmt: skip


class PatternError(ValueError):
    """A regular expression that RE2 refuses; the text names the pattern and the reason."""


def labels_of(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Labels:
    """Label set from a mapping or pairs in any order; empty values vanish, the last of equal names wins."""
    return tuple(sorted((name, value) for name, value in dict(pairs).items() if value))


def value_of(labels: Labels, name: str) -> str:
    """Value of the label, "" where there is none."""
    for key, value in labels:
        if key == name:
            return value
    return ""


def drop(labels: Labels, names: Collection[str]) -> Labels:
    """The label set without these names."""
    return tuple([pair for pair in labels if pair[0] not in names])


def keep(labels: Labels, names: Collection[str]) -> Labels:
    """The label set with only these names."""
    return tuple([pair for pair in labels if pair[0] in names])


def without_name(labels: Labels) -> Labels:
    """The label set without its metric name and the type and unit that belong to it."""
    return tuple([pair for pair in labels if pair[0] not in NAMING])


def with_label(labels: Labels, name: str, value: str) -> Labels:
    """The label set with one label set anew, or removed where `value` is empty."""
    rest = [pair for pair in labels if pair[0] != name]
    if value:
        rest.append((name, value))
        rest.sort()
    return tuple(rest)


def quote(text: str) -> str:
    """Text in double quotes, with Go's escapes; bytes that are no UTF-8 (surrogate escapes) as \\xNN."""
    parts = ['"']
    for char in text:
        if char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif char.isprintable():
            parts.append(char)
        elif "\udc80" <= char <= "\udcff":
            parts.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif char < " " or char == "\x7f":
            parts.append(f"\\x{ord(char):02x}")
        else:
            parts.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    parts.append('"')
    return "".join(parts)


def show(labels: Labels) -> str:
    """The set in braces, every label including the metric name: {__name__="up", job="node"}."""
    return "{" + ", ".join(f"{name}={quote(value)}" for name, value in labels) + "}"


def compile_pattern(pattern: str) -> Any:
    """The pattern as a compiled RE2 object (`fullmatch(text)` gives a match with groups). Raise PatternError."""
    try:
        return _compile(pattern)
    except UnicodeEncodeError as error:
        raise PatternError(f"{quote(pattern)}: not valid UTF-8") from error


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(f"{quote(pattern)}: {text}") from error


@lru_cache(maxsize=1024)
def predicate(pattern: str) -> Predicate:
    """Does the whole of a text match the pattern? Literals, and what begins or ends with one, need no RE2.

    Raise PatternError.
    """
    literals = _literals(pattern)
    if literals is not None:
        return literals.__contains__
    return _around_literal(pattern) or _by_pattern(pattern)


def _literals(pattern: str) -> frozenset[str] | None:
    """The texts that `a`, `a|b`, `(a|b)` or `a(b|c)` stand for; None where the pattern is more than that."""
    found = _alternatives(pattern)
    return None if found is None else frozenset(text for texts in found for text in texts)


def _alternatives(pattern: str) -> list[list[str]] | None:
    """The texts of each alternative that no group holds; None where it is more than literals and groups of them."""
    read = _read_alternatives(pattern, 0, _MOST_NESTED)
    if read is None or read[1] != len(pattern):
        return None
    return read[0]


def _read_alternatives(pattern: str, at: int, depth: int) -> tuple[list[list[str]], int] | None:
    """Those from `at` on, and where the group or the pattern they are in ends; `depth`: levels of groups to come."""
    found, texts = [], [""]
    while at < len(pattern) and pattern[at] != ")":
        char, at = pattern[at], at + 1
        if char == "|":
            found.append(texts)
            texts = [""]
            continue
        ways = [char]
        if char == "(":
            inner = _read_alternatives(pattern, at + 2 * pattern.startswith("?:", at), depth - 1) if depth else None
            if inner is None or inner[1] == len(pattern):
                return None
            ways, at = [text for one in inner[0] for text in one], inner[1] + 1
        elif char == "\\":
            ways, at = [pattern[at : at + 1]], at + 1
            if ways[0] not in _META and ways[0] not in {"-", "/", ":"}:
                return None
        elif char in _META:
            return None
        if len(texts) * len(ways) > _MOST_LITERALS:
            return None
        texts = [text + way for text in texts for way in ways]
    return [*found, texts], at


def _around_literal(pattern: str) -> Predicate | None:
    """A test for literal.*, .*literal, .*literal.*, the same with .+ or (a|b) for literal; None for other shapes."""
    head = pattern[:2] if pattern[:2] in {".*", ".+"} else ""
    rest = pattern[len(head) :]
    tail = rest[-2:] if rest[-2:] in {".*", ".+"} and rest[-3:-2] != "\\" else ""
    middle = rest[: len(rest) - len(tail)]
    found = _alternatives(middle)
    if found is None or len(found) > 1:  # `.*a|b` is `(.*a)|b`
        return None
    texts = tuple(found[0])
    if head and tail:
        first, last = (1 if head == ".+" else 0), (-1 if tail == ".+" else None)
        least = (head == ".+") + (tail == ".+")
        return lambda value: len(value) >= least and any(text in value[first:last] for text in texts)
    if head == ".*":
        return lambda value: value.endswith(texts)
    if head:
        return lambda value: value[1:].endswith(texts) and value != ""
    if tail == ".*":
        return lambda value: value.startswith(texts)
    return lambda value: value[:-1].startswith(texts) and value != ""


def _by_pattern(pattern: str) -> Predicate:
    fullmatch = compile_pattern(pattern).fullmatch
    answers: dict[str, bool] = {}

    def matches(value: str) -> bool:
        answer = answers.get(value)
        if answer is None:
            try:
                answer = fullmatch(value) is not None
            except UnicodeEncodeError:  # a value that is no UTF-8 matches no pattern
                answer = False
            if len(answers) < _REMEMBERED_ANSWERS:
                answers[value] = answer
        return answer

    return matches


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; an absent label is the empty text. Raise PatternError on a bad pattern."""

    name: str
    op: MatchOp
    value: str
    matches: Predicate = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matches", self._predicate())

    def _predicate(self) -> Predicate:
        wanted = self.value
        if self.op == "=":
            return wanted.__eq__
        if self.op == "!=":
            return wanted.__ne__
        matches = predicate(wanted)
        if self.op == "=~":
            return matches
        return lambda value: not matches(value)

    def __str__(self) -> str:
        return f"{self.name}{self.op}{quote(self.value)}"


def select(labels: Labels, matchers: Iterable[Matcher]) -> bool:
    """Does the label set meet every condition?"""
    values = dict(labels)
    return all(matcher.matches(values.get(matcher.name, "")) for matcher in matchers)
