"""What the HTTP API and the control socket show of alerting: rules, alerts, silences, decisions, in plain values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.alert_keeper import AlertKeeper
from agent.core.labels import METRIC_NAME, Labels
from agent.core.query import Limits, Querier
from agent.core.units import format_duration
from alerting.engine import GroupState
from alerting.judge import RuleState
from alerting.matching import show_matchers
from alerting.notify.message import fingerprint
from alerting.rules import NO_DATA, AlertRule
from alerting.silences import Silence
from alerting.state import Instance
from sinks.history.promql.numbers import scientific

_NEVER = "0001-01-01T00:00:00Z"
_STEPS = 5000  # asked for at once
_MOST_STEPS = 60_000
_HISTORY_DEADLINE_S = 20.0  # of all of it


class AlertsView:
    """An AlertsFace; `groups`, `alerts` and `rules` are cheap, for the event loop.

    `keeper` gives None while there is no alerting: then there are no rules and no alerts.
    """

    def __init__(self, keeper: Callable[[], AlertKeeper | None]) -> None:
        self._keeper_now = keeper

    def _groups(self) -> list[GroupState]:
        keeper = self._keeper_now()
        return list(keeper.engine.groups.values()) if keeper is not None else []

    def _found(self) -> list[tuple[RuleState, Instance]]:
        keeper = self._keeper_now()
        return keeper.engine.alerts() if keeper is not None else []

    def groups(self) -> Sequence[Mapping[str, Any]]:
        """Rule groups as Prometheus' API has them."""
        return [_group(group) for group in self._groups()]

    def alerts(self) -> Sequence[Mapping[str, Any]]:
        """Pending and firing alerts as Prometheus' API has them."""
        return [_alert(one) for _, one in self._found() if one.is_active]

    def rules(self) -> Sequence[Mapping[str, Any]]:
        """Every rule with where it stands and how its last evaluation went."""
        return [
            {
                "group": group.group.name,
                "name": state.rule.name,
                "type": "alerting" if isinstance(state.rule, AlertRule) else "recording",
                "place": str(state.rule.place),
                "expr": state.rule.expression.text,
                "state": state.phase,
                "health": state.health.state,
                "error": state.health.error,
                "remark": state.health.remark,
                "is_blind": state.health.is_blind,
                "evaluated_at": state.health.evaluated_at,
                "seconds": state.health.duration,
                "samples": state.health.samples,
                "interval_s": group.interval,
            }
            for group in self._groups()
            for state in group.rules
        ]

    def active(self) -> list[dict[str, Any]]:
        """Pending, firing and lately resolved alerts, with who is told and why not; asks the desk, so may wait."""
        keeper = self._keeper_now()
        desk, now = (keeper.desk, keeper.now()) if keeper is not None else (None, 0.0)
        order = {"firing": 0, "pending": 1, "resolved": 2}
        found = [
            {
                "fingerprint": fingerprint(one.labels),
                "labels": dict(one.labels),
                "annotations": {name: text for name, text in one.annotations if name != NO_DATA},
                "state": one.phase,
                "value": number(one.value),
                "active_at": one.active_at,
                "fired_at": one.fired_at,
                "resolved_at": one.resolved_at,
                "is_stale": one.stale_since is not None,
                "rule": str(state.rule.place),
                "receivers": desk.receivers(one.labels) if desk is not None else [],
                "muted": desk.quiet(one.labels, now) if desk is not None and one.phase == "firing" else "",
            }
            for state, one in self._found()
        ]
        return sorted(found, key=lambda each: (order[each["state"]], -each["active_at"]))

    def silences(self) -> list[dict[str, Any]]:
        """Silences, those in force first; may wait for the desk."""
        keeper = self._keeper_now()
        if keeper is None or keeper.desk is None:
            return []
        now = keeper.now()
        return sorted(
            (silence_row(one, now) for one in keeper.desk.silences()),
            key=lambda each: (each["state"] == "expired", each["ends_at"]),
        )

    def history(self, start: float, end: float) -> list[dict[str, Any]]:
        """Spans in which alerts fired between two moments (Unix seconds), newest first. Blocking. Raise QueryError."""
        keeper = self._keeper_now()
        if keeper is None:
            return []
        step = max(keeper.options.rules.interval, (end - start) / _MOST_STEPS)
        found = []
        for series, times_ms in _firing(keeper.querier, round(start * 1000), round(end * 1000), round(step * 1000)):
            labels = {name: value for name, value in series if name not in {METRIC_NAME, "alertstate"}}
            for first, last in _spans(times_ms, step * 1000):
                is_over = last / 1000 < end - 2 * step
                found.append({
                    "labels": labels, "fingerprint": fingerprint(tuple(sorted(labels.items()))), "from": first / 1000,
                    "to": last / 1000 if is_over else None, "precision_s": step,
                })  # fmt: skip
        return sorted(found, key=lambda each: -each["from"])


