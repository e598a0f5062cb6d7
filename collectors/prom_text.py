"""Prometheus' text format 0.0.4, and what OpenMetrics added to it that exporters send by default.

Strict as Prometheus itself is: a text with one bad line has no value, since what follows may be misread as well. The
grammar: prometheus.io/docs/instrumenting/exposition_formats. Metric and label names are the classic ones; names in
quotes (UTF-8) are only sent to who asks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from agent.core.errors import SourceError

Type = Literal["counter", "gauge", "histogram", "summary", "untyped"]

# OpenMetrics' words, as Prometheus treats them once they are stored.
_TYPES: dict[str, Type] = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "summary": "summary",
    "untyped": "untyped",
    "unknown": "untyped",
    "info": "gauge",
    "stateset": "gauge",
    "gaugehistogram": "untyped",
}

_SAMPLE = re.compile(
    r"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)"
    r"(?:[ \t]*\{((?:[^\"}]++|\"(?:[^\"\\]++|\\.)*+\")*+)\}[ \t]*|[ \t]+)"
    r"([-+.0-9a-zA-Z]+)"
    r"(?:[ \t]+(-?[0-9]+(?:\.[0-9]+)?))?[ \t]*"
    r"(#[ \t].*)?"  # an exemplar
)
_LABEL = re.compile(r"[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*\"((?:[^\"\\]++|\\.)*+)\"[ \t]*(,|$)")
_COMMENT = re.compile(r"[ \t]*#(?:[ \t]+(HELP|TYPE)(?:[ \t]+(\S*)(?:[ \t](.*))?)?|.*)", re.DOTALL)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPE = re.compile(r"\\(.)")
_UNESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


class PromTextError(SourceError):
    """The text is not Prometheus' format; the message gives the line."""


class Sample(NamedTuple):
    """One line: its name with any suffix, label names in order with their values (empty ones left out)."""

    name: str
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]
    value: float
    has_timestamp: bool


@dataclass(slots=True)
class Family:
    """The samples of one metric. `help` is None where the text does not explain it."""

    name: str
    type: Type = "untyped"
    help: str | None = None
    samples: list[Sample] = field(default_factory=list)
    is_typed: bool = False


def parse_prom_text(text: bytes, most_samples: int = 1_000_000) -> list[Family]:
    """Families in the order they appear. Raise PromTextError for a bad line or more than `most_samples`."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise PromTextError(f"line {text.count(10, 0, error.start) + 1}: not valid UTF-8") from error
    lines = decoded.split("\n")
    if lines.pop():
        raise PromTextError(f"line {len(lines) + 1}: does not end with a line feed; the text may be cut short")
    parser = _Parser(most_samples)
    for number, line in enumerate(lines, 1):
        try:
            parser.line(line)
        except ValueError as error:
            raise PromTextError(f"line {number}: {error}") from error
        if parser.is_finished:
            break
    return [family for family in parser.families.values() if family.samples]


class _Parser:
    """The families read so far."""

    def __init__(self, most_samples: int) -> None:
        self.families: dict[str, Family] = {}
        self.is_finished = False
        self._owners: dict[str, Family] = {}  # the family each sample name belongs to
        self._left = most_samples
        self._most = most_samples

    def line(self, line: str) -> None:
        match = _SAMPLE.fullmatch(line)
        if match is None:
            self._other(line)
            return
        name, raw_labels, value, stamp, _ = match.groups()
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = self._owner_of(name)
        names, values = parse_labels(raw_labels) if raw_labels else ((), ())
        if owner.type in {"histogram", "summary"}:
            _check_bound(name, owner, names, values)
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
        owner.samples.append(Sample(name, names, values, number, stamp is not None))
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {self._most} samples")

    def _owner_of(self, name: str) -> Family:
        """The family a sample belongs to: its own name's, or that of the histogram, summary or OpenMetrics counter."""
        family = self.families.get(name)
        if family is not None and family.is_typed:
            return family
        base, _, suffix = name.rpartition("_")
        parent = self.families.get(base)
        if parent is not None and parent.is_typed:
            is_part = suffix in {"sum", "count"} or (suffix == "bucket" and parent.type == "histogram")
            if parent.type in {"histogram", "summary"} and is_part:
                return parent
            if parent.type == "counter" and suffix == "total":
                return self.families.setdefault(name, Family(name, "counter", parent.help, is_typed=True))
            if suffix == "created":
                return self.families.setdefault(name, Family(name, "gauge", parent.help, is_typed=True))
            if suffix == "info" and parent.type == "gauge":
                return self.families.setdefault(name, Family(name, "gauge", parent.help, is_typed=True))
        return self.families.setdefault(name, Family(name))

    def _other(self, line: str) -> None:
        """A line that is no sample: empty, a comment, HELP or TYPE. Raise ValueError for anything else."""
        if not line or line.isspace():
            return
        match = _COMMENT.fullmatch(line)
        if match is None:
            raise ValueError(f'{_shown(line)} is not a sample; write it like name{{label="value"}} 1')
        if line == "# EOF":
            self.is_finished = True
        word, name, rest = match.groups()
        if word is None:
            return
        if not name or not _NAME.fullmatch(name):
            raise ValueError(f"{_shown(name or '')} after {word} is not a metric name")
        family = self.families.setdefault(name, Family(name))
        if word == "TYPE":
            _set_type(family, (rest or "").strip())
        elif family.help is not None:
            raise ValueError(f"second HELP line for {name}")
        else:
            family.help = _unescape(rest or "", {"n": "\n", "\\": "\\"})


