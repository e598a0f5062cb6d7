"""The section `alerting:` of the configuration, and the policy it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core.labels import labels_of
from agent.core.options import option
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.default_inhibitions import default_inhibitions
from alerting.flap import FlapPolicy
from alerting.inhibition import parse_inhibit_rule
from alerting.intervals import TimeInterval, find_zone, parse_interval
from alerting.notify.message import Notifier
from alerting.pacing import OutboxOptions
from alerting.policy import NOBODY, Policy
from alerting.routing import Route, default_tree, parse_route
from alerting.rule_overrides import RuleOverride

_ROUTES_BY_ITSELF = "alertmanager"  # the kind of notifier that gets everything, unless a route names it


class Receiver(Protocol):
    """A receiver as the configuration has it."""

    @property
    def type(self) -> str: ...

    def build(self, **given: Any) -> Any:
        """The notifier. Raise ValueError when its options do not go together."""
        ...


@dataclass(frozen=True, slots=True)
class ReceiverCommon:
    """Options that every receiver has beside its own."""

    enabled: bool = option(True, "Whether alerts go there; naming a receiver turns it on.")


@dataclass(frozen=True, slots=True)
class DigestOptions:
    """When the daily summary of a route is sent."""

    at: str = option("08:00", "Time of day.")
    timezone: str = option("UTC", "Time zone of that time.", example="Europe/Berlin")
    weekdays: list[str] = option(list, "Days on which it is sent; empty for all.", example="[monday, friday]")

    def raw(self) -> dict[str, Any]:
        return {"at": self.at, "timezone": self.timezone, "weekdays": self.weekdays}


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """Which alerts go where. What a route does not say it has from the one it stands in."""

    receiver: str = option("", "Who is told.", example="ops")
    matchers: list[str] = option(list, "Alerts it takes; all of these must hold.", example="['severity=\"critical\"']")
    group_by: list[str] | None = option(
        None, "Labels that alerts of one message share; ['...'] for all.", example="[alertname, instance]"
    )
    group_wait: Seconds | None = option(None, "How long a new group waits for more alerts.", minimum=0, example="30s")
    group_interval: Seconds | None = option(
        None, "How long after a message alerts that came along are told.", minimum=0.001, example="5m"
    )
    repeat_interval: Seconds | None = option(
        None, "After what time alerts that still fire are told again.", minimum=0.001, example="4h"
    )
    continue_: bool = option(False, "Whether the routes after this one are tried as well.")
    mute_time_intervals: list[str] = option(list, "Time intervals in which nothing is told.", example="[night]")
    active_time_intervals: list[str] = option(list, "Time intervals outside of which nothing is told.")
    digest: DigestOptions | None = option(
        None, "Tell everything in one summary at a time of day.", example='{at: "08:00", timezone: Europe/Berlin}'
    )
    routes: list[RouteOptions] = option(list, "Routes within this one, tried in their order.")

    def raw(self) -> dict[str, Any]:
        """As Alertmanager's configuration has it."""
        found: dict[str, Any] = {"receiver": self.receiver or None, "matchers": self.matchers}
        for name in ("group_wait", "group_interval", "repeat_interval"):
            seconds = getattr(self, name)
            if seconds is not None:
                found[name] = f"{seconds:.3f}s"
        found["group_by"] = self.group_by
        found["continue"] = self.continue_
        found["mute_time_intervals"], found["active_time_intervals"] = (
            self.mute_time_intervals, self.active_time_intervals,
        )  # fmt: skip
        if self.digest is not None:
            found["digest"] = self.digest.raw()
        found["routes"] = [one.raw() for one in self.routes]
        return found


@dataclass(frozen=True, slots=True)
class InhibitOptions:
    """While one kind of alert fires, another is not told."""

    source_matchers: list[str] = option(list, "The alerts that keep others quiet.")
    target_matchers: list[str] = option(list, "The alerts that are kept quiet.")
    equal: list[str] = option(list, "Labels that both must share.", example="[instance]")


@dataclass(frozen=True, slots=True)
class TimesOptions:
    """A part of the day."""

    start_time: str = option("00:00", "When it begins.")
    end_time: str = option("24:00", "When it is over.")