def _firing(querier: Querier, start_ms: int, end_ms: int, step_ms: int) -> Iterable[tuple[Labels, list[int]]]:
    """The moments at which each alert fired. Raise QueryError."""
    found: dict[Labels, list[int]] = {}
    until = time.monotonic() + _HISTORY_DEADLINE_S
    for low in range(start_ms, end_ms + 1, step_ms * _STEPS):
        high = min(low + step_ms * (_STEPS - 1), end_ms)
        limits = Limits(deadline_s=max(until - time.monotonic(), 0.1))
        result = querier.range('ALERTS{alertstate="firing"}', low, high, step_ms, limits)
        for points in result.matrix():
            found.setdefault(points.labels, []).extend(points.times_ms)
    return found.items()


def _spans(times_ms: Sequence[int], step_ms: float) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for moment in times_ms:
        if spans and moment - spans[-1][1] <= step_ms * 1.5:
            spans[-1] = spans[-1][0], moment
        else:
            spans.append((moment, moment))
    return spans


def _group(group: GroupState) -> dict[str, Any]:
    return {
        "name": group.group.name,
        "file": group.group.file,
        "interval": group.interval,
        "limit": group.group.limit,
        "rules": [_rule(state) for state in group.rules],
        "evaluationTime": group.duration,
        "lastEvaluation": rfc3339(group.evaluated_at),
    }


def _rule(state: RuleState) -> dict[str, Any]:
    rule, health = state.rule, state.health
    found: dict[str, Any] = {
        "name": rule.name,
        "query": rule.expression.canonical,
        "health": health.state,
        "evaluationTime": health.duration,
        "lastEvaluation": rfc3339(health.evaluated_at),
    }
    if health.error:
        found["lastError"] = health.error
    if health.is_blind:
        found["blind"] = True  # ours: its collector has failed
    if isinstance(rule, AlertRule):
        return found | {
            "type": "alerting",
            "state": state.phase,
            "duration": rule.hold,
            "keepFiringFor": rule.keep_firing_for,
            "labels": {name: text.text for name, text in rule.labels},
            "annotations": {name: text.text for name, text in rule.annotations if name != NO_DATA},
            "alerts": [_alert(one) for one in state.instances.values() if one.is_active],
        }
    found["type"] = "recording"
    return found | {"labels": dict(rule.labels)} if rule.labels else found  # left out where empty, as in Prometheus


def _alert(one: Instance) -> dict[str, Any]:
    found: dict[str, Any] = {
        "labels": dict(one.labels),
        "annotations": {name: text for name, text in one.annotations if name != NO_DATA},
        "state": one.phase,
        "activeAt": rfc3339(one.active_at),
        "value": scientific(one.value) if math.isfinite(one.value) else number(one.value),
    }
    if one.absent_since is not None:
        found["keepFiringSince"] = rfc3339(one.absent_since)
    if one.stale_since is not None:
        found["stale"] = True  # ours: held for want of data
    return found


def silence_row(silence: Silence, now: float) -> dict[str, Any]:
    """A silence for people and machines."""
    return {
        "id": silence.id,
        "state": silence.state(now),
        "matchers": show_matchers(silence.matchers),
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "reason": silence.reason,
        "created_by": silence.created_by,
        "ends_on_resolve": silence.ends_on_resolve,
        "is_recurring": bool(silence.windows),
        "left": format_duration(max(0.0, float(round(silence.ends_at - now)))),
    }


def rfc3339(moment: float | None) -> str:
    """As Go writes it; year 1 for never."""
    if moment is None:
        return _NEVER
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(value: float) -> str:
    """As Prometheus' API has numbers: text, `+Inf` and `NaN` included."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
