"""Rules over the past: when would they have fired? Recording rules first, each rule in the order of its file.

Every rule is asked for a whole stretch at once, not moment by moment; what it records, and its ALERTS, can be read by
the rules after it. Missing data is taken as it is: there is no telling whether a collector had failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.labels import Labels
from agent.core.query import Limits, Points, QueryError, Result, Sample
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.judge import RuleState, Surroundings
from alerting.rules import AlertRule, Rule, RuleGroup
from alerting.state import Instance
from alerting.unit_test_run import Lab

_STEPS: Final = 5_000  # asked for at once
_LIMITS: Final = Limits(samples=50_000_000, deadline_s=300.0)

Progress = Callable[[float], None]  # the part done, 0-1


@dataclass(slots=True)
class Stretch:
    """One time an alert would have been on its way. `fired_at` None: it never came to firing."""

    alert: str
    labels: Labels
    pending_at: float
    fired_at: float | None = None
    resolved_at: float | None = None  # None: still going on at the end
    peak: float = 0.0  # the value furthest from zero
    annotations: Labels = ()  # of the last evaluation


@dataclass(slots=True)
class Backtest:
    """What came of it. `errors`: `group/rule: why`, of rules that could not be evaluated, each once."""

    stretches: list[Stretch]
    errors: list[str]
    evaluations: int = 0

    def firings(self) -> list[Stretch]:
        """Those that fired."""
        return [one for one in self.stretches if one.fired_at is not None]


def _no_progress(_: float) -> None:
    """For callers that show none."""


def backtest(groups: Sequence[RuleGroup], lab: Lab, start: float, end: float, interval: float,
             around: Surroundings, progress: Progress = _no_progress) -> Backtest:  # fmt: skip
    """Replay the groups from `start` to `end` (Unix seconds), each at its own interval or else at `interval`."""
    found = Backtest([], [])
    total = sum(len(group.rules) for group in groups) or 1
    done = 0
    for group in groups:
        step_ms = max(1000, round((group.interval or interval) * 1000))
        first = -(-round(start * 1000) // step_ms) * step_ms
        for rule in group.rules:
            _Replay(group, rule, lab, around, found).run(first, round(end * 1000), step_ms)
            done += 1
            progress(done / total)
    found.stretches.sort(key=lambda one: (one.pending_at, one.alert, one.labels))
    return found


class _Replay:
    """One rule over the whole time: a range query a chunk, then a step of the engine for each moment that matters."""

    def __init__(self, group: RuleGroup, rule: Rule, lab: Lab, around: Surroundings, found: Backtest) -> None:
        self._group = group
        self._rule = rule
        self._lab = lab
        self._found = found
        self._answers = _Answers(lab, rule.expression.text)
        self._engine = Engine(self._answers, lab, NothingKnown(), around)
        self._engine.load([replace(group, rules=(rule,))], 0.0)
        self._open: dict[Labels, Stretch] = {}

    def run(self, first_ms: int, end_ms: int, step_ms: int) -> None:
        ((key, group),) = self._engine.groups.items()
        (state,) = group.rules
        offset_ms = round(self._group.query_offset * 1000)
        for low in range(first_ms, end_ms + 1, step_ms * _STEPS):
            high = min(low + step_ms * (_STEPS - 1), end_ms)
            try:
                self._answers.fill(low - offset_ms, high - offset_ms, step_ms)
            except QueryError as error:
                self._found.errors.append(f"{self._group.name}/{self._rule.name}: {error}")
                return
            for now_ms in range(low, high + 1, step_ms):
                if not (self._answers.has(now_ms - offset_ms) or state.instances or state.has_series):
                    continue
                self._found.evaluations += 1
                done = self._engine.evaluate(key, now_ms / 1000)
                self._found.errors += done.errors
                if isinstance(self._rule, AlertRule):
                    self._follow(state, now_ms / 1000)
                    self._drop_resolved(state)

    def _follow(self, state: RuleState, now: float) -> None:
        for labels, one in state.instances.items():
            stretch = self._open.get(labels)
            if stretch is None and one.is_active:
                stretch = self._open[labels] = Stretch(self._rule.name, labels, one.active_at)
                self._found.stretches.append(stretch)
            if stretch is not None:
                self._update(stretch, one)
        for labels in list(self._open):
            now_is = state.instances.get(labels)
            if now_is is None or not now_is.is_active:
                self._open.pop(labels).resolved_at = now

    def _update(self, stretch: Stretch, one: Instance) -> None:
        if one.is_active:
            stretch.fired_at = one.fired_at
            stretch.annotations = one.annotations
            if abs(one.value) > abs(stretch.peak):
                stretch.peak = one.value

    def _drop_resolved(self, state: RuleState) -> None:
        """Nobody is told, so nothing needs to be remembered of what is over."""
        state.instances = {labels: one for labels, one in state.instances.items() if one.is_active}


class _Answers:
    """A Querier that knows the answers of one expression from a range query, and asks the lab for everything else."""

    def __init__(self, lab: Lab, expr: str) -> None:
        self._lab = lab
        self._expr = expr
        self._at: Mapping[int, list[Sample]] = {}

    def fill(self, start_ms: int, end_ms: int, step_ms: int) -> None:
        """Learn the answers of a stretch. Raise QueryError."""
        found: dict[int, list[Sample]] = {}
        for points in self._lab.range(self._expr, start_ms, end_ms, step_ms, _LIMITS).matrix():
            for time_ms, value in _pairs(points):
                found.setdefault(time_ms, []).append(Sample(points.labels, time_ms, value))
        self._at = found

    def has(self, time_ms: int) -> bool:
        """Is there any sample at this moment?"""
        return time_ms in self._at

    def instant(self, expr: str, time_ms: int, limits: Limits = _LIMITS) -> Result:
        if expr != self._expr:
            return self._lab.instant(expr, time_ms, limits)
        return Result("vector", list(self._at.get(time_ms, ())), time_ms)

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = _LIMITS) -> Result:
        return self._lab.range(expr, start_ms, end_ms, step_ms, limits)


def _pairs(points: Points) -> Iterator[tuple[int, float]]:
    return zip(points.times_ms, points.values, strict=True)