def _set_type(family: Family, word: str) -> None:
    if family.is_typed:
        raise ValueError(f"second TYPE line for {family.name}")
    if family.samples:
        raise ValueError(f"TYPE of {family.name} comes after its samples")
    if word not in _TYPES:
        raise ValueError(f"{_shown(word)} is not a type of metric; it would be one of {', '.join(_TYPES)}")
    family.type = _TYPES[word]
    family.is_typed = True


def _check_bound(name: str, family: Family, names: tuple[str, ...], values: tuple[str, ...]) -> None:
    """`le` of a bucket and `quantile` of a summary must be numbers. Raise ValueError."""
    if family.type == "histogram" and name.endswith("_bucket"):
        label = "le"
    elif family.type == "summary" and name == family.name:
        label = "quantile"
    else:
        return
    if label not in names:
        raise ValueError(f"{name} has no label {label}")
    bound = values[names.index(label)]
    try:
        float(bound)
    except ValueError:
        raise ValueError(f"{label}={_shown(bound)} of {name} is not a number") from None


@lru_cache(maxsize=8192)  # a scrape brings the same label sets as the last one
def parse_labels(raw: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names, sorted, and values of what stands between the braces; an empty value is no label. Raise ValueError."""
    found: dict[str, str] = {}
    raw, at = raw.rstrip(" \t"), 0
    while at < len(raw):
        match = _LABEL.match(raw, at)
        if match is None:
            raise ValueError(f'{_shown(raw[at:])} is not a label; write it like name="value"')
        name, value, _ = match.groups()
        if name in found:
            raise ValueError(f"label {name} is given twice")
        if name == "__name__":
            raise ValueError("label __name__ is reserved for the metric's name")
        found[name] = _unescape(value, _UNESCAPED) if "\\" in value else value
        at = match.end()
    pairs = sorted((name, value) for name, value in found.items() if value)
    return tuple([name for name, _ in pairs]), tuple([value for _, value in pairs])


def _unescape(text: str, known: dict[str, str]) -> str:
    """Backslash escapes resolved; an unknown one stays as it is."""
    return _ESCAPE.sub(lambda match: known.get(match[1], match[0]), text) if "\\" in text else text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
