"""The rule engine: all groups, their rules' states, one evaluation at a time.

Knows nothing of threads or schedules (`alerting.rule_scheduler` has them) and nothing of where alerts go: an
evaluation returns those that began, ended or are to be told again. Evaluations come one after another; what other
threads read (`groups`, health, `alerts`) is replaced, never changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from agent.core.labels import Labels, labels_of
from agent.core.problems import Place
from agent.core.query import Querier, QueryError
from alerting.dependencies import Dependencies, Failing, Origins
from alerting.expressions import Expression
from alerting.judge import (
    Health,
    LimitError,
    RuleState,
    Surroundings,
    Verdict,
    end_all,
    judge,
    record,
    rule_ids,
    told,
)
from alerting.notify.message import Alert
from alerting.rules import AlertRule, RecordRule, RuleGroup
from alerting.state import Breach, Instance, Timing, shifted, step

DEFAULT_INTERVAL_S: Final = 15.0
COLLECTORS_KEY: Final = "collectors"  # the group that watches the collectors

_COLLECTOR_DOWN: Final = AlertRule("CollectorDown", Expression("", ""), Place("built in"), hold=60.0)
NOWHERE: Final = Surroundings()
_MOST_NAMED: Final = 5  # rules listed in one annotation


class Recorder(Protocol):
    """Keeps series whose labels are complete."""

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        """The samples of a source at a moment; series it had before and has no longer are gone (a stale marker)."""
        ...


@dataclass(slots=True)
class GroupState:
    """A group as it is evaluated. `missed`: evaluations that never took place."""

    group: RuleGroup
    key: str
    interval: float
    rules: list[RuleState]
    evaluated_at: float | None = None
    duration: float = 0.0
    missed: int = 0


@dataclass(slots=True)
class Evaluation:
    """What one evaluation of a group led to."""

    group: str
    at: float
    alerts: list[Alert] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # `group/rule: why`, of rules that were fine before
    faults: list[Exception] = field(default_factory=list)  # mistakes of our own, worth a traceback


class Engine:
    """Evaluates rules by asking `querier`, writes their series to `recorder`.

    `own_labels`: on alerts about the agent itself. `wall` and `monotonic`: seconds, to notice a clock that is set.
    """

    def __init__(
        self,
        querier: Querier,
        recorder: Recorder,
        dependencies: Dependencies,
        around: Surroundings = NOWHERE,
        *,
        own_labels: Labels = (),
        interval: float = DEFAULT_INTERVAL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._querier = querier
        self._recorder = recorder
        self._origins = Origins(dependencies)
        self._around = around
        self._own_labels = own_labels
        self._interval = interval
        self._monotonic = monotonic
        self._failed_at: dict[Failing, float] = {}  # when each was last seen failing
        self._ended: list[Alert] = []  # of rules that are gone, not told yet
        self._retired: list[str] = []  # sources of rules that are gone
        self._restored: dict[str, Mapping[Labels, Instance]] = {}
        self._collectors = RuleState(_COLLECTOR_DOWN, "alert:CollectorDown")
        self.groups: dict[str, GroupState] = {}
        self.failures = 0  # evaluations of rules that failed

    # Rules come and go.

    def load(self, groups: Sequence[RuleGroup], at: float) -> None:
        """Take these groups in place of those before. A rule of the same name and labels keeps its alerts.

        Alerts of rules that are gone are told as resolved by the next evaluation.
        """
        before = {state.id: state for one in self.groups.values() for state in one.rules}
        rules = [rule for group in groups for rule in group.rules]
        ids = iter(rule_ids(rules))
        loaded: dict[str, GroupState] = {}
        for group in groups:
            states = []
            for rule in group.rules:
                key = next(ids)
                known = before.pop(key, None)
                state = RuleState(rule, key) if known is None else replace(known, rule=rule, told_at=None)
                if key in self._restored:
                    state.instances = self._restored.pop(key)
                states.append(state)
            old = self.groups.get(group.key)
            loaded[group.key] = GroupState(
                group, group.key, group.interval or self._interval, states,
                old.evaluated_at if old else None, old.duration if old else 0.0, old.missed if old else 0,
            )  # fmt: skip
        for state in before.values():
            self._ended += end_all(state, at, self._around)
            if state.has_series:
                self._retired.append(state.id)
        self._origins.learn(rules)
        self.groups = loaded

    def restore(self, saved: Mapping[str, Sequence[Instance]], seen_at: float | None, at: float) -> None:
        """Before the first `load`: the alerts as they were at `seen_at`.

        Time in which nobody looked does not count, beyond what passes between two evaluations anyway.
        """
        gap = 0.0 if seen_at is None else max(0.0, at - seen_at - self._interval)
        self._restored = {key: {one.labels: shifted(one, gap) for one in found} for key, found in saved.items()}
        self._collectors.instances = self._restored.pop(self._collectors.id, {})

    def drop_orphans(self, at: float) -> None:
        """After the first `load`: restored alerts whose rule is no more are over."""
        for key, instances in self._restored.items():
            rule = AlertRule(key, Expression("", ""), Place(""))
            self._ended += end_all(RuleState(rule, key, instances), at, self._around)
        self._restored = {}

    def tell_again(self) -> None:
        """What was told last has not arrived: tell everything anew."""
        for state in self._states():
            state.told_at = None

    def clock_was_set(self, seconds: float) -> None:
        """The wall clock jumped: the clocks of all alerts go on as if it had not."""
        for state in self._states():
            state.instances = {labels: shifted(one, seconds) for labels, one in state.instances.items()}
        for group in self.groups.values():
            group.evaluated_at = None

    # Evaluation.

    def evaluate(self, key: str, at: float) -> Evaluation:
        """Evaluate every rule of a group, in order, as of Unix seconds `at`. A rule that fails leaves the others be.

        Raise KeyError where there is no such group.
        """
        group = self.groups[key]
        started = self._monotonic()
        done = Evaluation(key, at, self._take_ended())
        failing = self._failures(at, group.interval)
        for source in self._retired:
            self._recorder.record(source, round(at * 1000), {})
        self._retired = []
        for state in group.rules:
            spots = self._origins.blind_spots(state.rule, failing)
            self._rule(group, state, at, spots, done)
        group.evaluated_at = at
        group.duration = self._monotonic() - started
        return done

    def evaluate_collectors(self, at: float) -> Evaluation:
        """One CollectorDown for each collector that fails and that rules depend on."""
        state = self._collectors
        breaches: dict[Labels, Breach] = {}
        for one in self._origins.dependencies.failing():
            waiting = [s.rule.name for s in self._states() if self._origins.blind_spots(s.rule, [one])]
            if waiting:
                labels, breach = self._collector_down(one, waiting, at)
                if not one.is_starting or labels in state.instances:
                    breaches[labels] = breach
        before, after = state.instances, {}
        for labels in breaches.keys() | before.keys():
            now = step(before.get(labels), labels, breaches.get(labels), at, Timing(_COLLECTOR_DOWN.hold))
            if now is not None:
                after[labels] = now
        state.instances = after
        is_all = state.told_at is None
        state.told_at = at
        alerts = [
            told(state.rule, now, self._around)
            for labels, now in after.items()
            if now.phase != "pending" and (is_all or now.phase != getattr(before.get(labels), "phase", ""))
        ]
        return Evaluation(COLLECTORS_KEY, at, [*self._take_ended(), *alerts])

    def _rule(self, group: GroupState, state: RuleState, at: float, spots: Sequence[Failing], done: Evaluation) -> None:
        started = self._monotonic()
        time_ms = round((at - group.group.query_offset) * 1000)
        error = ""
        verdict = Verdict()
        try:
            if isinstance(state.rule, RecordRule):
                verdict = record(state.rule, self._querier, time_ms, group.group.limit)
            else:
                verdict = judge(state, self._querier, at, time_ms, group.group.limit, self._around, spots)
        except LimitError as failure:
            error = str(failure)
            done.alerts += end_all(state, at, self._around)
            self._recorder.record(state.id, time_ms, {})
            state.has_series = False
        except QueryError as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001  # one rule that trips over a mistake of ours leaves the others be
            error = f"failed in itself: {type(failure).__name__}: {failure}"
            if error != state.health.error:
                done.faults.append(failure)
        done.alerts += verdict.alerts
        if error:
            self.failures += 1
            if error != state.health.error:
                done.errors.append(f"{group.group.name}/{state.rule.name}: {error}")
        elif verdict.series or state.has_series:
            self._recorder.record(state.id, time_ms, verdict.series)  # where the rules after it look
            state.has_series = bool(verdict.series)
        state.health = Health(
            "err" if error else "ok",
            error,
            verdict.remark,
            at,
            self._monotonic() - started,
            verdict.samples,
            bool(spots),
        )

    def _failures(self, at: float, grace: float) -> list[Failing]:
        """What fails now or did within `grace`: the first samples after a pause are too few to end an alert on."""
        for one in self._origins.dependencies.failing():
            self._failed_at[one] = at
        self._failed_at = {one: seen for one, seen in self._failed_at.items() if 0 <= at - seen <= 3600}
        return [one for one, seen in self._failed_at.items() if at - seen <= grace]

    def _collector_down(self, one: Failing, waiting: Sequence[str], at: float) -> tuple[Labels, Breach]:
        names = sorted(set(waiting))
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        what = f"{one.collector} ({one.target})" if one.target else one.collector
        labels = {"alertname": _COLLECTOR_DOWN.name, "severity": "warning", "collector": one.collector}
        if one.target:
            labels["target"] = one.target
        notes = (
            ("description", f"{one.reason}. Without it {', '.join(names[:_MOST_NAMED])}{more} cannot be judged; "
                            "their alerts stay as they were."),
            ("summary", f"Collector {what} delivers nothing"),
        )  # fmt: skip
        return labels_of({**dict(self._own_labels), **labels}), Breach(max(at - one.since, 0.0), notes)

    # What others ask.

    def alerts(self) -> list[tuple[RuleState, Instance]]:
        """Every alert that is pending, firing or lately resolved, with its rule."""
        return [(state, one) for state in self._states() for one in list(state.instances.values())]

    def snapshot(self) -> dict[str, Mapping[Labels, Instance]]:
        """All alerts by the id of their rule, to be saved."""
        return {state.id: state.instances for state in self._states() if state.instances}

    def _states(self) -> list[RuleState]:
        return [self._collectors, *(state for group in list(self.groups.values()) for state in group.rules)]

    def _take_ended(self) -> list[Alert]:
        ended, self._ended = self._ended, []
        return ended