@dataclass(frozen=True, slots=True)
class TimeIntervalOptions:
    """A span of time that comes again; what is left empty sets no condition."""

    times: list[TimesOptions] = option(list, "Parts of the day.")
    weekdays: list[str] = option(list, "Days of the week.", example="['monday:friday']")
    days_of_month: list[str] = option(list, "Days of the month; -1 is the last.", example="['1:7']")
    months: list[str] = option(list, "Months.", example="['december']")
    years: list[str] = option(list, "Years.", example="['2030']")
    location: str = option("UTC", "Time zone.", example="Europe/Berlin")

    def raw(self) -> dict[str, Any]:
        times = [{"start_time": one.start_time, "end_time": one.end_time} for one in self.times]
        return {
            "times": times, "weekdays": self.weekdays, "days_of_month": self.days_of_month, "months": self.months,
            "years": self.years, "location": self.location,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlapOptions:
    """Alerts that come and go are told once, and held until they are calm."""

    changes: int = option(6, "Beginnings and ends within the window that are called flapping; 0 for never.", minimum=0)
    window: Seconds = option(1800.0, "The window.", minimum=1.0)
    first_hold: Seconds = option(900.0, "How long it is held; twice as long each time it is not calm.", minimum=1.0)
    longest_hold: Seconds = option(6 * 3600.0, "Longest hold.", minimum=1.0)


@dataclass(frozen=True, slots=True)
class HeartbeatOptions:
    """A ping to a service that raises the alarm when it stays away: the dead man's switch."""

    url: Secret | None = option(
        None, "Address that is pinged; null for no heartbeat. With /start and /fail behind it: start and trouble.",
        example="{file: /etc/vigilhost/heartbeat.url}",
    )  # fmt: skip
    interval: Seconds = option(60.0, "Time between two pings.", minimum=5.0)
    suffixes: bool = option(True, "Whether the service knows /start and /fail; otherwise trouble means no ping.")
    with_sinks: bool = option(False, "Whether a sink that is down counts as trouble.")
    deadline: Seconds = option(10.0, "Longest time for one ping.", minimum=1.0)


@dataclass(frozen=True, slots=True)
class RulesOptions:
    """Which rules are evaluated. Rule files (*.yaml, *.yml) stand in rules.d beside the configuration."""

    interval: Seconds = option(15.0, "Time between two evaluations of a group that says nothing else.", minimum=1.0)
    defaults: bool = option(True, "Whether the rules that come with the agent are evaluated.")
    directory: str = option("", "Directory of rule files instead of rules.d beside the configuration.")
    overrides: dict[str, RuleOverride] = option(
        dict, "What is different here about rules of a name.", example="{HostDiskFull: {threshold: 95}}"
    )


@dataclass(frozen=True, slots=True)
class AlertingOptions:
    """What is judged and who is told."""

    enabled: bool = option(True, "Whether rules are evaluated; needs history.")
    rules: RulesOptions = option(RulesOptions, "Rules.")
    external_url: str = option("", "Address under which people reach the agent, for links; empty for none.")
    external_labels: dict[str, str] = option(
        dict,
        "Labels that templates see as $externalLabels, and that an Alertmanager "
        "gets on every alert: hosts that share one need them where a rule sums over `instance`.",
    )
    timezone: str = option("Local", "Time zone of the times in messages; Local for this host's.")
    receivers: dict[str, Any] = option(dict, "Who can be told.", plugins="receivers")
    route: RouteOptions = option(
        RouteOptions, "Who is told what. Without a receiver here the only receiver gets everything, critical at once."
    )
    inhibit_rules: list[InhibitOptions] = option(
        list, "Alerts that keep others quiet, besides those of the rules that come with the agent."
    )
    time_intervals: dict[str, list[TimeIntervalOptions]] = option(
        dict, "Named time intervals.", example="{night: [{times: [{start_time: '22:00', end_time: '24:00'}]}]}"
    )
    flapping: FlapOptions = option(FlapOptions, "Alerts that come and go.")
    outbox: OutboxOptions = option(OutboxOptions, "Delivery.")
    heartbeat: HeartbeatOptions = option(HeartbeatOptions, "Dead man's switch.")

    def __post_init__(self) -> None:
        """Raise ValueError with the path of the option, when they do not go together."""
        self.policy()

    def policy(self, source: str = "") -> Policy:
        """Who is told what, when and how, by which host. Raise ValueError with the path of the option in `alerting`."""
        intervals = self._intervals()
        notifiers = self._notifiers()
        try:
            find_zone(self.timezone)
        except ValueError as error:
            if self.timezone != "Local":  # a host may have no /etc/localtime
                raise ValueError(f"timezone: {error}") from error
        inhibitions = [
            {"source_matchers": one.source_matchers, "target_matchers": one.target_matchers, "equal": one.equal}
            for one in self.inhibit_rules
        ]
        of_defaults = default_inhibitions() if self.rules.defaults else ()
        flap = self.flapping
        root = self._root(notifiers, intervals)
        return Policy(
            root=root,
            notifiers=notifiers,
            inhibit_rules=(
                *(parse_inhibit_rule(one, f"inhibit_rules[{at}]") for at, one in enumerate(inhibitions)),
                *of_defaults,
            ),
            intervals=intervals,
            flap=FlapPolicy(flap.changes, flap.window, flap.first_hold, flap.longest_hold),
            outbox=self.outbox,
            external_url=self.external_url.rstrip("/"),
            zone=self.zone,
            source=source,
            forwards=_unrouted(notifiers, root),
        )

    @property
    def zone(self) -> str:
        """The time zone of messages; UTC where the host does not say."""
        try:
            find_zone(self.timezone)
        except ValueError:
            return "UTC"
        return self.timezone

    def _intervals(self) -> dict[str, tuple[TimeInterval, ...]]:
        return {
            name: tuple(parse_interval(one.raw(), f"time_intervals.{name}[{at}]") for at, one in enumerate(parts))
            for name, parts in self.time_intervals.items()
        }

    def _notifiers(self) -> dict[str, Notifier]:
        notifiers: dict[str, Notifier] = {}
        for name, receiver in self.receivers.items():
            try:
                notifiers[name] = receiver.build(external_labels=labels_of(self.external_labels))
            except ValueError as error:
                raise ValueError(f"receivers.{name}: {error}") from error
        return notifiers

    def _root(self, notifiers: Mapping[str, Notifier], intervals: Mapping[str, Any]) -> Route:
        """The tree of routes; a default one for a single receiver."""
        raw = self.route.raw()
        if self.route == RouteOptions():
            names = [name for name, one in notifiers.items() if one.kind != _ROUTES_BY_ITSELF]
            if not names:
                return NOBODY
            if len(names) > 1:
                which = ", ".join(sorted(names))
                raise ValueError(f"route.receiver: missing; write which of {which} is told what no route below takes")
            raw = default_tree(names[0])
        elif not notifiers:
            raise ValueError("route: there are no receivers; write at least one into receivers")
        return parse_route(raw, notifiers, intervals, "route")


def _unrouted(notifiers: Mapping[str, Notifier], root: Route) -> tuple[str, ...]:
    """Receivers that route by themselves and that no route names."""
    named = {route.receiver for route in root.walk()}
    return tuple(name for name, one in notifiers.items() if one.kind == _ROUTES_BY_ITSELF and name not in named)
