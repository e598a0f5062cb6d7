"""Rules adjusted from our own YAML, so that the files they stand in can be upgraded untouched.

    rules:
      overrides:
        HostDiskFull: {threshold: 95, for: 30m, labels: {severity: critical}}
        HostSwapUsed: {enabled: false}

An override is of a name: every rule of that name takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.core.labels import METRIC_NAME
from agent.core.options import option
from agent.core.problems import Place, Problem, did_you_mean
from agent.core.query import ParseError
from agent.core.units import Seconds
from alerting.expressions import Expression, Language
from alerting.rule_files import RuleSet
from alerting.rules import AlertRule, NoData, Rule
from alerting.templates.expander import Template
from alerting.templates.values import TemplateError

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OPTIONS: Final = Place("rules.overrides")


@dataclass(frozen=True, slots=True)
class RuleOverride:
    """What is different here about the rules of one name."""

    enabled: bool = option(True, "False leaves the rule out.")
    expr: str = option("", "Another query in place of the rule's.")
    threshold: float | None = option(
        None, "Another number to compare with, in place of the first one of the query.", example="90"
    )
    for_: Seconds | None = option(None, "How long the query must yield something before the alert fires.", minimum=0)
    keep_firing_for: Seconds | None = option(None, "How long the alert goes on when the query has stopped.", minimum=0)
    labels: dict[str, str] = option(dict, "Labels added or replaced; an empty one is taken away.")
    annotations: dict[str, str] = option(dict, "Annotations added or replaced; an empty one is taken away.")
    no_data: NoData | None = option(
        None, "What becomes of an alert whose collector failed: hold keeps it as it is, resolve ends it."
    )


def apply_overrides(found: RuleSet, overrides: Mapping[str, RuleOverride], language: Language) -> RuleSet:
    """The rules as adjusted. An override that cannot be carried out is an error, and leaves its rule as it was.

    An override of no rule is a warning: the rule may have gone with an upgrade.
    """
    result = RuleSet([], list(found.errors), list(found.warnings))
    for group in found.groups:
        rules: list[Rule] = []
        for rule in group.rules:
            override = overrides.get(rule.name)
            if override is None:
                rules.append(rule)
            elif override.enabled:
                try:
                    rules.append(_adjusted(rule, override, language))
                except (ParseError, TemplateError, ValueError) as error:
                    result.errors.append(Problem(rule.place, f"rules.overrides.{rule.name}", str(error)))
                    rules.append(rule)
        result.groups.append(replace(group, rules=tuple(rules)))
    names = {rule.name for _, rule in found.rules()}
    for name in overrides:
        if name not in names:
            result.warnings.append(Problem(_OPTIONS, name, f"there is no such rule{did_you_mean(name, names)}"))
    return result


def _adjusted(rule: Rule, override: RuleOverride, language: Language) -> Rule:
    """The rule as the override wants it. Raise ParseError, TemplateError or ValueError."""
    expression = language.read(override.expr) if override.expr else rule.expression
    if override.threshold is not None:
        expression = _compared_with(expression, override.threshold, language)
    for name in override.labels:
        if not _LABEL.fullmatch(name) or name == METRIC_NAME:
            raise ValueError(f"labels: {name!r} is no label name; letters, digits and _ are allowed, no digit first")
    if not isinstance(rule, AlertRule):
        for option_name in ("for_", "keep_firing_for", "no_data", "annotations"):
            if getattr(override, option_name):
                raise ValueError(f"{option_name.rstrip('_')}: this is a recording rule, only alerts have it")
        return replace(rule, expression=expression, labels=tuple(sorted((dict(rule.labels) | override.labels).items())))
    return replace(
        rule,
        expression=expression,
        hold=rule.hold if override.for_ is None else override.for_,
        keep_firing_for=rule.keep_firing_for if override.keep_firing_for is None else override.keep_firing_for,
        labels=_joined(rule.labels, override.labels),
        annotations=_joined(rule.annotations, override.annotations),
        no_data=override.no_data or rule.no_data,
    )


def _joined(given: tuple[tuple[str, Template], ...], over: Mapping[str, str]) -> tuple[tuple[str, Template], ...]:
    merged = dict(given) | {name: Template(text) for name, text in over.items()}
    return tuple(sorted(((name, text) for name, text in merged.items() if text.text), key=lambda pair: pair[0]))


def _compared_with(expression: Expression, threshold: float, language: Language) -> Expression:
    """The expression with another number in its one comparison. Raise ValueError where it is not one."""
    if len(expression.thresholds) != 1:
        count = len(expression.thresholds) or "no"
        raise ValueError(
            f"threshold: the query has {count} comparisons with a number, not one; override `expr` instead"
        )
    ((start, end),) = expression.thresholds
    number = repr(threshold).removesuffix(".0")
    return language.read(f"{expression.text[:start]}{number}{expression.text[end:]}")
