"""Lines at the thresholds of the rules in force, the overrides of this host included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.dashboards.panels import Line
from alerting.rule_files import RuleSet
from alerting.rules import AlertRule

_COLOURS = {"critical": "red", "warning": "orange"}


class Drawn(NamedTuple):
    """A line: the value and its colour."""

    value: float
    colour: str


class Thresholds:
    """The number that each alert compares with: the first of its expression, where that is a plain one."""

    def __init__(self, rules: RuleSet) -> None:
        self._known: dict[str, Drawn] = {}
        for _, rule in rules.rules():
            if isinstance(rule, AlertRule) and (value := _number(rule)) is not None:
                severity = dict(rule.labels).get("severity")
                colour = _COLOURS.get(severity.text, "yellow") if severity is not None else "yellow"
                self._known[rule.name] = Drawn(value, colour)

    def drawn(self, lines: Iterable[Line]) -> list[Drawn]:
        """The lines by value; a rule that is turned off has none."""
        found = []
        for line in lines:
            if line.value is not None:
                found.append(Drawn(line.value, "red"))
            elif line.rule in self._known:
                known = self._known[line.rule]
                found.append(Drawn(100.0 - known.value, known.colour) if line.of_rest else known)
        return sorted(found)


def _number(rule: AlertRule) -> float | None:
    """None where nothing is compared, or with something to be calculated."""
    if not rule.expression.thresholds:
        return None
    start, end = rule.expression.thresholds[0]
    try:
        return float(rule.expression.text[start:end])
    except ValueError:
        return None
