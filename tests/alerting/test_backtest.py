from __future__ import annotations

from agent.core.labels import labels_of
from agent.promql_language import PromQL
from agent.rules_lab import RulesLab
from alerting.backtest import Backtest, backtest
from alerting.judge import Surroundings
from alerting.rule_files import parse_rules

T0 = 1_699_999_980.0  # a whole minute
RULES = """
groups:
- name: g
  rules:
  - {record: 'used:max', expr: max(used)}
  - {alert: Full, expr: 'used:max > 90', for: 2m, annotations: {s: '{{ $value }}'}}
  - {alert: Paged, expr: 'ALERTS{alertname="Full", alertstate="firing"}'}
  - {alert: Broken, expr: used * on () used}
"""


def run(picture: str, rules: str = RULES, since: float = T0) -> Backtest:
    """A mark a minute: x breach, o good, _ no sample."""
    past = RulesLab()
    for disk in ("a", "b"):
        samples = [
            (round((T0 + 60 * index) * 1000), (91.0 + index if disk == "a" else 10) if mark == "x" else 50.0)
            for index, mark in enumerate(picture)
            if mark != "_"
        ]
        past.load(labels_of({"__name__": "used", "disk": disk}), samples)
    groups = parse_rules(rules, "f", PromQL()).groups
    end = T0 + 60 * (len(picture) - 1)
    return backtest(groups, RulesLab(base=past), since, end, 60.0, Surroundings())


def shown(found: Backtest) -> list[tuple[str, float, float | None, float | None]]:
    """Name and minutes since T0."""

    def minute(at: float | None) -> float | None:
        return None if at is None else (at - T0) / 60

    return [(one.alert, (one.pending_at - T0) / 60, minute(one.fired_at), minute(one.resolved_at))
            for one in found.stretches]  # fmt: skip


def test_when_the_rules_would_have_fired() -> None:
    found = run("ooxxxxooxxoxxx")
    assert shown(found) == [
        ("Full", 2, 4, 6),
        ("Paged", 4, 4, 6),
        ("Full", 8, None, 10),
        ("Full", 11, 13, None),
        ("Paged", 13, 13, None),
    ]
    assert [(one.peak, one.annotations) for one in found.firings() if one.alert == "Full"] == [
        (96.0, (("s", "96"),)),
        (104.0, (("s", "104"),)),
    ]


def test_a_rule_that_cannot_be_evaluated_is_said_once() -> None:
    (error,) = run("ooxxxxooxxoxxx").errors
    assert error.startswith("g/Broken: ")


def test_no_data_is_the_end() -> None:
    assert shown(run("xxx" + "_" * 9))[0] == ("Full", 0, 2, 7)


def test_only_what_lies_within_counts() -> None:
    assert shown(run("xxxxxx", since=T0 + 180))[0] == ("Full", 3, 5, None)


def test_a_long_time_is_asked_for_in_pieces() -> None:
    picture = "o" * 4999 + "xxxx" + "o" * 100
    assert shown(run(picture))[0] == ("Full", 4999, 5001, 5003)


def test_groups_have_their_own_intervals_and_offsets() -> None:
    rules = RULES.replace("- name: g", "- name: g\n  interval: 5m\n  query_offset: 2m")
    assert shown(run("o" * 2 + "x" * 10 + "o" * 20, rules))[0] == ("Full", 7, 12, 17)  # T0 is two minutes before a slot
