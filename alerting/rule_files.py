"""Prometheus rule files: read unchanged, each fault said with its line, the rules beside it kept.

Facts: Prometheus' reference of recording and alerting rules. A rule with a fault is left out; extensions of ours never
add keys to a rule, they are annotations (`vigilhost_no_data`) or stand in our own YAML (`alerting.rule_overrides`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar, cast

from agent.core import yaml_nodes as nodes
from agent.core.labels import METRIC_NAME
from agent.core.problems import Place, Problem, did_you_mean, join, shown
from agent.core.query import ParseError
from agent.core.yaml_nodes import Node, Text
from alerting.expressions import Expression, Language
from alerting.rules import NO_DATA, AlertRule, NoData, RecordRule, Rule, RuleGroup
from alerting.templates.expander import Template
from alerting.templates.functions import parse_duration
from alerting.templates.values import TemplateError

T = TypeVar("T")

_GROUP_KEYS: Final = ("name", "interval", "query_offset", "limit", "labels", "rules")
_ALERT_KEYS: Final = ("alert", "expr", "for", "keep_firing_for", "labels", "annotations")
_RECORD_KEYS: Final = ("record", "expr", "labels")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(slots=True)
class RuleSet:
    """What was read: the groups that can be used, what is wrong (and left out), what is doubtful."""

    groups: list[RuleGroup] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def rules(self) -> Iterator[tuple[RuleGroup, Rule]]:
        """Every rule with its group."""
        return ((group, rule) for group in self.groups for rule in group.rules)


def read_rule_files(paths: Iterable[str], language: Language) -> RuleSet:
    """The rules of these files together, without those that repeat another word for word."""
    found = RuleSet()
    for path in paths:
        read_rule_file(path, language, found)
    return _without_twins(found)


def read_rule_file(path: str, language: Language, into: RuleSet) -> None:
    """Add the groups of one file, and its problems. One that is no YAML is said as a whole."""
    text = nodes.read_text(path, into.errors)
    if text is not None:
        found = parse_rules(text, path, language)
        into.groups += found.groups
        into.errors += found.errors
        into.warnings += found.warnings


def parse_rules(text: str, file: str, language: Language) -> RuleSet:
    """The rules of a text that would be called `file`, repetitions included."""
    found = RuleSet()
    tree = nodes.parse(text, file, found.errors, with_aliases=True)
    if tree is not None:
        found.groups += _Reader(file, language, found).groups(tree)
    return found


def _without_twins(found: RuleSet) -> RuleSet:
    """Leave out rules that say again what another says: the same name and labels, and the same expression."""
    seen: dict[tuple[str, ...], Rule] = {}
    groups = []
    for group in found.groups:
        kept = []
        for rule in group.rules:
            first = seen.setdefault(rule.key, rule)
            if first is rule:
                kept.append(rule)
            elif first.expression.canonical == rule.expression.canonical:
                text = f"is the same rule as the one at {first.place}; remove one"
                found.errors.append(Problem(rule.place, f"{group.name}/{rule.name}", text))
            else:
                text = f"has the name and the labels of the rule at {first.place}; a label of its own tells them apart"
                found.warnings.append(Problem(rule.place, f"{group.name}/{rule.name}", text))
                kept.append(rule)
        groups.append(group if len(kept) == len(group.rules) else replace(group, rules=tuple(kept)))
    return RuleSet(groups, found.errors, found.warnings)


class _LeftOutError(Exception):
    """The rule or group cannot be used; why is among the problems."""


class _Reader:
    """One file."""

    def __init__(self, file: str, language: Language, into: RuleSet) -> None:
        self._file = file
        self._language = language
        self._into = into

    def groups(self, root: nodes.Mapping) -> list[RuleGroup]:
        """Every group that can be used, with the rules that can be used."""
        self._known_keys(root, ("groups",), "")
        given = root.items.get("groups")
        if given is None or (isinstance(given, Text) and given.is_null):
            return []
        if not isinstance(given, nodes.Sequence):
            self._error(given.place, "groups", "is no list; write each group after a dash")
            return []
        found: dict[str, RuleGroup] = {}
        for index, node in enumerate(given.items):
            try:
                group = self._group(node, f"groups[{index}]")
            except _LeftOutError:
                continue
            if group.name in found:
                text = f"a group called {shown(group.name)} stands at {found[group.name].place} already; rename one"
                self._error(group.place, f"groups[{index}].name", text)
                continue
            found[group.name] = group
        return list(found.values())

    def _group(self, node: Node, path: str) -> RuleGroup:
        mapping = self._mapping(node, path)
        self._known_keys(mapping, _GROUP_KEYS, path)
        name = self._text(mapping, "name", path)
        if not name:
            raise self._left_out(mapping.place, join(path, "name"), "is missing; give the group a name")
        interval = self._duration(mapping, "interval", name)
        offset = self._duration(mapping, "query_offset", name)
        limit = self._limit(mapping, name)
        labels = self._pairs(mapping, "labels", name, self._checked_label)
        rules: list[Rule] = []
        given = mapping.items.get("rules")
        if isinstance(given, nodes.Sequence):
            for index, one in enumerate(given.items):
                try:
                    rules.append(self._rule(one, f"{name}/rules[{index}]", name, labels))
                except _LeftOutError:
                    continue
        elif given is not None and not (isinstance(given, Text) and given.is_null):
            self._error(given.place, f"{name}.rules", "is no list; write each rule after a dash")
        return RuleGroup(name, self._file, tuple(rules), mapping.place, interval or None, limit, offset)

    def _rule(self, node: Node, path: str, group: str, shared: dict[str, Text]) -> Rule:
        mapping = self._mapping(node, path)
        alert, record = self._text(mapping, "alert", path), self._text(mapping, "record", path)
        if alert and record:
            raise self._left_out(mapping.place, path, "is both `alert` and `record`; make two rules of it")
        if not alert and not record:
            self._known_keys(mapping, (*_ALERT_KEYS, "record"), path)
            raise self._left_out(mapping.place, path, "has neither `alert` nor `record`; give it a name")
        path = f"{group}/{alert or record}"
        before = len(self._into.errors)
        rule = self._alert(mapping, alert, path, shared) if alert else self._record(mapping, record, path, shared)
        if rule is None or len(self._into.errors) > before:
            raise _LeftOutError
        return rule

    def _alert(self, mapping: nodes.Mapping, name: str, path: str, shared: dict[str, Text]) -> AlertRule | None:
        self._known_keys(mapping, _ALERT_KEYS, path)
        expression = self._expression(mapping, path)
        hold, keep = self._duration(mapping, "for", path), self._duration(mapping, "keep_firing_for", path)
        labels = shared | self._pairs(mapping, "labels", path, self._checked_label)
        notes = self._pairs(mapping, "annotations", path, self._checked_name)
        no_data = self._no_data(notes.get(NO_DATA), path)
        label_templates = self._templates(labels, f"{path}.labels")
        note_templates = self._templates(notes, f"{path}.annotations")
        if expression is None:
            return None
        return AlertRule(name, expression, mapping.place, hold, keep, label_templates, note_templates, no_data)

    def _record(self, mapping: nodes.Mapping, name: str, path: str, shared: dict[str, Text]) -> RecordRule | None:
        for key in mapping.items.keys() & {"for", "keep_firing_for", "annotations"}:
            text = "belongs to alerts only; remove it from this recording rule"
            self._error(mapping.places[key], f"{path}.{key}", text)
        self._known_keys(mapping, (*_ALERT_KEYS, *_RECORD_KEYS), path)
        if not _METRIC.fullmatch(name):
            place = mapping.items["record"].place
            text = f"{shown(name)} is no metric name; letters, digits, _ and : are allowed"
            self._error(place, f"{path}.record", text)
        expression = self._expression(mapping, path)
        labels = shared | self._pairs(mapping, "labels", path, self._checked_label)
        if expression is None:
            return None
        pairs = tuple(sorted((name, _value(text)) for name, text in labels.items()))
        return RecordRule(name, expression, mapping.place, pairs)

    def _expression(self, mapping: nodes.Mapping, path: str) -> Expression | None:
        node = mapping.items.get("expr")
        path = f"{path}.expr"
        if node is None or (isinstance(node, Text) and not node.text.strip()):
            self._error(mapping.place, path, "is missing; write the query that the rule is about")
            return None
        if not isinstance(node, Text):
            self._error(node.place, path, "is no text; put the query in quotes, or below `expr: |`")
            return None
        try:
            return self._language.read(node.text)
        except ParseError as error:
            line = node.place.line + error.line if node.is_literal else node.place.line
            self._error(Place(self._file, line), path, str(error))
            return None

    def _no_data(self, node: Text | None, path: str) -> NoData:
        if node is None:
            return "hold"
        if node.text not in ("hold", "resolve"):
            text = f"found {shown(node.text)}; hold or resolve would be right"
            self._error(node.place, f"{path}.annotations.{NO_DATA}", text)
        return cast("NoData", node.text)

    # Words of the format.

    def _templates(self, pairs: Mapping[str, Text], path: str) -> tuple[tuple[str, Template], ...]:
        found = []
        for name, node in sorted(pairs.items()):
            try:
                found.append((name, Template(_value(node))))
            except TemplateError as error:
                self._error(node.place, f"{path}.{name}", f"is no template: {error}")
        return tuple(found)

    def _pairs(self, mapping: nodes.Mapping, key: str, path: str,
               check: Callable[[str, Place, str], None]) -> dict[str, Text]:  # fmt: skip
        node = mapping.items.get(key)
        if node is None or (isinstance(node, Text) and node.is_null):
            return {}
        path = f"{path}.{key}"
        if not isinstance(node, nodes.Mapping):
            self._error(node.place, path, "is no mapping; write name: value")
            return {}
        found = {}
        for name, value in node.items.items():
            check(name, node.places.get(name, node.place), path)
            if isinstance(value, Text):
                found[name] = value
            else:
                self._error(value.place, f"{path}.{name}", "is no text; put it in quotes")
        return found

    def _checked_name(self, name: str, place: Place, path: str) -> None:
        if not _LABEL.fullmatch(name):
            self._error(place, path, f"{shown(name)} is no name; letters, digits and _ are allowed, no digit first")

    def _checked_label(self, name: str, place: Place, path: str) -> None:
        self._checked_name(name, place, path)
        if name == METRIC_NAME:
            self._error(place, path, "__name__ is the metric's own name; call the label something else")

    def _duration(self, mapping: nodes.Mapping, key: str, path: str) -> float:
        text = self._text(mapping, key, path)
        if not text:
            return 0.0
        try:
            return parse_duration(text)
        except TemplateError:
            place = mapping.items[key].place
            self._error(place, f"{path}.{key}", f"{shown(text)} is not a duration; write it like 90s, 5m or 1h30m")
            return 0.0

    def _limit(self, mapping: nodes.Mapping, path: str) -> int:
        text = self._text(mapping, "limit", path)
        if not re.fullmatch(r"\d{0,9}", text):
            place = mapping.items["limit"].place
            self._error(place, f"{path}.limit", f"{shown(text)} is not a number of series; 0 is no limit")
            return 0
        return int(text or 0)

    def _text(self, mapping: nodes.Mapping, key: str, path: str) -> str:
        """The text of a key, "" where there is none."""
        node = mapping.items.get(key)
        if node is None:
            return ""
        if not isinstance(node, Text):
            raise self._left_out(node.place, f"{path}.{key}", "is no text")
        return _value(node)

    def _mapping(self, node: Node, path: str) -> nodes.Mapping:
        if isinstance(node, nodes.Mapping):
            return node
        raise self._left_out(node.place, path, nodes.NO_MAPPING)

    def _known_keys(self, mapping: nodes.Mapping, known: tuple[str, ...], path: str) -> None:
        for key in mapping.items.keys() - set(known):
            hint = did_you_mean(key, known) or f"; known here are {', '.join(known)}"
            self._error(mapping.places[key], join(path, key) if not path else f"{path}.{key}", f"no such key{hint}")

    def _left_out(self, place: Place, path: str, text: str) -> _LeftOutError:
        self._error(place, path, text)
        return _LeftOutError()

    def _error(self, place: Place, path: str, text: str) -> None:
        self._into.errors.append(Problem(place, path, text))


def _value(node: Text) -> str:
    return "" if node.is_null else node.text
