"""The rules of others on the agent's own series, through collectors, history and the engine.

The rules stand in COMMUNITY_RULES_DIR; without it these tests say that they are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.config.tables import COLLECTORS
from agent.core.clock import NS, FakeClock
from agent.core.errors import SourceError
from agent.core.labels import labels_of
from agent.core.model import Reading, Tick
from agent.known_series import KnownSeries
from agent.promql_language import PromQL
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.rule_check import Missing, missing_series
from alerting.rule_files import RuleSet, read_rule_files
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from tests.collectors.every import FIRST_SLOT_S, LATER_S, run_twice
from tests.collectors.hosts import HostTree
from tests.servers.node_exporter import NodeExporter
from tests.servers.programs import need

pytestmark = pytest.mark.skipif(
    "COMMUNITY_RULES_DIR" not in os.environ, reason="COMMUNITY_RULES_DIR names no folder of rules"
)
ROOT = Path(os.environ.get("COMMUNITY_RULES_DIR", ""))

# Metrics that the rules ask for and the fullest of the fixture hosts does not have.
ABSENT_ON_BIG = {
    "node_systemd_unit_state": "systemd is asked over its bus, which is no part of a fixture",
    "node_systemd_service_restart_total": "as node_systemd_unit_state",
    "node_textfile_scrape_error": "the fixture has no directory of text files",
}


def host_rules() -> RuleSet:
    files = [*sorted(ROOT.glob("host-and-hardware/*.yml")), *sorted(ROOT.glob("node-mixin/*.yml"))]
    found = read_rule_files(map(str, files), PromQL())
    assert len(list(found.rules())) > 60
    return found


@contextmanager
def history(directory: Path) -> Iterator[History]:
    opened = History(HistoryOptions(), str(directory / "history"), FakeClock(FIRST_SLOT_S), "host")
    try:
        yield opened
    finally:
        opened.close()


def missing(found: RuleSet, remembered: History) -> list[Missing]:
    return missing_series(found.groups, KnownSeries(remembered, 0, 2**53))


def evaluate(found: RuleSet, remembered: History, at: float) -> dict[str, str]:
    """Evaluate every group twice, so that the second sees what the first recorded; the errors by rule."""
    engine = Engine(remembered.querier(), remembered, NothingKnown())
    engine.load(found.groups, at)
    for moment in (at, at + 15):
        for key in engine.groups:
            engine.evaluate(key, moment)
    states = [state for group in engine.groups.values() for state in group.rules]
    assert all(state.health.state != "unknown" for state in states)
    return {state.rule.name: state.health.error for state in states if state.health.error}


@pytest.mark.parametrize("name", ["small", "big", "container"])
def test_every_host_rule_evaluates(name: str, tmp_path: Path) -> None:
    found = host_rules()
    with history(tmp_path) as remembered:
        for one in run_twice(HostTree(name, tmp_path)):
            for tick in one.ticks:
                remembered.append(tick)
        assert evaluate(found, remembered, FIRST_SLOT_S + LATER_S) == {}
        if name == "big":
            assert {one.because for one in missing(found, remembered)} == {
                f"there is no {metric} on this host" for metric in ABSENT_ON_BIG
            }


def _load_exporter(remembered: History, text: str) -> None:
    samples = {
        labels_of({"__name__": sample.name, "job": "node", "instance": "host", **sample.labels}): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    remembered.record("node_exporter", FIRST_SLOT_S * 1000, {**samples, labels_of(UP): 1.0})


UP = {"__name__": "up", "job": "node", "instance": "host"}


def _here() -> Iterable[Tick]:
    """What this machine's default collectors say now."""
    for name in COLLECTORS.on_by_default:
        collector = COLLECTORS.find(name)()
        try:
            for seconds in (0, 1):
                readings = [item for item in collector.collect() if isinstance(item, Reading)]
                yield Tick((FIRST_SLOT_S + seconds) * NS, name, readings)
        except SourceError:
            continue  # this machine has nothing of the kind
        finally:
            getattr(collector, "close", lambda: None)()


def test_nothing_is_missing_that_the_exporter_has(tmp_path: Path) -> None:
    need("node_exporter")
    found = host_rules()
    with NodeExporter(["--collector.processes", "--collector.systemd"]) as exporter:
        text = exporter.metrics()
    with history(tmp_path / "theirs") as theirs, history(tmp_path / "ours") as ours:
        _load_exporter(theirs, text)
        for tick in _here():
            ours.append(tick)
        absent_there = {one.selector for one in missing(found, theirs)}
        assert [str(one) for one in missing(found, ours) if one.selector not in absent_there] == []
        assert evaluate(found, ours, FIRST_SLOT_S + 1) == {}
