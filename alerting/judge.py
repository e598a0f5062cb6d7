"""One rule, evaluated at one moment: ask, label, step each alert, say what changed and which series there are now.

Facts: Prometheus' rules/ (what identifies an alert, what ALERTS and ALERTS_FOR_STATE hold, when `limit` is exceeded).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote_plus

from agent.core.labels import METRIC_NAME, NAMING, Labels
from agent.core.query import ExecutionError, Limits, Querier, Sample
from alerting.dependencies import Failing, is_hidden
from alerting.notify.message import Alert
from alerting.rules import NO_DATA, AlertRule, RecordRule, Rule
from alerting.state import Breach, Instance, Timing, step
from alerting.templates.expander import Helpers, Template, alert_data

REFRESH_S: Final = 60.0  # firing alerts are passed on again with their present value
RULE_LIMITS: Final = Limits(deadline_s=10.0)

_SAME: Final = "vector contains metrics with the same labelset after applying"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every rule sees of the agent. `external_url`: where people find it, for links."""

    external_labels: Labels = ()
    external_url: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How the last evaluation went. `remark`: of templates that could not be carried out, and warnings of the query."""

    state: Literal["unknown", "ok", "err"] = "unknown"
    error: str = ""
    remark: str = ""
    evaluated_at: float | None = None  # Unix seconds; None before the first
    duration: float = 0.0  # seconds
    samples: int = 0  # that the expression yielded
    is_blind: bool = False  # its inputs are gone with a collector


@dataclass(slots=True)
class RuleState:
    """A rule and what it has led to. `id` is the same after a restart and an edit of its expression.

    `instances` is replaced, never changed, so other threads may read it.
    """

    rule: Rule
    id: str
    instances: Mapping[Labels, Instance] = field(default_factory=dict)
    health: Health = Health()
    told_at: float | None = None  # None: everything is to be told anew
    has_series: bool = False  # the last evaluation had some

    @property
    def phase(self) -> Literal["inactive", "pending", "firing"]:
        """The worst of its alerts."""
        phases = {one.phase for one in self.instances.values()}
        return "firing" if "firing" in phases else "pending" if "pending" in phases else "inactive"


@dataclass(slots=True)
class Verdict:
    """What one evaluation of a rule leads to: alerts to pass on, series that exist from now on."""

    alerts: list[Alert] = field(default_factory=list)
    series: dict[Labels, float] = field(default_factory=dict)
    samples: int = 0
    remark: str = ""


def rule_ids(rules: Sequence[Rule]) -> list[str]:
    """An id for each, of name and labels; the later of two with the same gets a number."""
    counts: dict[str, int] = {}
    found = []
    for rule in rules:
        name = f"{rule.key[0]}:{rule.name}:{zlib.crc32(repr(rule.key).encode('utf-8', 'surrogateescape')):08x}"
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name}:{counts[name]}")
    return found


def record(rule: RecordRule, querier: Querier, time_ms: int, limit: int) -> Verdict:
    """The series the rule records at this moment. Raise QueryError."""
    result = querier.instant(rule.expression.text, time_ms, RULE_LIMITS)
    samples = result.vector()
    changes = {METRIC_NAME: rule.name, **dict(rule.labels)}
    series: dict[Labels, float] = {}
    for sample in samples:
        labels = _relabelled(sample.labels, changes, keep_name=True)
        if labels in series:
            raise ExecutionError(f"{_SAME} rule labels")
        series[labels] = sample.value
    if limit and len(series) > limit:
        raise ExecutionError(f"exceeded limit of {limit} with {len(series)} series")
    return Verdict([], series, len(samples), "; ".join(result.warnings))


def judge(state: RuleState, querier: Querier, at: float, time_ms: int, limit: int, around: Surroundings,
          spots: Sequence[Failing] = ()) -> Verdict:  # fmt: skip
    """Step every alert of the rule at `at`, asking for the data of `time_ms`; `spots`: what it is blind for.

    Raise QueryError, with the alerts as they were; LimitError, with all of them resolved.
    """
    rule = state.rule
    assert isinstance(rule, AlertRule)  # recording rules go another way
    result = querier.instant(rule.expression.text, time_ms, RULE_LIMITS)
    samples = result.vector()
    breaches, remark = _breaches(rule, samples, querier, at, time_ms, around)
    before, after = state.instances, {}
    timing = Timing(rule.hold, rule.keep_firing_for)
    for labels in breaches.keys() | before.keys():
        hidden = bool(spots) and labels not in breaches and is_hidden(labels, spots)
        instance = step(before.get(labels), labels, breaches.get(labels), at, timing, hidden)
        if instance is not None:
            after[labels] = instance
    active = sum(one.is_active for one in after.values())
    if limit and active > limit:
        raise LimitError(f"exceeded limit of {limit} with {active} alerts")
    state.instances = after
    remarks = [*result.warnings, *remark]
    return Verdict(_news(state, before, at, around), _series(rule, after), len(samples), "; ".join(remarks[:3]))


class LimitError(ExecutionError):
    """More alerts than the group allows."""


def end_all(state: RuleState, at: float, around: Surroundings) -> list[Alert]:
    """Forget the rule's alerts; those that were firing, as resolved."""
    ended = [told(state.rule, one, around).resolved(at) for one in state.instances.values() if one.phase == "firing"]
    state.instances = {}
    return ended


