"""Dashboards: their JSON against Grafana's published schema, what they ask against what the Groups declare."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli.dashboards_cmd import dashboards, made
from agent.config import Loaded, Settings, load
from agent.dashboards.names import Declared
from agent.dashboards.panels import Influx, Panel, Prom, Row, rows
from agent.dashboards.queries import DIALECTS
from agent.influx.plan import groups_of
from tests.agent.dashboards.grafana_schema import faults

NAMES = sorted(DIALECTS)
NO_FILES = Loaded(Settings(), [], [])


@pytest.fixture(scope="module", params=NAMES)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return made(request.param, NO_FILES)


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def test_grafana_s_schema_knows_every_property_and_value(document: dict[str, Any]) -> None:
    assert faults(document) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("panels", 1, "gridPos", "w"), "12", "'12' is no int"),
        (("panels", 1, "gridpos"), {}, "gridpos: no such property"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "mode"), "relative", "'relative' is none of"),
        (("panels", 8, "options", "legend", "placement"), "left", "'left' is none of"),
        (("templating", "list", 0, "type"), "hosts", "'hosts' is none of"),
        (("time",), "now-6h", ".time: 'now-6h' became"),
    ],
)
def test_the_check_against_the_schema_sees_what_is_wrong(path: tuple[str | int, ...], value: Any, said: str) -> None:
    document: Any = copy.deepcopy(made("prometheus", NO_FILES))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert said in "\n".join(faults(document))


@pytest.mark.parametrize("source", ["vigilhost", "flux"])
def test_every_name_is_declared_by_a_group(source: str) -> None:
    assert Declared(groups_of(Settings())).faults(rows(source)) == []


def test_a_name_that_nobody_declares_is_said() -> None:
    panel = Panel("P", "none", "", (Prom("rate(node_nothing_total[1m])", "x"),),
                  (Influx("mem", "nothing", "x"), Influx("mem", "used", "x", by=("card",))))  # fmt: skip
    assert Declared(groups_of(Settings())).faults([Row("R", (panel,))]) == [
        "P: no collector has the metric node_nothing_total",
        "P: no collector has the field nothing of mem",
        "P: mem has no tag card",
    ]


def test_panels_stand_side_by_side_and_do_not_overlap(document: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    # No holes: each line is full or a row's last.
    widths: dict[int, int] = {}
    for panel in panels(document):
        widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {24}
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_what_the_operator_looks_for_is_there(document: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in document["panels"] if panel["type"] == "row"]
    assert titles == ["Overview", "CPU", "Memory", "Disk", "Disk I/O", "Network", "Pressure", "Alerts", "Backups",
                      "The agent itself"]  # fmt: skip
    assert [each["display"] for each in document["timepicker"]["quick_ranges"]] == [
        "Last 1h", "Last 6h", "Last 24h", "Last 7d"]  # fmt: skip
    assert document["templating"]["list"][-1]["name"] == "host"
    assert all(panel["targets"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
               for panel in panels(document))  # fmt: skip
    assert all("host" in json.dumps(target) for panel in panels(document) for target in panel["targets"])


def lines(document: dict[str, Any], title: str) -> list[tuple[float, str]]:
    (panel,) = (one for one in document["panels"] if one["title"] == title)
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [(step["value"], step["color"]) for step in steps[1:]]


def test_threshold_lines_are_those_of_the_rules(document: dict[str, Any]) -> None:
    assert lines(document, "Space used") == [(90.0, "orange"), (97.0, "red")]
    assert lines(document, "Memory used") == [(92.0, "orange"), (97.0, "red")]
    assert lines(document, "CPU time") == [(95.0, "orange")]
    assert lines(document, "Swap") == []


def test_threshold_lines_follow_the_overrides_of_this_host(tmp_path: Path) -> None:
    file = tmp_path / "vigilhost.yaml"
    file.write_text(
        "alerting: {rules: {overrides: {HostInodesLow: {threshold: 20}, HostDiskFullCritical: {enabled: false}}}}\n"
    )
    document = made("flux", load(str(file)))
    assert lines(document, "Inodes used") == [(80.0, "orange")]
    assert lines(document, "Space used") == [(90.0, "orange")]


def test_the_command_writes_a_file_or_prints(tmp_path: Path) -> None:
    words = ["export", "grafana", "--source", "vigilhost", "--config", "/dev/null"]
    printed = CliRunner().invoke(dashboards, words)
    assert printed.exit_code == 0, printed.output
    assert CliRunner().invoke(dashboards, [*words, "-o", str(tmp_path / "d.json")]).exit_code == 0
    assert (tmp_path / "d.json").read_text() == printed.stdout
    refused = CliRunner().invoke(dashboards, [*words, "-o", str(tmp_path / "no" / "d.json")])
    assert refused.exit_code == 1
    assert "no such file or directory" in refused.stderr
    assert CliRunner().invoke(dashboards, ["export", "grafana"]).exit_code == 2


def test_the_bucket_is_that_of_the_sink(tmp_path: Path) -> None:
    file = tmp_path / "vigilhost.yaml"
    file.write_text("sinks: {influxdb: {url: 'http://127.0.0.1:8086', bucket: acme}}\n")
    (bucket,) = [one for one in made("flux", load(str(file)))["templating"]["list"] if one["name"] == "bucket"]
    assert bucket["query"] == "acme,acme_5m,acme_1h,acme_1d"
