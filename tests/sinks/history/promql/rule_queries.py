"""The expressions of rule files, and the expressions inside them, as queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from sinks.history.promql.ast import VECTOR, Subquery, value_type, walk
from sinks.history.promql.parser import parse
from sinks.history.promql.unparse import unparse

_RANGE = re.compile(r"\[\s*[0-9a-z]+\s*\]")
_OFFSET = re.compile(r"\boffset\s+[0-9a-z]+")


def rule_queries(files: Iterable[Path], range_text: str, offset_text: str) -> list[str]:
    """Every different instant vector; ranges and offsets are those given, for what was recorded is short.

    Subqueries are left out: their moments are whole seconds, at which a sample may lie.
    """
    found: dict[str, None] = {}
    for file in files:
        for expr in _expressions(yaml.safe_load(file.read_text())):
            short = _OFFSET.sub(f"offset {offset_text}", _RANGE.sub(f"[{range_text}]", expr))
            for node in walk(parse(short)):
                if value_type(node) == VECTOR and not any(isinstance(inner, Subquery) for inner in walk(node)):
                    found[unparse(node)] = None
    return list(found)


def _expressions(document: dict[str, list[dict[str, list[dict[str, str]]]]]) -> Iterator[str]:
    for group in document["groups"]:
        for rule in group["rules"]:
            yield str(rule["expr"])
