"""Inhibition: an alert that fires keeps others quiet. Semantics: Alertmanager's.

A rule mutes a target while a source fires whose `equal` labels have the same values; a missing label is an empty one.
An alert that matches both sides of a rule is not muted by another such alert, nor by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.core.labels import Labels, Matcher, select, value_of
from alerting.matching import parse_matchers
from alerting.notify.message import Alert

_NOTIFY = "notify"  # a label: alerts on which it says `never` are for the rules below alone


def is_for_people(labels: Labels) -> bool:
    """Whether somebody is to be told of such an alert; otherwise it only keeps others quiet."""
    return value_of(labels, _NOTIFY) != "never"


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """While something matches `source`, what matches `target` is not told."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()

    def key(self, labels: Labels) -> tuple[str, ...]:
        """The values that source and target must share."""
        return tuple(value_of(labels, name) for name in self.equal)


class Inhibitor:
    """The rules and the alerts that fire now. Replaced as a whole, or fed by `update`."""

    def __init__(self, rules: Iterable[InhibitRule], alerts: Iterable[Alert] = ()) -> None:
        self._rules = tuple(rules)
        self._sources: list[dict[tuple[str, ...], dict[str, Labels]]] = [{} for _ in self._rules]
        self.update(alerts)

    def update(self, alerts: Iterable[Alert]) -> None:
        """Take note of alerts in their present state."""
        for alert in alerts:
            for rule, sources in zip(self._rules, self._sources, strict=True):
                if not select(alert.labels, rule.source):
                    continue
                same = sources.setdefault(rule.key(alert.labels), {})
                if alert.is_firing:
                    same[alert.fingerprint] = alert.labels
                else:
                    same.pop(alert.fingerprint, None)

    def source_of(self, labels: Labels) -> Labels | None:
        """Labels of a firing alert that mutes an alert with these labels; None when nothing does."""
        for rule, sources in zip(self._rules, self._sources, strict=True):
            same = sources.get(rule.key(labels))
            if not same or not select(labels, rule.target):
                continue
            is_twin = select(labels, rule.source)
            for source in same.values():
                if not (is_twin and select(source, rule.target)):
                    return source
        return None


def parse_inhibit_rule(raw: Mapping[str, object], where: str) -> InhibitRule:
    """A rule as Alertmanager's configuration has it. Raise ValueError that begins with `where` and the key."""
    known = {"source_matchers", "target_matchers", "equal"}
    for key in raw:
        if key not in known:
            raise ValueError(f"{where}.{key}: no such key; one of {', '.join(sorted(known))} would be right")
    sides = []
    for key in ("source_matchers", "target_matchers"):
        texts = raw.get(key)
        if not texts or not isinstance(texts, (str, list)):
            raise ValueError(f"{where}.{key}: found {texts!r}; a list of matchers would be right")
        try:
            sides.append(parse_matchers(texts))
        except ValueError as error:
            raise ValueError(f"{where}.{key}: {error}") from error
    equal = raw.get("equal") or []
    if not isinstance(equal, list):
        raise ValueError(f"{where}.equal: found {equal!r}; a list of label names would be right")
    return InhibitRule(sides[0], sides[1], tuple(map(str, equal)))
