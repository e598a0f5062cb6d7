"""The engine over series in memory: what is told when, what is recorded, what a restart and a failing collector do."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from agent.alert_faces import AlertsView
from agent.core.labels import labels_of, show
from agent.core.query import DEFAULT_LIMITS, Limits, Result
from agent.promql_language import PromQL
from agent.rules_lab import RulesLab
from alerting.dependencies import Failing, NothingKnown
from alerting.engine import Engine, Evaluation
from alerting.judge import Surroundings
from alerting.notify.message import Alert
from alerting.rule_files import parse_rules
from alerting.rule_store import RuleStore
from alerting.rules import RuleGroup

if TYPE_CHECKING:
    from agent.alert_keeper import AlertKeeper

T0 = 1_700_000_000.0
STEP = 60.0

RULES = """
groups:
- name: disks
  rules:
  - record: disk:used
    expr: 1 - disk_free
  - alert: DiskFull
    expr: disk:used > 0.9
    for: 2m
    labels: {severity: page}
    annotations: {summary: "{{ $labels.mount }} is {{ $value | humanizePercentage }} full"}
  - {alert: NoDisk, expr: absent(disk_free)}
"""


def groups(text: str = RULES) -> list[RuleGroup]:
    found = parse_rules(text, "f.yaml", PromQL())
    assert found.errors == []
    return found.groups


@dataclass
class Collectors:
    """The disk collector feeds disk_free; `down` is what fails."""

    down: list[Failing] = field(default_factory=list)

    def feeders(self, metric: str) -> Collection[str]:
        return {"disk_free": ("disk",), "load1": ("system",)}.get(metric, ())

    def failing(self) -> Sequence[Failing]:
        return self.down


@dataclass
class Host:
    """A lab, an engine, and a clock that goes a minute a step."""

    rules: str = RULES
    lab: RulesLab = field(default_factory=RulesLab)
    collectors: Collectors = field(default_factory=Collectors)
    now: float = T0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.engine = Engine(
            self.lab, self.lab, self.collectors, Surroundings((), "http://host"), own_labels=(("instance", "host"),),
            interval=STEP,
        )  # fmt: skip
        self.engine.load(groups(self.rules), self.now)

    def disk(self, free: float | None, mount: str = "/") -> None:
        if free is not None:
            labels = labels_of({"__name__": "disk_free", "mount": mount})
            self.lab.load(labels, [(round(self.now * 1000), free)])

    def evaluate(self) -> list[Alert]:
        self.lab.until_ms = round(self.now * 1000)
        done = self.engine.evaluate("f.yaml;disks", self.now)
        self.now += STEP
        return done.alerts

    def pass_by(self, seen: str) -> str:
        """x breach, o good, ? no sample and the collector fails, _ no sample; what is told: F, R, S for stale, ."""
        told = ""
        for mark in seen:
            self.collectors.down = [Failing("disk", self.now, "timed out")] if mark == "?" else []
            self.disk({"x": 0.05, "o": 0.5}.get(mark))
            told += "".join(_mark(alert) for alert in self.evaluate() if alert.name == "DiskFull") or "."
        return told


def _mark(alert: Alert) -> str:
    return "S" if alert.is_stale else "F" if alert.is_firing else "R"


@pytest.mark.parametrize(
    ("seen", "told", "sentence"),
    [
        ("xxxooo", "..FR..", "told when it begins to fire and when it ends, a pending alert not at all"),
        ("xxooo", ".....", "what never fired is not told"),
        ("xxxxx", "..FFF", "a firing alert is passed on again each minute"),
        ("xxx??????????xo", "..FFFFFSSSSSSFR", "a collector that fails holds the alert, stale after the lookback"),
        ("xxx?????????oo", "..FFFFFSSSSSSR", "and it ends when data says so, the first evaluation with data aside"),
        ("xxx_____", "..FFFFFR", "without a failing collector no data is the end, once the lookback has passed"),
    ],
)  # fmt: skip
def test_what_is_told(seen: str, told: str, sentence: str) -> None:
    assert Host().pass_by(seen) == told, sentence


def test_an_alert_is_whole() -> None:
    host = Host()
    host.pass_by("xx")
    host.disk(0.04)
    (alert,) = (one for one in host.evaluate() if one.name == "DiskFull")
    assert alert.labels == (("alertname", "DiskFull"), ("mount", "/"), ("severity", "page"))
    assert alert.annotations == (("summary", "/ is 96% full"),)
    assert (alert.state, alert.starts_at, alert.ends_at, alert.value) == ("firing", T0 + 120, None, 0.96)
    assert alert.generator_url == "http://host/graph?g0.expr=disk%3Aused+%3E+0.9&g0.tab=1"


def test_series_begin_and_end_with_the_alert() -> None:
    host = Host()
    host.pass_by("xxxxoo")
    query = 'ALERTS{alertname="DiskFull"} or ALERTS_FOR_STATE{alertname="DiskFull"} or disk:used'
    pictures = []
    for minute in range(6):
        vector = host.lab.instant(query, round((T0 + 60 * minute) * 1000)).vector()
        pictures.append(sorted(dict(s.labels).get("alertstate", show(s.labels[:1])[11:-2]) for s in vector))
    pending, firing = (["ALERTS_FOR_STATE", "disk:used", state] for state in ("pending", "firing"))
    assert pictures == [pending, pending, firing, firing, ["disk:used"], ["disk:used"]]


def test_absence_is_never_held() -> None:
    host = Host()
    host.collectors.down = [Failing("disk", T0, "timed out")]
    assert [alert.name for alert in host.evaluate()] == ["NoDisk"]
    host.disk(0.5)
    assert [(alert.name, alert.state) for alert in host.evaluate()] == [("NoDisk", "resolved")]


def test_a_rule_may_want_no_data_to_be_the_end() -> None:
    rules = RULES.replace("annotations: {", "annotations: {vigilhost_no_data: resolve, ")
    host = Host(rules)
    assert host.pass_by("xxx??????") == "..FFFFFR."
    assert not [one for one in host.engine.alerts() if one[1].stale_since is not None]


def test_a_target_that_fails_holds_its_own_alerts_alone() -> None:
    host = Host()
    for _ in range(3):
        host.disk(0.01, "/")
        host.disk(0.01, "/mnt/nfs")
        host.evaluate()
    host.collectors.down = [Failing("disk", host.now, "hangs", "/mnt/nfs")]
    told = [alert for _ in range(7) for alert in host.evaluate() if not alert.is_firing or alert.is_stale]
    states = {dict(alert.labels)["mount"]: _mark(alert) for alert in told if alert.name == "DiskFull"}
    assert states == {"/": "R", "/mnt/nfs": "S"}


def test_one_collector_down_fires_and_names_what_is_blind() -> None:
    host = Host()
    host.collectors.down = [Failing("disk", T0, "timed out after 10 s"), Failing("unused", T0, "gone")]
    told: list[Alert] = []
    for minute in range(4):
        told += host.engine.evaluate_collectors(T0 + 60 * minute).alerts
    host.collectors.down = []
    told += host.engine.evaluate_collectors(T0 + 300).alerts
    assert [(one.labels, one.state) for one in told] == [
        ((("alertname", "CollectorDown"), ("collector", "disk"), ("instance", "host"), ("severity", "warning")), state)
        for state in ("firing", "resolved")
    ]
    assert dict(told[0].annotations) == {
        "summary": "Collector disk delivers nothing",
        "description": "timed out after 10 s. Without it DiskFull, disk:used cannot be judged; "
        "their alerts stay as they were.",
    }


def test_a_collector_that_has_just_started_is_not_down_and_one_that_was_down_is_not_back() -> None:
    host = Host()
    failed, starts = Failing("disk", T0, "timed out"), Failing("disk", T0, "not yet", is_starting=True)
    host.collectors.down = [starts]
    assert host.engine.evaluate_collectors(T0).alerts == []
    assert host.engine.alerts() == []
    host.collectors.down = [failed]
    told = [host.engine.evaluate_collectors(T0 + 60 * minute).alerts for minute in range(1, 4)]
    assert [_mark(alert) for alerts in told for alert in alerts] == ["F"]
    host.collectors.down = [starts]
    assert host.engine.evaluate_collectors(T0 + 240).alerts == []
    assert [one.phase for _, one in host.engine.alerts()] == ["firing"]


def test_the_first_samples_after_a_failure_are_too_few_to_end_an_alert() -> None:
    """A rate over one sample is no answer: the evaluation after a failure holds too."""
    rules = "groups: [{name: disks, rules: [{alert: DiskFull, expr: 'rate(disk_free[3m]) > 0'}]}]"
    host = Host(rules)
    for value in (1, 2, 3):
        host.disk(value)
        host.evaluate()
    host.collectors.down = [Failing("disk", host.now, "timed out")]
    for _ in range(6):
        host.evaluate()
    host.collectors.down = []
    host.disk(4)
    assert [_mark(alert) for alert in host.evaluate()] == ["S"]
    host.disk(5)
    assert [_mark(alert) for alert in host.evaluate()] == ["F"]


def test_an_error_leaves_the_alerts_as_they_are() -> None:
    rules = RULES.replace("disk:used > 0.9", "disk:used > on () group_left () twice")
    host = Host(rules)
    twice = [labels_of({"__name__": "twice", "n": n}) for n in "12"]
    for mark in (0, 1, 2, 3):
        host.lab.load(twice[0], [(round(host.now * 1000), 0.5)])
        if mark == 3:
            host.lab.load(twice[1], [(round(host.now * 1000), 0.5)])
        host.disk(0.05)
        host.lab.until_ms = round(host.now * 1000)
        done = host.engine.evaluate("f.yaml;disks", host.now)
        host.now += STEP
    state = host.engine.groups["f.yaml;disks"].rules[1]
    assert (state.health.state, state.phase) == ("err", "firing")
    assert "duplicate" in state.health.error or "many" in state.health.error
    assert done.errors == [f"disks/DiskFull: {state.health.error}"]
    assert [alert for alert in done.alerts if alert.name == "DiskFull"] == []


def test_more_alerts_than_the_limit_end_them_all() -> None:
    rules = "groups: [{name: disks, limit: 1, rules: [{alert: DiskFull, expr: disk_free < 0.1}]}]"
    host = Host(rules)
    assert host.pass_by("x") == "F"
    host.disk(0.01, "/other")
    host.disk(0.01, "/")
    assert [_mark(alert) for alert in host.evaluate()] == ["R"]
    (state,) = host.engine.groups["f.yaml;disks"].rules
    assert state.health.error == "exceeded limit of 1 with 2 alerts"
    assert host.lab.instant("ALERTS", round((host.now - STEP) * 1000)).vector() == []


def test_a_template_that_fails_is_remarked_and_the_alert_goes() -> None:
    host = Host(
        "groups: [{name: disks, rules: [{alert: DiskFull, expr: disk_free, annotations: {s: '{{ first . }}'}}]}]"
    )
    host.disk(1)
    (alert,) = host.evaluate()
    assert dict(alert.annotations)["s"].startswith("<error expanding template: ")
    assert host.engine.groups["f.yaml;disks"].rules[0].health.remark.startswith("s: ")


def test_a_mistake_of_ours_in_one_rule_leaves_the_others_be(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    asked = host.lab.instant

    def instant(expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        if "disk_free" in expr and "absent" not in expr:
            raise ZeroDivisionError("division by zero")
        return asked(expr, time_ms, limits)

    monkeypatch.setattr(host.lab, "instant", instant)
    done = [host.engine.evaluate("f.yaml;disks", T0 + at) for at in (0, 60)]
    broken, _, other = host.engine.groups["f.yaml;disks"].rules
    assert broken.health.error == "failed in itself: ZeroDivisionError: division by zero"
    assert other.phase == "firing"
    assert [list(map(type, one.faults)) for one in done] == [[ZeroDivisionError], []]


def test_what_the_api_shows_of_alerts() -> None:
    host = Host()
    host.pass_by("xxx???????")
    view = AlertsView(lambda: cast("AlertKeeper", SimpleNamespace(engine=host.engine)))
    alert, no_disk = view.alerts()
    assert no_disk["labels"] == {"alertname": "NoDisk"}
    assert alert == {
        "labels": {"alertname": "DiskFull", "mount": "/", "severity": "page"},
        "annotations": {"summary": "/ is 95% full"},
        "state": "firing",
        "activeAt": "2023-11-14T22:13:20.000Z",
        "value": "9.5e-01",
        "stale": True,
    }
    (group,) = view.groups()
    assert [(rule["name"], rule.get("state"), rule.get("blind")) for rule in group["rules"]] == [
        ("disk:used", None, True), ("DiskFull", "firing", True), ("NoDisk", "firing", None),
    ]  # fmt: skip
    assert "vigilhost_no_data" not in str(view.groups())


# Reloads and restarts.


def test_a_reload_keeps_the_alerts_of_rules_that_stay() -> None:
    host = Host()
    host.pass_by("xxx")
    host.engine.load(groups(RULES.replace("> 0.9", "> 0.8").replace("name: disks", "name: disks2")), host.now)
    host.disk(0.05)
    host.lab.until_ms = round(host.now * 1000)
    (alert,) = host.engine.evaluate("f.yaml;disks2", host.now).alerts
    assert (alert.name, alert.starts_at) == ("DiskFull", T0 + 120)


def test_the_alerts_of_a_rule_that_is_gone_are_over() -> None:
    host = Host()
    host.pass_by("xxx")
    host.engine.load(groups("groups: [{name: disks, rules: [{alert: Other, expr: nothing}]}]"), host.now)
    assert [(alert.name, alert.state, alert.ends_at) for alert in host.evaluate()] == [
        ("DiskFull", "resolved", T0 + 180)
    ]
    assert host.lab.instant("ALERTS or disk:used", round((host.now - STEP) * 1000)).vector() == []


@dataclass
class Restarting:
    """A host that is killed after each evaluation, so that all it knows is what the file knows."""

    path: Path
    host: Host = field(default_factory=Host)
    down_s: float = 0.0

    def step(self, mark: str) -> str:
        connection = sqlite3.connect(self.path, isolation_level=None)
        store = RuleStore(connection)
        saved = store.load()
        host = self.host
        host.now += self.down_s
        host.engine = Engine(host.lab, host.lab, host.collectors, interval=STEP)
        host.engine.restore(saved.alerts, saved.seen_at, host.now)
        host.engine.load(groups(host.rules), host.now)
        host.engine.drop_orphans(host.now)
        told = host.pass_by(mark)
        store.save(host.engine.snapshot(), host.now - STEP)
        connection.close()
        return told


@pytest.mark.parametrize(
    ("seen", "told", "down_s", "sentence"),
    [
        ("xxxxx", "..FFF", 0, "a start is no interruption: pending goes on, what fires is told again"),
        ("xxxooo", "..FRRR", 0, "what is over is told as over, again after each start: the receiver knows"),
        ("xxx_________", "..FFFFFFFFFR", 0, "what ended while nobody looked ends, lookback after lookback"),
        ("xxxxx", "..FFF", 3600, "time in which nobody looked neither fires an alert early nor makes it begin anew"),
        ("xxoxxx", ".....F", 3600, "what was pending and is over vanishes"),
    ],
)  # fmt: skip
def test_killed_after_every_evaluation(tmp_path: Path, seen: str, told: str, down_s: float, sentence: str) -> None:
    restarting = Restarting(tmp_path / "alerts.db", down_s=down_s)
    assert "".join(restarting.step(mark) for mark in seen) == told, sentence


def test_a_firing_alert_survives_a_restart_as_it_is(tmp_path: Path) -> None:
    host = Host()
    host.pass_by("xxx")
    connection = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    assert RuleStore(connection).save(host.engine.snapshot(), host.now - STEP) == 1
    host.now += 1800
    host.start()
    saved = RuleStore(connection).load()
    host.engine.restore(saved.alerts, saved.seen_at, host.now)
    host.engine.load(groups(), host.now)
    host.disk(0.05)
    assert [(alert.state, alert.starts_at) for alert in host.evaluate()] == [("firing", T0 + 120)]
    connection.close()


def test_a_rule_that_went_with_an_upgrade_ends_its_alerts(tmp_path: Path) -> None:
    host = Host()
    host.pass_by("xxx")
    snapshot = {key: list(found.values()) for key, found in host.engine.snapshot().items()}
    engine = Engine(host.lab, host.lab, NothingKnown())
    engine.restore(snapshot, host.now, host.now)
    engine.load(groups("groups: [{name: disks, rules: [{alert: Other, expr: nothing}]}]"), host.now)
    engine.drop_orphans(host.now)
    done: Evaluation = engine.evaluate("f.yaml;disks", host.now)
    assert [(alert.name, alert.state) for alert in done.alerts] == [("DiskFull", "resolved")]


def test_only_changes_are_written(tmp_path: Path) -> None:
    host = Host()
    connection = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    store = RuleStore(connection)
    writes = []
    for mark in "oxxxxxo":
        host.pass_by(mark)
        writes.append(store.save(host.engine.snapshot(), host.now))
    assert writes == [0, 1, 0, 1, 0, 0, 1]
    connection.close()


def test_a_failed_save_is_made_up_for(tmp_path: Path) -> None:
    host = Host()
    host.pass_by("xxx")
    connection = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    store = RuleStore(connection)
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        store.save(host.engine.snapshot(), host.now)
    connection.execute("PRAGMA query_only = OFF")
    assert store.save(host.engine.snapshot(), host.now) == 1
    connection.execute("BEGIN")
    host.pass_by("o")
    store.save(host.engine.snapshot(), host.now)
    connection.execute("ROLLBACK")
    store.forget()
    assert store.save(host.engine.snapshot(), host.now) == 1
    connection.close()


def test_labels_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    host = Host()
    for _ in range(3):
        host.disk(0.01, "/mnt/\udcff\u00fc")
        host.evaluate()
    connection = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    RuleStore(connection).save(host.engine.snapshot(), host.now)
    saved = RuleStore(connection).load()
    assert {key: {one.labels: one for one in found} for key, found in saved.alerts.items()} == host.engine.snapshot()
    connection.execute("UPDATE rule_alerts SET state = '{}'")
    again = RuleStore(connection).load()
    assert (again.alerts, again.damaged) == ({}, 1)
    connection.close()


def test_a_clock_that_is_set_back_does_not_stop_the_alert() -> None:
    host = Host()
    host.pass_by("xx")
    host.engine.clock_was_set(-86400)
    host.now -= 86400
    host.lab = RulesLab()
    host.engine._querier = host.engine._recorder = host.lab
    assert host.pass_by("xx") == "FF"
