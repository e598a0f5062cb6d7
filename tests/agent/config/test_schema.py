"""Nodes to typed values: every type an option may have, and every way to get it wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.config.schema import Reader
from agent.core.options import option, required
from agent.core.problems import MOST_PROBLEMS, Problem
from agent.core.secrets import Secret
from agent.core.units import Bytes, Percent, Seconds
from agent.core.yaml_nodes import parse
from alerting.rule_overrides import RuleOverride


def not_empty(text: str) -> None:
    if not text:
        raise ValueError("is empty; write a name")


@dataclass
class Valve:
    """A part of it."""

    name: str = required("Its name.", example="inlet")
    open: Percent = option(0.0, "How far it is open.")


@dataclass
class Fragile:
    """Somebody else's mistakes."""

    path: Path = option(Path(), "A type that options cannot have.")
    key: Secret | None = option(None, "A secret.")

    def __post_init__(self) -> None:
        if self.key is not None:
            raise LookupError(f"{self.key.reveal()} is unknown")


@dataclass
class Machine:
    """Everything an option can be."""

    delay: Seconds = option(1.0, "A duration.", minimum=0.5, maximum=60)
    space: Bytes = option(1024, "A size.", minimum=1024)
    level: Percent = option(50.0, "A percentage.", maximum=100)
    count: int = option(1, "A whole number.", minimum=1)
    factor: float = option(1.0, "A number.")
    fast: bool = option(True, "A truth value.")
    label: str = option("x", "A text.", check=not_empty)
    mode: Literal["auto", "manual"] = option("auto", "A choice.")
    version: Literal[1, 2] = option(1, "A choice of numbers.")
    parts: list[str] = option(list, "A list.")
    waits: list[Seconds] = option(list, "A list of durations.", minimum=1)
    ports: tuple[int, ...] = option((), "A tuple.")
    kinds: frozenset[str] = option(frozenset, "A set.")
    tags: dict[str, str] = option(dict, "A mapping.")
    valve: Valve | None = option(None, "Options of its own.")
    valves: list[Valve] = option(list, "A list of them.")
    named: dict[str, Valve] = option(dict, "A mapping of them.")
    most: Bytes | None = option(None, "A size or none.")
    match: re.Pattern[str] | None = option(None, "A pattern.")
    either: int | list[int] = option(0, "A number or several.")
    number_or_pause: int | Seconds = option(0, "Two types of the same shape.")
    key: Secret | None = option(None, "A secret.")
    keys: dict[str, Secret] = option(dict, "Secrets.")
    fragile: Fragile | None = option(None, "Another's options.")


def read(text: str, **environ: str) -> tuple[Machine | None, list[str]]:
    problems: list[Problem] = []
    tree = parse(text, "f", problems)
    assert tree is not None
    assert problems == []
    reader = Reader(environ, no_plugins)
    machine = reader.section(Machine, tree, "")
    lines = [str(error) for error in sorted(reader.errors, key=lambda error: (error.place.line, error.path))]
    return (machine if isinstance(machine, Machine) else None), lines


