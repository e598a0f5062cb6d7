"""Where the series that rules read come from: the collectors of the scheduler."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent.core.clock import NS, Clock
from agent.scheduler import Scheduler
from agent.timetable import Task
from alerting.dependencies import Failing
from sinks.history.naming import is_kept, metric_name

_RUNS_FOR_A_RATE = 2
_STARTING = "it has not delivered twice yet"
_WARMING_UP_S = 50.0  # after a start; shorter than CollectorDown waits, so a slow collector is not taken for a dead one


class _Names:
    """The metrics a collector declares; a field `*` stands for many, told by what is around it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        fields = [(group, field) for group in task.collector.groups for field in group.fields if is_kept(field)]
        self.exact = frozenset(metric_name(group, field) for group, field in fields if field.name != "*")
        stars = [field.prom or f"{group.measurement}_{field.influx}" for group, field in fields if field.name == "*"]
        self.around = tuple(tuple(star.split("*", 1)) for star in stars if "*" in star)

    def __contains__(self, metric: str) -> bool:
        return metric in self.exact or any(
            metric.startswith(before) and metric.endswith(after) for before, after in self.around
        )


class RuleInputs:
    """A Dependencies. Asked on the thread of the rules, so it only reads."""

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._metrics: dict[str, _Names] = {}
        self._feeders: dict[str, tuple[str, ...]] = {}  # by metric; all rules are looked at again and again
        self._tasks = scheduler.tasks  # those that `_feeders` is about
        self._since: dict[tuple[str, str], float] = {}
        self._started_at = clock.wall_ns() / NS

    def feeders(self, metric: str) -> Collection[str]:
        """The collectors that declare this metric."""
        tasks = self._scheduler.tasks
        if tasks is not self._tasks:
            self._feeders.clear()
            self._tasks = tasks
        known = self._feeders.get(metric)
        if known is None:
            known = tuple(name for name, task in list(tasks.items()) if metric in self._names(name, task))
            self._feeders[metric] = known
        return known

    def _names(self, name: str, task: Task) -> _Names:
        known = self._metrics.get(name)
        if known is None or known.task is not task:
            known = self._metrics[name] = _Names(task)
        return known

    def failing(self) -> Sequence[Failing]:
        """What does not deliver now; a host that lacks what a collector measures is no failure."""
        now = self._clock.wall_ns() / NS
        found: dict[tuple[str, str], str] = {}
        is_warming_up = 0 <= now - self._started_at < _WARMING_UP_S
        for name, task in list(self._scheduler.tasks.items()):
            stats = task.stats
            if stats.is_missing:
                continue
            if stats.error:
                found[name, ""] = stats.error
            elif is_warming_up and stats.runs - stats.failures < _RUNS_FOR_A_RATE:
                found[name, ""] = _STARTING
            for target in stats.failed:
                found[name, target.target] = target.reason
        self._since = {key: self._since.get(key, now) for key in found}
        since = self._since
        return [
            Failing(name, since[name, target], reason, target, is_starting=reason is _STARTING)
            for (name, target), reason in found.items()
        ]