def told(rule: Rule, instance: Instance, around: Surroundings) -> Alert:
    """The alert as notifications show it."""
    return Alert(
        instance.labels,
        tuple(pair for pair in instance.annotations if pair[0] != NO_DATA),
        "resolved" if instance.phase == "resolved" else "firing",
        starts_at=instance.active_at if instance.fired_at is None else instance.fired_at,
        ends_at=instance.resolved_at,
        value=instance.value,
        generator_url=f"{around.external_url}/graph?g0.expr={_in_url(rule.expression.canonical)}&g0.tab=1",
        is_stale=instance.stale_since is not None,
    )


def _in_url(expr: str) -> str:
    return quote_plus(expr, errors="replace")


def _breaches(rule: AlertRule, samples: Sequence[Sample], querier: Querier, at: float, time_ms: int,
              around: Surroundings) -> tuple[dict[Labels, Breach], list[str]]:  # fmt: skip
    """Each sample as an alert's labels, value and annotations; and what went wrong in templates."""
    helpers = Helpers(
        lambda expr: ((one.labels, one.value) for one in querier.instant(expr, time_ms, RULE_LIMITS).vector()),
        around.external_url,
        at,
    )
    found: dict[Labels, Breach] = {}
    errors: list[str] = []

    def filled(templates: Sequence[tuple[str, Template]], dot: object) -> dict[str, str]:
        texts = {}
        for name, template in templates:
            texts[name], error = template.expand_or_say(dot, helpers)
            if error is not None:
                errors.append(f"{name}: {error}")
        return texts

    for sample in samples:
        dot = alert_data(sample.labels, sample.value, around.external_labels, around.external_url)
        labels = _relabelled(sample.labels, filled(rule.labels, dot) | {"alertname": rule.name})
        if labels in found:
            raise ExecutionError(f"{_SAME} alert labels")
        found[labels] = Breach(sample.value, tuple(filled(rule.annotations, dot).items()))
    return found, errors


def _relabelled(labels: Labels, changes: Mapping[str, str], keep_name: bool = False) -> Labels:
    """The labels without the metric's name, with the changes; an empty value takes a label away."""
    merged = {name: value for name, value in labels if keep_name or name not in NAMING}
    merged.update(changes)
    return tuple(sorted((name, value) for name, value in merged.items() if value))


def _news(state: RuleState, before: Mapping[Labels, Instance], at: float, around: Surroundings) -> list[Alert]:
    """What is to be passed on: alerts that began, ended, lost or found their data; now and then all that fire."""
    is_all = state.told_at is None or at - state.told_at >= REFRESH_S or at < state.told_at
    found = []
    for labels, now in state.instances.items():
        was = before.get(labels)
        if now.phase == "pending":
            changed = False
        elif was is None or was.phase != now.phase:
            changed = True
        else:
            changed = (was.stale_since is None) != (now.stale_since is None)
        if changed or (is_all and (now.phase == "firing" or (now.phase == "resolved" and state.told_at is None))):
            found.append(told(state.rule, now, around))
    if is_all:
        state.told_at = at
    return found


def _series(rule: AlertRule, instances: Mapping[Labels, Instance]) -> dict[Labels, float]:
    """ALERTS and ALERTS_FOR_STATE of what is active."""
    found: dict[Labels, float] = {}
    for labels, one in instances.items():
        if one.is_active:
            base = dict(labels)
            alerts = base | {METRIC_NAME: "ALERTS", "alertname": rule.name, "alertstate": one.phase}
            since = base | {METRIC_NAME: "ALERTS_FOR_STATE", "alertname": rule.name}
            found[tuple(sorted(alerts.items()))] = 1.0
            found[tuple(sorted(since.items()))] = float(int(one.active_at))
    return found
