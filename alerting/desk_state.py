"""What the desk remembers over a restart, as JSON, and how that is fitted to other routes or another clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from alerting.flap import FlapState
from alerting.notify.message import Alert
from alerting.routing import Route
from alerting.silences import Silence, from_row, to_row

_NO_GROUPS = b'{"groups":[],"digests":{}}'
_TIMES = ("next_at", "flushed_at", "sent_at")


def silences_as_json(silences: Mapping[str, Silence]) -> bytes:
    """All silences."""
    return msgspec.json.encode([to_row(one) for one in silences.values()])


def silences_from_json(saved: bytes) -> tuple[dict[str, Silence], int]:
    """The silences by id, and how many could not be read. Raise ValueError where it is no list of ours."""
    rows = msgspec.json.decode(saved or b"[]", type=list[Any])
    found, lost = {}, 0
    for row in rows:
        try:
            silence = from_row(row)
        except (ValueError, KeyError, TypeError):
            lost += 1
        else:
            found[silence.id] = silence
    return found, lost


def flaps_as_json(states: Mapping[str, FlapState]) -> bytes:
    """The states of the flap damper."""
    return msgspec.json.encode(states)


def flaps_from_json(saved: bytes) -> dict[str, FlapState]:
    """Raise ValueError."""
    return msgspec.json.decode(saved or b"{}", type=dict[str, FlapState])


def regrouped(saved: bytes, root: Route) -> tuple[bytes, list[Alert]]:
    """Groups and digests as these routes have them, and the alerts that now go another way. Raise ValueError.

    A group whose route or labels no longer fit an alert would keep it for ever: its end is sent along other routes.
    """
    state = msgspec.json.decode(saved or _NO_GROUPS)
    routes = {route.id: route for route in root.walk() if route.digest is None}
    homeless: list[Alert] = []
    kept = []
    for entry in state["groups"]:
        route, group = routes.get(entry["route"]), entry["group"]
        labels = tuple(tuple(pair) for pair in group["labels"])
        for fingerprint, raw in list(group["alerts"].items()):
            alert = msgspec.convert(raw, Alert)
            if route is None or route not in root.matching(alert.labels) or route.group_labels(alert.labels) != labels:
                homeless.append(alert)
                for part in ("alerts", "told", "muted"):
                    group[part].pop(fingerprint, None)
        if route is not None and group["alerts"]:
            kept.append(entry)
    digests, without_digest = _digests_for(root, state["digests"])
    return msgspec.json.encode({"groups": kept, "digests": digests}), homeless + without_digest


def _digests_for(root: Route, saved: Mapping[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[Alert]]:
    """The digests by the routes there are now, and the alerts that go another way.

    What was over stays in the summary of its day; what fires would be called firing in each one for ever.
    """
    routes = {route.id: route for route in root.walk() if route.digest is not None}
    homeless: list[Alert] = []
    kept: dict[str, dict[str, Any]] = {}
    for id, digest in saved.items():
        heir = _heir(id, routes, {*saved, *kept})
        entries = []
        for raw in digest["entries"]:
            alert = msgspec.convert(raw["alert"], Alert)
            if heir is not None and (heir in root.matching(alert.labels) or not alert.is_firing):
                entries.append(raw)
            else:
                homeless.append(alert)
        if heir is not None:
            kept[heir.id] = {**digest, "entries": entries}
    return kept, homeless


def _heir(id: str, routes: Mapping[str, Route], taken: Collection[str]) -> Route | None:
    """The route of that id, or else one with its matchers and another receiver; None when there is none."""
    if id in routes:
        return routes[id]
    return next((route for route in routes.values() if id.startswith(f"{route.key}@") and route.id not in taken), None)


def groups_shifted(saved: bytes, seconds: float) -> bytes:
    """The groups with their timers moved, for a wall clock that jumped; digests stay at their time of day.

    Raise ValueError.
    """
    state = msgspec.json.decode(saved or _NO_GROUPS)
    for entry in state["groups"]:
        group = entry["group"]
        group.update({name: group[name] + seconds for name in _TIMES if group[name] is not None})
    return msgspec.json.encode(state)


def flaps_shifted(states: Mapping[str, FlapState], seconds: float) -> dict[str, FlapState]:
    """The states with their times moved, for a wall clock that jumped."""
    return {
        key: replace(
            one, changes=tuple(at + seconds for at in one.changes), held_until=one.held_until + bool(one.hold) * seconds
        )
        for key, one in states.items()
    }
