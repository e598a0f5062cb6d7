"""The calls of Grafana's Prometheus data source, answered by us and by a real Prometheus with the same samples.

Prometheus gets them as blocks made of our own OpenMetrics export, so the export is proved as well.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from sinks.history.history import History
from tests.agent.http.asking import END_S, START_S, client_of
from tests.servers.http_call import call
from tests.servers.programs import need, program
from tests.servers.prometheus import Prometheus


class Filled(Prometheus):
    """A Prometheus that has blocks made from an OpenMetrics text when it starts."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.text = text

    def prepare(self) -> None:
        super().prepare()
        source = self.data_dir / "samples.om"
        source.write_bytes(self.text)
        argv = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", source, self.data_dir / "store"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def real(history: History) -> Iterator[Prometheus]:
    need("prometheus", "promtool")
    asked = {"format": "openmetrics", "start": START_S, "end": END_S}
    answer = asyncio.run(client_of(history).get("/api/v1/metrics/export", asked))
    with Filled(answer.body) as server:
        yield server


# Seven seconds beside the samples: ranges are open on the left here as in Prometheus 3, in 2.42 they are closed.
WINDOW = {"start": str(END_S - 3593), "end": str(END_S - 8)}
RANGE = {**WINDOW, "step": "15"}

# method, path, parameters: recorded from Grafana's data source (connection test, explorer, variables, panels)
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "query", {"query": "1+1", "time": "4"}),
    ("POST", "labels", WINDOW),
    ("POST", "labels", {**WINDOW, "match[]": "node_load1"}),
    ("GET", "labels", {**WINDOW, "match[]": ['node_odd{kind="small"}', "node_load1"]}),
    ("GET", "label/__name__/values", WINDOW),
    ("GET", "label/__name__/values", {}),
    ("GET", "label/device/values", {**WINDOW, "match[]": "node_disk_reads_completed_total"}),
    ("GET", "label/nothing/values", WINDOW),
    ("POST", "series", {**WINDOW, "match[]": '{__name__=~"node_(load1|gap)"}'}),
    ("GET", "series", {**WINDOW, "match[]": ["node_odd", 'node_disk_reads_completed_total{device!="sda"}']}),
    ("GET", "series", {"start": str(START_S - 864000), "end": str(START_S - 432000), "match[]": "node_odd"}),
    ("GET", "rules", {}),
    ("GET", "alerts", {}),
    ("GET", "query_exemplars", {"query": "node_load1", **WINDOW}),
    ("POST", "query_range", {"query": "node_load1", **RANGE}),
    ("POST", "query_range", {"query": "rate(node_disk_reads_completed_total[1m])", **RANGE}),
    ("POST", "query_range", {"query": "sum by (device) (increase(node_disk_reads_completed_total[5m]))", **RANGE}),
    ("POST", "query_range", {"query": "last_over_time(node_gap[1m])", **RANGE, "step": "60"}),
    ("POST", "query_range", {"query": "node_odd", **RANGE, "step": "1m"}),
    ("POST", "query_range", {"query": "avg_over_time(node_load1[10m]) > 1", **RANGE}),
    ("POST", "query_range", {"query": "42", **RANGE, "step": "300"}),
    ("POST", "query_range", {"query": "absent(nothing)", **RANGE, "step": "600"}),
    ("POST", "query", {"query": "node_odd", "time": str(END_S)}),
    ("POST", "query", {"query": "node_load1[1m]", "time": f"{END_S}.5"}),
    ("POST", "query", {"query": "topk(2, node_disk_reads_completed_total)", "time": str(END_S)}),
    ("POST", "query", {"query": "count(node_odd) by (kind)", "time": "2023-11-15T00:43:05Z"}),
    ("POST", "query", {"query": '"text"', "time": str(END_S)}),
    ("POST", "query", {"query": "-1e-9", "time": str(END_S)}),
    ("POST", "query", {"query": "vector(1) / 0", "time": str(END_S)}),
    ("POST", "query", {"query": "vector(-1e-9) * 3", "time": str(END_S)}),
    ("POST", "query", {"query": "nothing", "time": str(END_S)}),
    ("POST", "query", {"query": 'label_replace(node_load1, "new", "$1", "job", "(.*)")', "time": str(END_S)}),
]  # fmt: skip

