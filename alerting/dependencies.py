"""No data is not OK: which rules cannot be trusted now, because a collector they depend on has failed.

A rule depends on collectors through the metrics it reads, and on those that recording rules make of other metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from agent.core.labels import Labels
from alerting.rules import AlertRule, RecordRule, Rule


class Failing(NamedTuple):
    """A collector that does not deliver, or one target of it (a mount, a host), since Unix seconds."""

    collector: str
    since: float
    reason: str
    target: str = ""  # "" where it is the whole collector
    is_starting: bool = False  # it has had no time to deliver yet: rules wait for it, nobody need be told


class Dependencies(Protocol):
    """Whoever knows where series come from."""

    def feeders(self, metric: str) -> Collection[str]:
        """The collectors that emit this metric here, or would if they worked."""
        ...

    def failing(self) -> Sequence[Failing]:
        """What does not deliver now.

        After a start a collector belongs here until it has delivered twice: a rate needs two samples.
        """
        ...


class NothingKnown:
    """Dependencies where there are no collectors: unit tests, backtests."""

    def feeders(self, metric: str) -> Collection[str]:  # noqa: ARG002
        return ()

    def failing(self) -> Sequence[Failing]:
        return ()


@dataclass(slots=True)
class Origins:
    """From which collectors a rule gets its data, through recording rules too."""

    dependencies: Dependencies
    recorded: dict[str, list[RecordRule]] = field(default_factory=dict)  # by the name of what they record

    def learn(self, rules: Iterable[Rule]) -> None:
        """Take these rules as all there are."""
        self.recorded = {}
        for rule in rules:
            if isinstance(rule, RecordRule):
                self.recorded.setdefault(rule.name, []).append(rule)

    def collectors(self, rule: Rule) -> set[str] | None:
        """Their names; None where the rule reads metrics by a pattern, so that it may be any."""
        found: set[str] = set()
        waiting: list[Rule] = [rule]
        seen: set[str] = set()
        while waiting:
            for one in waiting.pop().expression.inputs:
                if not one.name:
                    return None
                if one.name not in seen:
                    seen.add(one.name)
                    found.update(self.dependencies.feeders(one.name))
                    waiting += self.recorded.get(one.name, ())
        return found

    def blind_spots(self, rule: Rule, failing: Sequence[Failing]) -> list[Failing]:
        """Those of `failing` that leave the rule without data. None of them where missing data is what it looks for."""
        if not failing or rule.expression.asks_for_absence:
            return []
        if isinstance(rule, AlertRule) and rule.no_data == "resolve":
            return []
        collectors = self.collectors(rule)
        return [one for one in failing if collectors is None or one.collector in collectors]


def is_hidden(labels: Labels, spots: Sequence[Failing]) -> bool:
    """Does any of the failures concern an alert with these labels?"""
    return any(not spot.target or any(spot.target == value for _, value in labels) for spot in spots)
