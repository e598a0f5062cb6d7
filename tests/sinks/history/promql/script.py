"""Runs the scripts in `scripts/`: data, queries and what they must answer, in the words of Prometheus' test language.

    load 10s                                    series follow, one sample a step: 1 2 _ stale, a+bxn counts on n times
      up{job="node"} 1+1x5
    eval instant at 50s up * 2                  or: eval range from 0 to 1m step 10s EXPR
      expect warn msg: TEXT                     also info; fail [msg: TEXT]; ordered; string "TEXT"
      {job="node"} 12
    clear

Every instant query is asked once more as the middle of a range, and must answer the same there.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.labels import Labels, labels_of, show
from agent.core.query import QueryError, Result
from sinks.history.promql import lexer
from sinks.history.promql.ast import StringLiteral, VectorSelector
from sinks.history.promql.engine import Engine
from sinks.history.promql.parser import parse
from sinks.history.promql.storage import STALE
from tests.sinks.history.promql.memory_storage import MemoryStorage

Rows = dict[Labels, list[float | None]]

_NUMBER = r"[+-]?(?:[0-9.]+(?:[eE][+-]?[0-9]+)?|[Ii]nf|NaN)"
_COUNTED = re.compile(rf"({_NUMBER})(?:([+-])([0-9.]+))?x([0-9]+)")
_SERIES = re.compile(r"((?:[^{\s]*\{.*\})|[^{\s]+)\s+(.*)")
_INSTANT = re.compile(r"eval instant at (\S+) (.+)")
_RANGE = re.compile(r"eval range from (\S+) to (\S+) step (\S+) (.+)")


@dataclass
class Case:
    """One query with everything expected of it. `at` is the line in the file."""

    at: int
    expr: str
    start: int
    end: int
    step: int  # 0: instant
    rows: Rows = field(default_factory=dict)
    scalar: float | None = None
    string: str | None = None
    fails: str | None = None  # the message, "" for any
    ordered: bool = False
    remarks: dict[str, list[str]] = field(default_factory=lambda: {"warn": [], "info": []})


def milliseconds(text: str) -> int:
    return 0 if text == "0" else lexer.duration_ms(text, 0, text)


def values(text: str) -> list[float | None]:
    found: list[float | None] = []
    for word in text.split():
        counted = _COUNTED.fullmatch(word)
        if counted:
            step = float(counted[3] or 0) * (-1 if counted[2] == "-" else 1)
            found += [float(counted[1]) + step * index for index in range(int(counted[4]) + 1)]
        elif word.startswith("_"):
            found += [None] * int(word[2:] or 1)
        else:
            found.append(STALE if word == "stale" else float(word))
    return found


def labels(text: str) -> Labels:
    if text == "{}":
        return ()
    node = parse(text)
    assert isinstance(node, VectorSelector), text
    return labels_of((matcher.name, matcher.value) for matcher in node.matchers)


def blocks(path: Path) -> Iterator[list[tuple[int, str]]]:
    """Each command with its lines; comments and empty lines part them."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        starts = text.split(" ")[0] in {"load", "eval", "clear"}
        if (starts or not text or text.startswith("#")) and block:
            yield block
            block = []
        if text and not text.startswith("#"):
            block.append((number, text))
    if block:
        yield block


def case(block: list[tuple[int, str]]) -> Case:
    at, head = block[0]
    instant, ranged = _INSTANT.fullmatch(head), _RANGE.fullmatch(head)
    if instant:
        moment = milliseconds(instant[1])
        found = Case(at, instant[2], moment, moment, 0)
    else:
        assert ranged, f"line {at}: {head}"
        found = Case(at, ranged[4], milliseconds(ranged[1]), milliseconds(ranged[2]), milliseconds(ranged[3]))
    for number, line in block[1:]:
        if line.startswith("expect "):
            _expect(found, line)
        elif re.fullmatch(_NUMBER, line):
            found.scalar = float(line)
        else:
            series = _SERIES.fullmatch(line)
            assert series, f"line {number}: {line}"
            found.rows[labels(series[1])] = values(series[2])
    return found