# What goes wrong, where the words may differ but status and type may not.
WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "query", {"query": "sum("}),
    ("POST", "query", {}),
    ("POST", "query", {"query": "node_odd", "time": "yesterday"}),
    ("POST", "query", {"query": "1", "timeout": "soon"}),
    ("POST", "query", {"query": "1", "timeout": "-1s"}),
    ("POST", "query", {"query": "node_odd + on(job) node_odd", "time": str(END_S)}),
    ("POST", "query_range", {"query": "node_load1[5m]", **RANGE}),
    ("POST", "query_range", {"query": "node_load1", **WINDOW}),
    ("POST", "query_range", {"query": "node_load1", **WINDOW, "step": "0"}),
    ("POST", "query_range", {"query": "node_load1", **WINDOW, "step": "0.1"}),
    ("POST", "query_range", {"query": "node_load1", "start": WINDOW["end"], "end": WINDOW["start"], "step": "1"}),
    ("GET", "series", {}),
    ("GET", "series", {"match[]": "{}"}),
    ("GET", "series", {"match[]": "node_load1", "start": "x"}),
    ("GET", "label/a-b/values", {}),
    ("GET", "metadata", {"limit": "x"}),
    ("GET", "rules", {"type": "x"}),
    ("POST", "label/job/values", {}),
    ("PUT", "query", {"query": "1"}),
    ("GET", "nothing", {}),
]


def ask_real(real: Prometheus, method: str, path: str, params: dict[str, Any]) -> tuple[int, Any]:
    encoded = urlencode(params, doseq=True)
    url = f"{real.url}/api/v1/{path}"
    if method == "POST":
        answer = call(url, method, encoded, {"Content-Type": "application/x-www-form-urlencoded"})
    else:
        answer = call(f"{url}?{encoded}", method)
    is_json = answer.headers["content-type"].startswith("application/json")
    return answer.status, answer.json() if is_json else None


def ask_ours(history: History, method: str, path: str, params: dict[str, Any]) -> tuple[int, Any]:
    client = client_of(history)
    if method == "POST":
        answer = asyncio.run(client.post(f"/api/v1/{path}", params))
    else:
        answer = asyncio.run(client.call(method, f"/api/v1/{path}", params))
    return answer.status, answer.json()


def alike(ours: Any, theirs: Any, path: str = "") -> None:
    """The same fields, kinds and texts; numbers written as texts within rounding."""
    assert type(ours) is type(theirs) or {type(ours), type(theirs)} == {int, float}, path
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            alike(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), f"{path}: {ours[:3]} {theirs[:3]}"
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            alike(one, other, f"{path}[{at}]")
    elif ours != theirs:
        assert isinstance(ours, str), path
        assert math.isclose(float(ours), float(theirs), rel_tol=1e-12), path


def _order(data: dict[str, Any]) -> None:
    """Series in order of their labels: only some functions promise another."""
    if data["resultType"] in {"vector", "matrix"}:
        data["result"].sort(key=lambda one: sorted(one["metric"].items()))


@pytest.mark.parametrize(("method", "path", "params"), CALLS)
def test_grafana_gets_what_prometheus_would_say(
    history: History, real: Prometheus, method: str, path: str, params: dict[str, Any]
) -> None:
    status, theirs = ask_real(real, method, path, params)
    assert status == 200
    status, ours = ask_ours(history, method, path, params)
    assert status == 200
    ours.pop("infos", None)  # younger than 2.42
    for answer in (ours, theirs):
        is_sorted = "topk" in params.get("query", "")
        if not is_sorted and path.startswith("query") and answer["data"]:
            _order(answer["data"])
    alike(ours, theirs)


@pytest.mark.parametrize(("method", "path", "params"), WRONG)
def test_what_prometheus_refuses_is_refused_in_the_same_way(
    history: History, real: Prometheus, method: str, path: str, params: dict[str, Any]
) -> None:
    status, theirs = ask_real(real, method, path, params)
    found, ours = ask_ours(history, method, path, params)
    assert 400 <= status < 600
    assert found == status
    if theirs is not None:
        assert (ours["status"], ours["errorType"]) == (theirs["status"], theirs["errorType"])


def test_metadata_and_build_information_have_the_form_grafana_reads(history: History, real: Prometheus) -> None:
    _, ours = ask_ours(history, "GET", "metadata", {"limit_per_metric": "1"})
    for entries in ours["data"].values():
        assert [entry.keys() for entry in entries] == [{"type", "help", "unit"}]
    _, theirs = ask_real(real, "GET", "status/buildinfo", {})
    _, ours = ask_ours(history, "GET", "status/buildinfo", {})
    assert ours["data"].keys() == theirs["data"].keys()
    assert ours["data"]["version"].split(".")[:2] == theirs["data"]["version"].split(".")[:2]


def test_the_export_loses_no_sample_on_its_way_into_prometheus(history: History, real: Prometheus) -> None:
    asked = {"query": '{job="node"}[3h]', "time": str(END_S)}
    answers = []
    for found in (ask_ours(history, "POST", "query", asked), ask_real(real, "POST", "query", asked)):
        answers.append(sorted(found[1]["data"]["result"], key=lambda one: sorted(one["metric"].items())))
    assert sum(len(one["values"]) for one in answers[0]) > 4500
    alike(*answers)
