"""Rules whose series do not exist here: they load, they are evaluated, and they never say anything.

What a recording rule makes counts as existing, and so do the series of the rules themselves. A rule that asks for the
absence of something is not expected to find it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.labels import METRIC_NAME, Matcher
from alerting.expressions import Input, SeriesNames
from alerting.rules import RecordRule, Rule, RuleGroup

_OF_RULES: Final = frozenset({"ALERTS", "ALERTS_FOR_STATE"})


@dataclass(frozen=True, slots=True)
class Missing:
    """A selector of a rule that finds nothing. `because`: what is missing, in a sentence."""

    group: RuleGroup
    rule: Rule
    selector: str
    because: str

    def __str__(self) -> str:
        return f"{self.rule.place}: {self.group.name}/{self.rule.name}: {self.because}"


def missing_series(groups: Sequence[RuleGroup], names: SeriesNames) -> list[Missing]:
    """Every selector that finds nothing, each once a rule, in the order of the files."""
    recorded = {rule.name for group in groups for rule in group.rules if isinstance(rule, RecordRule)}
    found = []
    known: dict[str, str] = {}
    for group in groups:
        for rule in group.rules:
            told = set()
            for one in rule.expression.inputs:
                if one.asks_for_absence or one.name in recorded or one.name in _OF_RULES:
                    continue
                selector = _shown(one)
                if selector not in known:
                    known[selector] = _because(one, selector, names)
                if known[selector] and selector not in told:
                    told.add(selector)
                    found.append(Missing(group, rule, selector, known[selector]))
    return found


def _because(one: Input, selector: str, names: SeriesNames) -> str:
    """Why nothing is found; "" where something is."""
    if names.exists(one.matchers):
        return ""
    if not one.name:
        return f"no series matches {selector}"
    by_name = [matcher for matcher in one.matchers if matcher.name == METRIC_NAME]
    if not names.exists(by_name):
        return f"there is no {one.name} on this host{_alike(one.name, names.metrics())}"
    for matcher in one.matchers:
        if matcher.name != METRIC_NAME and not names.exists([*by_name, matcher]):
            return f"{one.name} exists, but none with {matcher}"
    return f"{one.name} exists, but no series matches all of {selector}"


def _alike(name: str, known: Collection[str]) -> str:
    """A hint at a metric of nearly the same name: one that is spelled wrong, not one that is about something else."""
    import difflib  # needed only once something is missing

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shown(one: Input) -> str:
    rest = [str(matcher) for matcher in one.matchers if not _is_name(one, matcher)]
    return one.name + ("{" + ", ".join(rest) + "}" if rest else "")


def _is_name(one: Input, matcher: Matcher) -> bool:
    return bool(one.name) and matcher.name == METRIC_NAME and matcher.op == "="