def _expect(found: Case, line: str) -> None:
    _, word, *rest = line.split(" ", 2)
    text = rest[0].removeprefix("msg: ") if rest else ""
    if word == "fail":
        found.fails = text
    elif word == "string":
        node = parse(text)
        assert isinstance(node, StringLiteral)
        found.string = node.value
    elif word == "ordered":
        found.ordered = True
    else:
        found.remarks[word].append(text)


def almost(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a != a and b != b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)


def rows_of(result: Result, times: range) -> Rows:
    if result.kind != "matrix":
        return {sample.labels: [sample.value] for sample in result.vector()}
    if len(times) == 1:  # a range selector: its samples as they are
        return {points.labels: list(points.values) for points in result.matrix()}
    found = {}
    for points in result.matrix():
        known = dict(zip(points.times_ms, points.values, strict=True))
        found[points.labels] = [known.get(time) for time in times]
    return found


def trimmed(row: list[float | None]) -> list[float | None]:
    while row and row[-1] is None:
        row = row[:-1]
    return row


def difference(expected: Rows, got: Rows) -> str:
    """What is wrong with `got`, "" where nothing is."""
    for key in expected.keys() | got.keys():
        wanted, found = trimmed(expected.get(key, [])), trimmed(got.get(key, []))
        if len(wanted) != len(found) or not all(map(almost, wanted, found)):
            return f"{show(key)}: {found}, expected {wanted}"
    return ""


def check(engine: Engine, one: Case) -> str:
    """Ask, compare; the fault in words, "" for none."""
    try:
        if one.step:
            result = engine.range(one.expr, one.start, one.end, one.step)
        else:
            result = engine.instant(one.expr, one.start)
    except QueryError as error:
        return "" if one.fails is not None and one.fails in str(error) else f"failed: {error}"
    if one.fails is not None:
        return f"answered {result.value}, expected a failure"
    for word, got in (("warn", result.warnings), ("info", result.infos)):
        wanted = one.remarks[word]
        if len(wanted) != len(got) or not all(any(text in remark for remark in got) for text in wanted):
            return f"{word}: {got}, expected {wanted}"
    if one.string is not None:
        return "" if result.value == one.string else f"{result.value!r}, expected {one.string!r}"
    rows: Rows = {(): [one.scalar]} if one.scalar is not None else one.rows
    if (one.scalar is not None) != (result.kind == "scalar") and not one.step:
        return f"a {result.kind}, which was not expected"
    got = rows_of(result, range(one.start, one.end + 1, one.step or 1))
    if one.ordered and list(got) != list(rows):
        return f"order {[show(key) for key in got]}"
    return difference(rows, got) or ("" if one.step else _in_range(engine, one, rows, result.kind))


def _in_range(engine: Engine, one: Case, rows: Rows, kind: str) -> str:
    if kind in {"matrix", "string"} or "start()" in one.expr or "end()" in one.expr:
        return ""
    times = range(one.start - 60_000, one.start + 60_001, 60_000)
    got = rows_of(engine.range(one.expr, times[0], times[-1], 60_000), times)
    wrong = difference(rows, {key: row[1:2] for key, row in got.items() if row[1] is not None})
    return f"in a range: {wrong}" if wrong else ""


def run(path: Path) -> Iterator[tuple[Case, str]]:
    """Every case of a script with its fault."""
    storage = MemoryStorage()
    for block in blocks(path):
        head = block[0][1]
        if head == "clear":
            storage = MemoryStorage()
        elif head.startswith("load "):
            step = milliseconds(head.split()[1])
            for number, line in block[1:]:
                series = _SERIES.fullmatch(line)
                assert series, f"line {number}: {line}"
                row = values(series[2])
                storage.add(dict(labels(series[1])), [(i * step, x) for i, x in enumerate(row) if x is not None])
        else:
            one = case(block)
            yield one, check(Engine(storage), one)
