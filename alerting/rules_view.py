"""Rules and alerts as Prometheus' HTTP API shows them: `data` of /api/v1/rules and /api/v1/alerts.

Ours beside it: `stale` on an alert that is held for want of data, `blind` on a rule whose collector has failed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from agent.core.labels import Labels
from alerting.engine import Engine, GroupState
from alerting.judge import RuleState
from alerting.rules import NO_DATA, AlertRule
from alerting.state import Instance
from alerting.templates.goformat import format_float

_NEVER = "0001-01-01T00:00:00Z"


def rules_data(engine: Engine, kind: Literal["", "alert", "record"] = "") -> dict[str, Any]:
    """Every group with its rules; `kind` leaves out those of the other kind, and groups without any."""
    groups = [_group(group, kind) for group in list(engine.groups.values())]
    return {"groups": [group for group in groups if group["rules"] or not kind]}


def alerts_data(engine: Engine) -> dict[str, Any]:
    """What is pending or firing."""
    return {"alerts": [_alert(one) for _, one in engine.alerts() if one.is_active]}


def _group(group: GroupState, kind: str) -> dict[str, Any]:
    return {
        "name": group.group.name,
        "file": group.group.file,
        "rules": [_rule(state) for state in group.rules if kind in ("", state.rule.key[0])],
        "interval": group.interval,
        "limit": group.group.limit,
        "evaluationTime": group.duration,
        "lastEvaluation": _moment(group.evaluated_at),
    }


def _rule(state: RuleState) -> dict[str, Any]:
    rule, health = state.rule, state.health
    shown: dict[str, Any] = {
        "name": rule.name,
        "query": rule.expression.canonical,
        "health": health.state,
        "evaluationTime": health.duration,
        "lastEvaluation": _moment(health.evaluated_at),
    }
    if health.error:
        shown["lastError"] = health.error
    if health.is_blind:
        shown["blind"] = True
    if not isinstance(rule, AlertRule):
        return shown | {"type": "recording"} | ({"labels": dict(rule.labels)} if rule.labels else {})
    return shown | {
        "type": "alerting",
        "state": state.phase,
        "duration": rule.hold,
        "keepFiringFor": rule.keep_firing_for,
        "labels": {name: text.text for name, text in rule.labels},
        "annotations": {name: text.text for name, text in rule.annotations if name != NO_DATA},
        "alerts": [_alert(one) for one in state.instances.values() if one.is_active],
    }


def _alert(one: Instance) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "labels": _printable(one.labels),
        "annotations": _printable(tuple(pair for pair in one.annotations if pair[0] != NO_DATA)),
        "state": one.phase,
        "activeAt": _moment(one.active_at),
        "value": format_float(one.value, "e", None),
    }
    return shown | ({"stale": True} if one.stale_since is not None else {})


def _printable(labels: Labels) -> dict[str, str]:
    return {name: value.encode("utf-8", "replace").decode() for name, value in labels}


def _moment(at: float | None) -> str:
    """RFC 3339 in UTC; the year 1 for never."""
    if at is None:
        return _NEVER
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
