"""Lines at the thresholds of the rules in force, the overrides of this host included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """The number that each alert compares with: the first of its expression."""

    def __init__(self, rules: RuleSet) -> None:
        self._known: Mapping[str, Drawn] = {
            rule.name: Drawn(_number(rule), _COLOURS.get(dict(rule.labels)["severity"].text, "yellow")
                             if "severity" in dict(rule.labels) else "yellow")
            for _, rule in rules.rules() if isinstance(rule, AlertRule) and rule.expression.thresholds
        }  # fmt: skip

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


def _number(rule: AlertRule) -> float:
    start, end = rule.expression.thresholds[0]
    return float(rule.expression.text[start:end])
