"""Which buckets and tasks there should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.config import Settings
from agent.config.tables import COLLECTORS
from agent.core.model import Group
from agent.influx.flux import Step, means, task

# Suffix of the bucket, width of its windows, delay of its task. Each is filled from the one before.
_STEPS = (("_5m", "5m", "1m"), ("_1h", "1h", "5m"), ("_1d", "1d", "10m"))


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each bucket keeps what it has, in seconds; 0: for ever."""

    raw: int = 86_400
    five_minutes: int = 30 * 86_400
    one_hour: int = 365 * 86_400
    one_day: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what InfluxDB does not take, or what leaves a task nothing to read."""
        for name, seconds, least in (
            ("--raw", self.raw, 3600),
            ("--five-minutes", self.five_minutes, 6 * 3600),
            ("--one-hour", self.one_hour, 6 * 86_400),
            ("--one-day", self.one_day, 86_400),
        ):
            if 0 < seconds < least:
                # Twice the three windows that a task looks back; InfluxDB itself takes an hour and more.
                raise ValueError(f"{name}: {seconds} s is too short; {least // 3600}h is the least, 0 keeps for ever")


@dataclass(frozen=True, slots=True)
class WantedBucket:
    name: str
    seconds: int  # 0: for ever
    description: str


@dataclass(frozen=True, slots=True)
class WantedTask:
    name: str
    flux: str
    description: str


@dataclass(frozen=True, slots=True)
class Plan:
    buckets: tuple[WantedBucket, ...]
    tasks: tuple[WantedTask, ...]


def plan(bucket: str, retention: Retention, groups: Iterable[Group]) -> Plan:
    """Buckets and tasks for the readings in `bucket`, summed up as `groups` declare them."""
    gauges = means(groups)
    kept = (retention.five_minutes, retention.one_hour, retention.one_day)
    buckets = [WantedBucket(bucket, retention.raw, "Readings of vigilhost as they came.")]
    tasks = []
    for (suffix, every, offset), seconds in zip(_STEPS, kept, strict=True):
        source, target = buckets[-1].name, bucket + suffix
        step = Step(source, target, every, offset, is_first=len(buckets) == 1)
        buckets.append(WantedBucket(target, seconds, f"Readings of vigilhost, summed up over {every}."))
        tasks.append(WantedTask(step.name, task(step, gauges), f"Sums up {source} over {every} into {target}."))
    return Plan(tuple(buckets), tuple(tasks))


def groups_of(settings: Settings) -> list[Group]:
    """What our own collectors emit, and those of other packages that are on."""
    classes: Mapping[str, Any] = {name: COLLECTORS.find(name) for name in sorted(COLLECTORS.builtin)}
    others = {entry.type: entry.cls for entry in settings.collectors.values() if entry.type not in classes}
    return [group for cls in (*classes.values(), *others.values()) for group in cls.groups]