def no_plugins(reader: Reader, table: str, node: object, path: str) -> Any:
    raise AssertionError(table)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("delay: 0m30s", "delay", 30.0),
        ("delay: '5s'", "delay", 5.0),
        ("space: 1.5KiB", "space", 1536),
        ("level: 85%", "level", 85.0),
        ("count: 12", "count", 12),
        ("factor: 2", "factor", 2.0),
        ("fast: false", "fast", False),
        ("label: 12", "label", "12"),
        ("label: yes", "label", "yes"),
        ("label: 'null'", "label", "null"),
        ("mode: manual", "mode", "manual"),
        ("version: 2", "version", 2),
        ("parts: [a, 'b c', 3]", "parts", ["a", "b c", "3"]),
        ("parts:", "parts", []),
        ("waits: [1s, 2m]", "waits", [1.0, 120.0]),
        ("ports: [80, 443]", "ports", (80, 443)),
        ("kinds: [a, b, a]", "kinds", frozenset({"a", "b"})),
        ("tags: {rack: 12, on: yes}", "tags", {"rack": "12", "on": "yes"}),
        ("tags:", "tags", {}),
        ("valve: {name: in}", "valve", Valve("in")),
        ("valve: null", "valve", None),
        ("valves: [{name: in, open: 5%}]", "valves", [Valve("in", 5.0)]),
        ("named: {a: {name: in}}", "named", {"a": Valve("in")}),
        ("most: 1GiB", "most", 1 << 30),
        ("most: ~", "most", None),
        ("match: ^eth", "match", re.compile("^eth")),
        ("either: 3", "either", 3),
        ("either: [3, 4]", "either", [3, 4]),
        ("number_or_pause: 3", "number_or_pause", 3),
        ("number_or_pause: 3s", "number_or_pause", 3.0),
        ("key: ${KEY}", "key", Secret("k3y")),
        ('keys: {a: "${KEY}"}', "keys", {"a": Secret("k3y")}),
        ("count: ${COUNT}", "count", 7),
        ('count: "${COUNT}"', "count", 7),
        ("fast: ${NOT_SET:-false}", "fast", False),
        ("label: a${COUNT}$$", "label", "a7$"),
    ],
)
def test_values(text: str, field: str, value: object) -> None:
    machine, lines = read(text, COUNT="7", KEY="k3y")
    assert lines == []
    assert getattr(machine, field) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("delay: 5", "f:1: delay: '5' has no unit; write it like 90s, 5m or 1h30m"),
        ("delay: 1:30", "f:1: delay: '1:30' is not a duration; write it like 90s, 5m or 1h30m"),
        ("delay: 100ms", "f:1: delay: '100ms' is below the least allowed, 500ms"),
        ("delay: 2m", "f:1: delay: '2m' is above the most allowed, 1m"),
        ("delay: [5s]", "f:1: delay: found a list; write a duration"),
        ("delay:", "f:1: delay: has no value; write a duration, or remove the line"),
        ("space: 1kB", "f:1: space: '1kB' is below the least allowed, 1KiB"),
        ("level: 101%", "f:1: level: '101%' is above the most allowed, 100%"),
        ("count: 0", "f:1: count: '0' is below the least allowed, 1"),
        ("count: '3'", "f:1: count: '3' is in quotes; write a whole number without"),
        ("count: ${WORD}", "f:1: count: '${WORD}' (with its variables put in) is not a whole number; write it like 10"),
        ("fast: yes", "f:1: fast: 'yes' is not a truth value here; write true"),
        ("fast: 'true'", "f:1: fast: 'true' is in quotes; write true or false without"),
        ("label: ''", "f:1: label: '' is empty; write a name"),
        ("label: {a: b}", "f:1: label: found a mapping; write text"),
        ("label: ${NOT_SET}",
         "f:1: label: environment variable NOT_SET is not set; set it, or write ${NOT_SET:-otherwise}"),
        ("mode: manul", "f:1: mode: 'manul' is not one of the choices; did you mean 'manual'?"),
        ("mode: xyz", "f:1: mode: 'xyz' is not one of the choices; write one of auto, manual"),
        ("version: 3", "f:1: version: '3' is not one of the choices; write one of 1, 2"),
        ("parts: a", "f:1: parts: found a single value; write a list like [first, second]"),
        ("waits: [1s, 10ms]", "f:1: waits[1]: '10ms' is below the least allowed, 1s"),
        ("tags: [a]", "f:1: tags: found a list; write a mapping like {name: value}"),
        ("tags: {a: [b]}", "f:1: tags.a: found a list; write text"),
        ("valve: {}", "f:1: valve.name: is missing; write it like inlet (Its name)"),
        ("valves:\n- name: a\n- nme: b\n  name: c", "f:3: valves[1].nme: no such option; did you mean 'name'?"),
        ("named: {a b: {name: x, open: 3}}", "f:1: named.'a b'.open: '3' has no unit; write it like 85%"),
        ("match: '['", "f:1: match: '[' is not a regular expression: unterminated character set at position 0"),
        ("either: [a]", "f:1: either[0]: 'a' is not a whole number; write it like 10"),
        ("either: {a: b}", "f:1: either: a mapping is neither whole number nor list of whole number"),
        ("number_or_pause: x", "f:1: number_or_pause: a single value is neither whole number nor duration"),
        ("fragile: {path: /a}",
         ("f:1: fragile.path: '/a' cannot be taken: the option is declared as <class 'pathlib.Path'>,"
         " which no option can be")),
        ("fragile: {key: hunter2}",
         "f:1: fragile: Fragile does not take these options: LookupError: *** is unknown"),
        ("delai: 5s", "f:1: delai: no such option; did you mean 'delay'?"),
        ("label:abc: 3", "f:1: label: a space is missing after the colon"),
    ],
)  # fmt: skip
def test_errors(text: str, line: str) -> None:
    machine, lines = read(text, WORD="hidden")
    assert machine is None
    assert lines == [line]


def test_an_unknown_option_that_resembles_none_is_told_what_there_is() -> None:
    _, lines = read("valve: {name: a, qqq: b}")
    assert lines == ["f:1: valve.qqq: no such option; the options here are name, open"]


def test_all_errors_are_said_at_once() -> None:
    _, lines = read("delay: 5\nvalve:\n  open: 3\nfast: on\ncolour: red\n")
    assert [line.split(": ")[:2] for line in lines] == [
        ["f:1", "delay"], ["f:3", "valve.name"], ["f:3", "valve.open"], ["f:4", "fast"], ["f:5", "colour"],
    ]  # fmt: skip


def test_a_file_wrong_throughout_is_not_read_to_its_end() -> None:
    _, lines = read("".join(f"key{at}: x\n" for at in range(20_000)))
    assert len(lines) == MOST_PROBLEMS + 1
    assert "f: there are more errors; correct these first" in lines


def test_a_long_value_is_cut_and_kept_on_one_line() -> None:
    _, lines = read('fast: "' + "x\\n" * 1000 + '"')
    assert len(lines) == 1
    assert len(lines[0]) < 160
    assert "\n" not in lines[0]


def test_overrides_of_rules_are_read_as_they_are_written() -> None:
    """`for` is no name that Python gives a field, so the field is `for_`."""
    problems: list[Problem] = []
    tree = parse("A: {for: 10m, threshold: 95, enabled: false, labels: {severity: page}}\nB: {fro: 1m}", "f", problems)
    assert tree is not None
    reader = Reader({}, lambda *_: None)
    read = reader.value(dict[str, RuleOverride], tree, "rules.overrides", {})
    assert [str(error) for error in reader.errors][:1] == [
        "f:2: rules.overrides.B.fro: no such option; did you mean 'for'?"
    ]
    del tree.items["B"]
    read = Reader({}, lambda *_: None).value(dict[str, RuleOverride], tree, "rules.overrides", {})
    assert read == {"A": RuleOverride(enabled=False, threshold=95.0, for_=600.0, labels={"severity": "page"})}
