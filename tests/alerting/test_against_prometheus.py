"""The same rules and the same data in a real Prometheus and here: alerts fire over the same stretches of time.

Prometheus scrapes a target whose series follow pictures, a mark a scrape; what it stored is then judged by our engine,
at the moments Prometheus evaluated at. It may see a scrape one evaluation earlier or later than its time says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent.alert_faces import AlertsView
from agent.core.labels import Labels, drop, labels_of, show
from agent.promql_language import PromQL
from agent.rules_lab import RulesLab
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.rule_files import parse_rules
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.prometheus import Prometheus
from tests.servers.scripted_http import Reply, Request, ScriptedHttp

if TYPE_CHECKING:
    from agent.alert_keeper import AlertKeeper

# x: breach, o: good, _: the series is not there
PICTURES = {
    "steady": "oxxxxxxxxoooooo",
    "short": "oxxooxxoooooooo",
    "flaps": "xxxoxxxoxxxoooo",
    "gone": "xxxxxxx________",
    "twice": "xxxxxooooxxxxxo",
}
LENGTH = len(PICTURES["steady"])

RULES = """
groups:
- name: pictures
  rules:
  - record: breach
    expr: picture > 0
    labels: {recorded: "yes"}
  - {record: moment, expr: vector(1)}
  - {alert: AtOnce, expr: picture > 0}
  - {alert: After, expr: picture > 0, for: 1s, labels: {level: '{{ $labels.of | toUpper }}'}}
  - {alert: Kept, expr: picture > 0, keep_firing_for: 1s}
  - {alert: AfterKept, expr: picture > 0, for: 1s, keep_firing_for: 1s}
  - {alert: Recorded, expr: 'breach{recorded="yes"} > 0', for: 500ms}
  - {alert: Missing, expr: 'absent(picture{of="gone"})'}
  - {alert: Many, expr: count(picture > 0) >= 3}
  - {alert: Before, expr: 'ALERTS{alertname="AtOnce", alertstate="firing", of="steady"}'}
"""


def target(scrapes: Iterator[int]) -> Reply:
    """The next column of every picture; the last one from then on."""
    column = min(next(scrapes), LENGTH - 1)
    lines = [
        f'picture{{of="{name}"}} {int(marks[column] == "x")}'
        for name, marks in PICTURES.items()
        if marks[column] != "_"
    ]
    return Reply(200, "\n".join(lines) + "\n", {"Content-Type": "text/plain; version=0.0.4"})


def stretches(times: list[float], moments: list[float]) -> list[tuple[int, int]]:
    """Unbroken runs of evaluations, as first and last index among all evaluations."""
    at = {round(moment * 1000): index for index, moment in enumerate(moments)}
    found: list[tuple[int, int]] = []
    for index in sorted(at[round(time * 1000)] for time in times if round(time * 1000) in at):
        if found and index == found[-1][1] + 1:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return found


def ours(prometheus: Prometheus, moments: list[float]) -> tuple[dict[Labels, list[float]], Engine]:
    """When each alert fires here, given what Prometheus scraped; and the engine as it is then."""
    lab = RulesLab()
    for one in prometheus.query("picture[5m]"):
        lab.load(labels_of(one.labels), ((round(t * 1000), v) for t, v in zip(one.times, one.values, strict=True)))
    ends = {labels_of(one.labels): one.times[-1] for one in prometheus.query("picture[5m]")}
    scrapes = sorted({time for one in prometheus.query("up[5m]") for time in one.times})
    for labels, last in ends.items():  # what Prometheus marks as gone, its API does not show
        if after := [time for time in scrapes if time > last + 0.1]:
            lab.load(labels, [(round(after[0] * 1000), None)])
    engine = Engine(lab, lab, NothingKnown())
    engine.load(parse_rules(RULES, "pictures.yml", PromQL()).groups, moments[0])
    fired: dict[Labels, list[float]] = {}
    for moment in moments:
        lab.until_ms = round(moment * 1000)
        engine.evaluate("pictures.yml;pictures", moment)
        for _, one in engine.alerts():
            if one.phase == "firing":
                fired.setdefault(drop(one.labels, ["alertstate"]), []).append(moment)
    return fired, engine


def rules_shown(engine: Engine) -> list[dict[str, Any]]:
    """As the API serves them."""
    keeper = cast("AlertKeeper", SimpleNamespace(engine=engine))
    return [dict(group) for group in AlertsView(lambda: keeper).groups()]


def comparable(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the API says of rules, without what differs by machine and moment."""
    found = []
    for group in groups:
        for rule in group["rules"]:
            alerts = [sorted(one) for one in rule.get("alerts", ())]
            query = rule["query"].replace(", ", ",")
            times = {"evaluationTime": 0, "lastEvaluation": "", "alerts": alerts[:1], "query": query}
            found.append({"group": group["name"], **rule, **{key: times[key] for key in times.keys() & rule.keys()}})
    return found


@pytest.mark.server("prometheus")
def test_the_same_alerts_fire_at_the_same_time() -> None:
    need("prometheus")
    scrapes = itertools.count()

    def answer(request: Request) -> Reply:
        return target(scrapes)

    with ScriptedHttp(answer) as http, Prometheus(
        targets={"node": http.url.removeprefix("http://")}, rules={"pictures": RULES}, interval="500ms"
    ) as prometheus:  # fmt: skip
        wait_until(lambda: next(iter(http.requests[LENGTH + 4 :]), None), "the pictures to be scraped", 40, every=0.2)
        first = min(time for one in prometheus.query("up[5m]") for time in one.times)
        (moment,) = prometheus.query("moment[5m]")
        moments = [time for time in moment.times if time >= first]
        theirs = {
            labels_of({k: v for k, v in one.labels.items() if k not in ("__name__", "alertstate")}): one.times
            for one in prometheus.query('ALERTS{alertstate="firing"}[5m]')
        }
        mine, engine = ours(prometheus, moments)
        groups = prometheus.get("rules")["groups"]
    absent = [labels for labels in theirs if ("alertname", "Missing") in labels]
    assert len(absent) == 1
    assert mine.keys() == theirs.keys()
    assert len(mine) >= 15
    differing = []
    for labels, times in mine.items():
        here, there = stretches(times, moments), stretches(theirs[labels], moments)
        close = len(here) == len(there) and all(
            abs(a - b) <= 1 for one, other in zip(here, there, strict=True) for a, b in zip(one, other, strict=True)
        )
        if not close:
            differing.append(f"{show(labels)}: {here} here, {there} there")
    assert differing == []
    assert comparable(rules_shown(engine)) == comparable(groups)
