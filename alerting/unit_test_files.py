"""promtool's unit-test files, read: which rules, which series, what is expected when.

Facts: Prometheus' reference of unit tests for rules. Durations are in ms.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agent.core import yaml_nodes as nodes
from agent.core.labels import Labels
from agent.core.problems import Place, Problem, did_you_mean, shown
from agent.core.query import ParseError
from agent.core.yaml_nodes import Node, Text
from alerting.expressions import Language
from alerting.series_notation import Item, parse_values
from alerting.templates.functions import parse_duration
from alerting.templates.values import TemplateError

T = TypeVar("T")

_FLOAT: Final = re.compile(r"[+-]?(?:(?:\d[\d_]*)?\.?\d[\d_]*\.?(?:[eE][+-]?\d+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)")


@dataclass(slots=True)
class ExpectedAlert:
    """One alert that must be firing; names and values as written."""

    labels: dict[str, str]
    annotations: dict[str, str]


@dataclass(slots=True)
class AlertTest:
    """At `eval_ms` exactly these alerts of this name fire."""

    place: Place
    eval_ms: int
    name: str
    expected: list[ExpectedAlert]


@dataclass(slots=True)
class ExprTest:
    """At `eval_ms` the query yields exactly these samples; their labels are a text that may be wrong."""

    place: Place
    expr: str
    eval_ms: int
    expected: list[tuple[str, float]]


@dataclass(slots=True)
class TestGroup:
    """Series and what follows from them. `interval_ms`: between two samples."""

    __test__ = False  # its name is promtool's

    place: Place
    name: str = ""
    interval_ms: int = 0
    series: dict[Labels, list[Item]] = field(default_factory=dict)
    alert_tests: list[AlertTest] = field(default_factory=list)
    expr_tests: list[ExprTest] = field(default_factory=list)
    external_labels: dict[str, str] = field(default_factory=dict)
    external_url: str = ""
    problems: list[Problem] = field(default_factory=list)  # that keep this group from being run


@dataclass(slots=True)
class TestFile:
    """A file as read. `remarks`: patterns that no rule file matches."""

    __test__ = False  # its name is promtool's

    rule_files: list[str] = field(default_factory=list)
    evaluation_ms: int = 60_000
    order: list[str] = field(default_factory=list)
    is_fuzzy: bool = False
    groups: list[TestGroup] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read_test_file(path: str, language: Language) -> TestFile:
    """The file; where `problems` has any, nothing of it can be run."""
    found = TestFile()
    tree = nodes.read_file(path, found.problems, with_aliases=True)
    if tree is not None:
        _Reader(os.path.dirname(path), language, found).read(tree)
    return found


class _Reader:
    """One file."""

    def __init__(self, directory: str, language: Language, found: TestFile) -> None:
        self._directory = directory
        self._language = language
        self._found = found

    def read(self, tree: nodes.Mapping) -> None:
        keys = ("rule_files", "evaluation_interval", "group_eval_order", "fuzzy_compare", "tests")
        self._known(tree, keys, "")
        found = self._found
        for pattern in self._texts(tree, "rule_files"):
            found.rule_files += self._globbed(pattern)
        found.evaluation_ms = self._duration(tree, "evaluation_interval") or 60_000
        found.is_fuzzy = self._text(tree, "fuzzy_compare").lower() in ("true", "yes", "on", "y")
        found.order = self._texts(tree, "group_eval_order")
        for name in found.order:
            if found.order.count(name) > 1:
                self._wrong(tree.items["group_eval_order"], "group_eval_order", f"{shown(name)} stands in it twice")
                break
        found.groups = [self._group(node) for node in self._list(tree, "tests", "")]

    def _globbed(self, pattern: str) -> list[str]:
        matches = sorted(glob.glob(os.path.join(self._directory, pattern)))
        if not matches:
            self._found.remarks.append(f"no file matches {pattern}")
        return matches

    def _group(self, node: Node) -> TestGroup:
        group = TestGroup(node.place)
        keys = ("interval", "input_series", "alert_rule_test", "promql_expr_test", "external_labels", "external_url",
                "name")  # fmt: skip
        mapping = self._mapping(node, "tests", keys)
        group.name = self._text(mapping, "name")
        group.interval_ms = self._duration(mapping, "interval") or self._found.evaluation_ms
        group.external_labels = self._pairs(mapping, "external_labels")
        group.external_url = self._text(mapping, "external_url")
        for one in self._list(mapping, "input_series", "tests"):
            self._series(one, group)
        for one in self._list(mapping, "alert_rule_test", "tests"):
            self._alert_test(one, group)
        for one in self._list(mapping, "promql_expr_test", "tests"):
            self._expr_test(one, group)
        return group

    def _series(self, node: Node, group: TestGroup) -> None:
        mapping = self._mapping(node, "input_series", ("series", "values"))
        series, values = self._text(mapping, "series"), self._text(mapping, "values")
        try:
            labels = self._language.series(series)
            group.series[labels] = parse_values(values)  # the later of two takes the place of the first
        except (ParseError, ValueError) as error:
            group.problems.append(Problem(node.place, f"input_series {shown(series)}", str(error)))

    def _alert_test(self, node: Node, group: TestGroup) -> None:
        mapping = self._mapping(node, "alert_rule_test", ("eval_time", "alertname", "exp_alerts"))
        test = AlertTest(node.place, self._duration(mapping, "eval_time"), self._text(mapping, "alertname"), [])
        if not test.name:
            group.problems.append(Problem(node.place, "alert_rule_test.alertname", "is missing; name the alert"))
        for one in self._list(mapping, "exp_alerts", "alert_rule_test"):
            inner = self._mapping(one, "exp_alerts", ("exp_labels", "exp_annotations"))
            labels = self._pairs(inner, "exp_labels") | {"alertname": test.name}
            test.expected.append(ExpectedAlert(labels, self._pairs(inner, "exp_annotations")))
        group.alert_tests.append(test)

    def _expr_test(self, node: Node, group: TestGroup) -> None:
        mapping = self._mapping(node, "promql_expr_test", ("expr", "eval_time", "exp_samples"))
        test = ExprTest(node.place, self._text(mapping, "expr"), self._duration(mapping, "eval_time"), [])
        for one in self._list(mapping, "exp_samples", "promql_expr_test"):
            inner = self._mapping(one, "exp_samples", ("labels", "value", "histogram"))
            if "histogram" in inner.items:
                self._wrong(inner, "exp_samples.histogram", "histograms are not kept here")
            test.expected.append((self._text(inner, "labels"), self._float(inner, "value")))
        group.expr_tests.append(test)

    # Words of the format.

    def _mapping(self, node: Node, path: str, keys: tuple[str, ...]) -> nodes.Mapping:
        if not isinstance(node, nodes.Mapping):
            self._wrong(node, path, nodes.NO_MAPPING)
            return nodes.Mapping(node.place)
        self._known(node, keys, path)
        return node

    def _known(self, mapping: nodes.Mapping, keys: tuple[str, ...], path: str) -> None:
        for key in mapping.items.keys() - set(keys):
            hint = did_you_mean(key, keys) or f"; known here are {', '.join(keys)}"
            self._wrong(mapping, f"{path}.{key}" if path else key, f"no such key{hint}", mapping.places[key])

    def _list(self, mapping: nodes.Mapping, key: str, path: str) -> Iterator[Node]:
        node = mapping.items.get(key)
        if isinstance(node, nodes.Sequence):
            yield from node.items
        elif node is not None and not (isinstance(node, Text) and node.is_null):
            self._wrong(node, f"{path}.{key}" if path else key, "is no list; write each entry after a dash")

    def _texts(self, mapping: nodes.Mapping, key: str) -> list[str]:
        return [self._as_text(node, key) for node in self._list(mapping, key, "")]

    def _text(self, mapping: nodes.Mapping, key: str) -> str:
        node = mapping.items.get(key)
        return "" if node is None else self._as_text(node, key)

    def _as_text(self, node: Node, path: str) -> str:
        if isinstance(node, Text):
            return "" if node.is_null else node.text
        self._wrong(node, path, "is no text")
        return ""

    def _pairs(self, mapping: nodes.Mapping, key: str) -> dict[str, str]:
        node = mapping.items.get(key)
        if node is None or (isinstance(node, Text) and node.is_null):
            return {}
        if not isinstance(node, nodes.Mapping):
            self._wrong(node, key, nodes.NO_MAPPING)
            return {}
        return {name: self._as_text(value, f"{key}.{name}") for name, value in node.items.items()}

    def _duration(self, mapping: nodes.Mapping, key: str) -> int:
        return self._read(mapping, key, lambda node: round(parse_duration(node.text) * 1000), 0,
                          "is not a duration; write it like 90s, 5m or 1h30m")  # fmt: skip

    def _float(self, mapping: nodes.Mapping, key: str) -> float:
        return self._read(mapping, key, _yaml_float, 0.0, "is not a number; write it like 1.5, .inf or .nan")

    def _read(self, mapping: nodes.Mapping, key: str, read: Callable[[Text], T], default: T, complaint: str) -> T:
        node = mapping.items.get(key)
        if node is None or (isinstance(node, Text) and node.is_null):
            return default
        try:
            if isinstance(node, Text):
                return read(node)
        except (ValueError, TemplateError):
            pass  # said below
        self._wrong(node, key, f"{shown(node.text) if isinstance(node, Text) else 'this'} {complaint}")
        return default

    def _wrong(self, node: Node, path: str, text: str, place: Place | None = None) -> None:
        self._found.problems.append(Problem(place or node.place, path, text))


def _yaml_float(node: Text) -> float:
    """A number as YAML writes it; one in quotes is a text. Raise ValueError."""
    if not node.is_plain or not _FLOAT.fullmatch(node.text):
        raise ValueError(node.text)
    return float(node.text.lower().replace(".inf", "inf").replace(".nan", "nan"))
