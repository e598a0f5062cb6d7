"""Unit-test files carried out, with promtool's verdicts: the engine over series in memory, a step at a time.

Facts: promtool's behaviour, compared by the tests. An alert test is decided by the newest evaluation not after it, and
its series are known up to that moment; only firing alerts count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.labels import Labels, labels_of, show
from agent.core.problems import Problem, shown
from agent.core.query import ParseError, Querier, QueryError
from agent.core.units import format_duration
from alerting.dependencies import NothingKnown
from alerting.engine import Engine, Recorder
from alerting.expressions import Language
from alerting.judge import RuleState, Surroundings
from alerting.rule_files import RuleSet, read_rule_file
from alerting.unit_test_files import AlertTest, ExprTest, TestFile, TestGroup, read_test_file


class Lab(Querier, Recorder, Protocol):
    """Series in memory, and a clock: nothing later than `until_ms` is seen."""

    until_ms: int

    def load(self, labels: Labels, samples: Iterable[tuple[int, float | None]]) -> None:
        """Samples of one series in order of time; None is a stale marker."""
        ...


LabMaker = Callable[[int], Lab]  # by the default step of subqueries, ms


@dataclass(slots=True)
class Report:
    """What a file came to: it passed when nothing is among the failures."""

    file: str
    failures: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failures


def run_test_file(path: str, language: Language, make_lab: LabMaker) -> Report:
    """Read and carry out one file."""
    file = read_test_file(path, language)
    report = Report(path, [str(problem) for problem in file.problems], list(file.remarks))
    if file.problems:
        return report
    rules = RuleSet()
    for one in file.rule_files:
        read_rule_file(one, language, rules)
    for group in file.groups:
        problems = [*group.problems, *rules.errors]
        if problems:
            report.failures += map(str, problems)
        else:
            report.failures += _Run(file, group, rules, language, make_lab(file.evaluation_ms)).failures()
    return report


class _Run:
    """One group of tests."""

    def __init__(self, file: TestFile, tests: TestGroup, rules: RuleSet, language: Language, lab: Lab) -> None:
        self._file = file
        self._tests = tests
        self._language = language
        self._lab = lab
        around = Surroundings(labels_of(tests.external_labels), tests.external_url)
        self._engine = Engine(lab, lab, NothingKnown(), around)
        self._engine.load(rules.groups, 0.0)
        order = {name: index for index, name in enumerate(file.order)}
        groups = sorted(self._engine.groups.values(), key=lambda one: order.get(one.group.name, 0))
        self._keys = [one.key for one in groups]
        for labels, items in tests.series.items():
            samples = [
                (index * tests.interval_ms, item if isinstance(item, float) else None)
                for index, item in enumerate(items)
                if item is not None
            ]
            lab.load(labels, samples)

    def failures(self) -> list[str]:
        """Everything that is not as expected; an evaluation that fails ends the run."""
        found: list[str] = []
        tests: list[AlertTest | ExprTest] = [*self._tests.alert_tests, *self._tests.expr_tests]
        end = max((test.eval_ms for test in tests), default=0)
        waiting = sorted(self._tests.alert_tests, key=lambda test: test.eval_ms)
        step = self._file.evaluation_ms
        for now_ms in range(0, end + 1, step):
            self._lab.until_ms = now_ms
            errors = self._evaluate(now_ms)
            if errors:
                return found + errors
            while waiting and waiting[0].eval_ms < now_ms + step:
                found += self._check_alerts(waiting.pop(0))
        for test in self._tests.expr_tests:
            found += self._check_expr(test)
        return found

    def _evaluate(self, now_ms: int) -> list[str]:
        errors = []
        for key in self._keys:
            self._engine.evaluate(key, now_ms / 1000)
            for state in self._engine.groups[key].rules:
                if state.health.error:
                    text = f"fails {format_duration(now_ms / 1000)} after the start: {state.health.error}"
                    errors.append(str(Problem(state.rule.place, f"{state.rule.name}.expr", text)))
        return errors

    def _states(self) -> list[RuleState]:
        return [state for key in self._keys for state in self._engine.groups[key].rules]

    def _check_alerts(self, test: AlertTest) -> list[str]:
        wanted = sorted((_sorted(one.labels), _sorted(one.annotations)) for one in test.expected)
        got = sorted(
            (one.labels, tuple(sorted(one.annotations)))
            for state in self._states()
            if state.rule.name == test.name and state.rule.key[0] == "alert"
            for one in state.instances.values()
            if one.phase == "firing"
        )
        if wanted == got:
            return []
        return [self._said(test, f"alert {test.name}", _alerts(wanted), _alerts(got))]

    def _check_expr(self, test: ExprTest) -> list[str]:
        try:
            wanted = sorted(
                ((self._language.series(text or "{}"), value) for text, value in test.expected), key=lambda one: one[0]
            )
            result = self._lab.instant(test.expr, test.eval_ms).vector()
        except (ParseError, QueryError) as error:
            return [str(Problem(test.place, f"promql_expr_test {shown(test.expr)}", str(error)))]
        got = sorted(((sample.labels, sample.value) for sample in result), key=lambda one: one[0])
        if len(wanted) == len(got) and all(map(self._is_same, wanted, got)):
            return []
        return [self._said(test, f"query {shown(test.expr)}", _samples(wanted), _samples(got))]

    def _is_same(self, wanted: tuple[Labels, float], got: tuple[Labels, float]) -> bool:
        """NaN is not NaN, as in promtool; with `fuzzy_compare` neighbouring floats are the same."""
        if wanted[0] != got[0]:
            return False
        a, b = wanted[1], got[1]
        if a == b or not self._file.is_fuzzy:
            return a == b
        return math.nextafter(a, -math.inf) == b or math.nextafter(a, math.inf) == b

    def _said(self, test: AlertTest | ExprTest, what: str, wanted: str, got: str) -> str:
        name = f"{self._tests.name}: " if self._tests.name else ""
        at = format_duration(test.eval_ms / 1000)
        return f"{test.place}: {name}{what} at {at}:\n    expected {wanted}\n    got      {got}"


def _sorted(pairs: dict[str, str]) -> Labels:
    return tuple(sorted(pairs.items()))


def _alerts(found: Sequence[tuple[Labels, Labels]]) -> str:
    return ", ".join(f"{show(labels)} with {show(notes)}" for labels, notes in found) or "none firing"


def _samples(found: Sequence[tuple[Labels, float]]) -> str:
    return ", ".join(f"{show(labels)} {value!r}" for labels, value in found) or "nothing"
