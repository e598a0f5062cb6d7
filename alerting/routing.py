"""The tree of routes: which receivers an alert goes to, and how it is grouped there. Semantics: Alertmanager's.

An alert goes down the first child that matches, and on to the next ones while the matching child says `continue`; the
deepest match decides. What a route does not say it has from its parent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.core.labels import Labels, Matcher, keep, select
from agent.core.problems import did_you_mean
from agent.core.units import parse_duration
from alerting.digest import DigestSchedule, parse_schedule
from alerting.matching import parse_matchers, show_matchers
from alerting.notify.message import show_group_labels

_KEYS = frozenset({
    "receiver", "matchers", "match", "match_re", "group_by", "group_wait", "group_interval", "repeat_interval",
    "continue", "mute_time_intervals", "active_time_intervals", "digest", "routes",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """One node, with everything its parents left to it filled in. Durations in seconds."""

    key: str  # Alertmanager's: the matchers from the root down, `{}/{severity="critical"}`
    id: str  # the key and the receiver, and a number where that is not enough to tell two routes apart
    receiver: str
    matchers: tuple[Matcher, ...] = ()
    group_by: tuple[str, ...] | None = ()  # None: by all labels (`...`)
    group_wait: float = 30.0
    group_interval: float = 300.0
    repeat_interval: float = 4 * 3600.0
    goes_on: bool = False  # `continue`
    mute_time_intervals: tuple[str, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    digest: DigestSchedule | None = None
    routes: tuple[Route, ...] = ()

    def matching(self, labels: Labels) -> list[Route]:
        """The routes that an alert takes, in order; none when it does not match here."""
        if not select(labels, self.matchers):
            return []
        found: list[Route] = []
        for child in self.routes:
            taken = child.matching(labels)
            found += taken
            if taken and not child.goes_on:
                break
        return found or [self]

    def group_labels(self, labels: Labels) -> Labels:
        """The labels that alerts of one group share."""
        return labels if self.group_by is None else keep(labels, self.group_by)

    def group_key(self, group_labels: Labels) -> str:
        """As Alertmanager shows it: `{}/{severity="critical"}:{alertname="X"}`."""
        return f"{self.key}:{show_group_labels(group_labels)}"

    def walk(self) -> Iterator[Route]:
        """This route and all below it."""
        yield self
        for child in self.routes:
            yield from child.walk()


def default_tree(receiver: str) -> dict[str, Any]:
    """The tree of who configures a receiver and nothing else: critical alerts at once, the others gathered first."""
    return {
        "receiver": receiver,
        "group_by": ["alertname", "instance"],
        "routes": [{"matchers": ['severity=~"critical|page"'], "group_wait": "0s"}],
    }


def parse_route(
    raw: Mapping[str, Any], receivers: Collection[str], intervals: Collection[str], where: str = "alerting.route"
) -> Route:
    """The tree from its YAML. `receivers` and `intervals` are the names there are. Raise ValueError with the place."""
    if raw.get("matchers") or raw.get("match") or raw.get("match_re"):
        raise ValueError(f"{where}: the first route takes every alert, so it has no matchers; put them into its routes")
    if not raw.get("receiver"):
        raise ValueError(f"{where}.receiver: missing; the first route needs one of {', '.join(sorted(receivers))}")
    if raw.get("continue"):
        raise ValueError(f"{where}.continue: there is nothing behind the first route to go on to")
    for key in ("mute_time_intervals", "active_time_intervals"):
        if raw.get(key):
            raise ValueError(f"{where}.{key}: the first route always speaks; put them into its routes")
    return _Reader(receivers, intervals).route(raw, None, where)


class _Reader:
    def __init__(self, receivers: Collection[str], intervals: Collection[str]) -> None:
        self.receivers = receivers
        self.intervals = intervals
        self.seen: Counter[str] = Counter()

    def route(self, raw: object, parent: Route | None, where: str) -> Route:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: found {raw!r}; a route with a receiver would be right")
        for key in raw:
            if key not in _KEYS:
                raise ValueError(f"{where}.{key}: no such key{_near(str(key), _KEYS)}")
        matchers = self._matchers(raw, where)
        key = show_matchers(matchers)
        above = parent or Route("", "", str(raw.get("receiver")))
        receiver = self._named(raw, "receiver", self.receivers, where) or above.receiver
        key = f"{parent.key}/{key}" if parent else key
        route = Route(
            key=key,
            id=self._id(f"{key}@{receiver}"),
            receiver=receiver,
            matchers=matchers,
            group_by=self._group_by(raw, above, where),
            group_wait=_seconds(raw, "group_wait", above.group_wait, where, least=0.0),
            group_interval=_seconds(raw, "group_interval", above.group_interval, where, least=0.001),
            repeat_interval=_seconds(raw, "repeat_interval", above.repeat_interval, where, least=0.001),
            goes_on=bool(raw.get("continue", False)),
            mute_time_intervals=self._names(raw, "mute_time_intervals", where),
            active_time_intervals=self._names(raw, "active_time_intervals", where),
            digest=parse_schedule(raw["digest"], f"{where}.digest") if "digest" in raw else above.digest,
        )
        children = raw.get("routes") or []
        if not isinstance(children, list):
            raise ValueError(f"{where}.routes: found {children!r}; a list of routes would be right")
        below = tuple(self.route(child, route, f"{where}.routes[{at}]") for at, child in enumerate(children))
        return replace(route, routes=below)

    def _id(self, wanted: str) -> str:
        self.seen[wanted] += 1
        return wanted if self.seen[wanted] == 1 else f"{wanted}#{self.seen[wanted]}"

    def _matchers(self, raw: Mapping[str, Any], where: str) -> tuple[Matcher, ...]:
        try:
            found = list(parse_matchers(raw.get("matchers") or ()))
            found += [Matcher(str(name), "=", str(value)) for name, value in (raw.get("match") or {}).items()]
            found += [Matcher(str(name), "=~", str(value)) for name, value in (raw.get("match_re") or {}).items()]
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}.matchers: {error}") from error
        return tuple(found)

    def _group_by(self, raw: Mapping[str, Any], above: Route, where: str) -> tuple[str, ...] | None:
        names = raw.get("group_by")
        if names is None:
            return above.group_by
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.group_by: found {names!r}; a list of label names, or ['...'], would be right")
        if "..." in names and len(names) > 1:
            raise ValueError(f"{where}.group_by: '...' stands for all labels and goes with no other")
        if len(set(names)) < len(names):
            raise ValueError(f"{where}.group_by: a label is named twice")
        return None if names == ["..."] else tuple(sorted(names))

    def _named(self, raw: Mapping[str, Any], key: str, names: Collection[str], where: str) -> str | None:
        name = raw.get(key)
        if name is None or name in names:
            return name
        raise ValueError(f"{where}.{key}: no {key} is called {name!r}{_near(str(name), names)}")

    def _names(self, raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        found = raw.get(key) or []
        for name in found:
            if name not in self.intervals:
                raise ValueError(
                    f"{where}.{key}: no time interval is called {name!r}{_near(str(name), self.intervals)}"
                )
        return tuple(found)


def _near(name: str, names: Collection[str]) -> str:
    if meant := did_you_mean(name, sorted(names)):
        return meant
    return f"; one of {', '.join(sorted(names))} would be right" if names else "; there are none"


def _seconds(raw: Mapping[str, Any], key: str, default: float, where: str, least: float) -> float:
    text = raw.get(key)
    if text is None:
        return default
    try:
        seconds = parse_duration(str(text))
    except ValueError as error:
        raise ValueError(f"{where}.{key}: {error}") from error
    if seconds < least:
        raise ValueError(f"{where}.{key}: {text} is too short; write it like 30s or 5m")
    return seconds
