from __future__ import annotations

import asyncio
import csv
import io
import json
import math
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from agent.core.labels import Matcher, labels_of
from agent.http.export import extent, stretches
from agent.http.export_formats import FORMATS, Writer
from collectors.influx_line import parse_influx_lines
from sinks.history.history import History
from sinks.history.naming import Metric
from tests.agent.http.asking import END_S, POINTS, START_S, Client, client_of, series

LOAD = labels_of({"__name__": "node_load1", "job": "node"})
HOSTILE = labels_of({"__name__": "reads_total", "name": 'a "b", c=\\\n'})
FACTS = {"node_load1": Metric("gauge", 'Load "1".', "load"), "reads_total": Metric("counter", "Reads.", "")}


def written(form: str) -> str:
    writer: Writer = FORMATS[form].writer(FACTS)
    return (
        writer.head([LOAD, HOSTILE])
        + writer.part(LOAD, ([1_000, 2_500], [0.5, math.nan]))
        + writer.part(LOAD, ([4_000], [math.inf]))
        + writer.part(HOSTILE, ([1_000], [7.0]))
        + writer.tail()
    )


def test_csv_has_a_column_for_each_label_and_is_read_back_whatever_a_label_holds() -> None:
    rows = list(csv.reader(io.StringIO(written("csv"), newline="")))
    assert rows == [
        ["time", "metric", "job", "name", "value"],
        ["1970-01-01T00:00:01Z", "node_load1", "node", "", "0.5"],
        ["1970-01-01T00:00:02.500Z", "node_load1", "node", "", "NaN"],
        ["1970-01-01T00:00:04Z", "node_load1", "node", "", "+Inf"],
        ["1970-01-01T00:00:01Z", "reads_total", "", 'a "b", c=\\\n', "7"],
    ]


def test_json_is_one_matrix_with_each_series_once() -> None:
    assert json.loads(written("json"))["data"]["result"] == [
        {"metric": dict(LOAD), "values": [[1, "0.5"], [2.5, "NaN"], [4, "+Inf"]]},
        {"metric": dict(HOSTILE), "values": [[1, "7"]]},
    ]
    writer = FORMATS["json"].writer({})
    assert json.loads(writer.head([]) + writer.tail())["data"]["result"] == []


def test_json_lines_are_stretches_of_one_series_each() -> None:
    assert [json.loads(line) for line in written("jsonl").splitlines()] == [
        {"metric": dict(LOAD), "values": [0.5, None], "timestamps": [1000, 2500]},
        {"metric": dict(LOAD), "values": ["Infinity"], "timestamps": [4000]},
        {"metric": dict(HOSTILE), "values": [7], "timestamps": [1000]},
    ]


def test_openmetrics_is_what_the_reference_parser_reads() -> None:
    text = written("openmetrics")
    families = {family.name: family for family in parse_openmetrics(text)}
    assert (families["node_load1"].type, families["reads"].type) == ("gauge", "counter")
    assert families["node_load1"].documentation == 'Load "1".'
    (read,) = families["reads"].samples
    assert (read.labels["name"], read.value, float(read.timestamp)) == ('a "b", c=\\\n', 7, 1)
    assert [float(sample.timestamp) for sample in families["node_load1"].samples] == [1, 2.5, 4]


def test_line_protocol_leaves_out_what_it_cannot_say() -> None:
    found = list(parse_influx_lines(written("line-protocol").encode(), 100))
    assert written("line-protocol").splitlines()[0] == "node_load1,job=node value=0.5 1000000000"
    assert len(found) == 2


async def exported(client: Client, **params: Any) -> str:
    answer = await client.get("/api/v1/metrics/export", params)
    assert answer.status == 200, answer.text
    return answer.text


@pytest.mark.parametrize("form", FORMATS)
async def test_an_export_holds_every_sample_once(client: Client, form: str) -> None:
    text = await exported(client, metric="node_disk_reads_completed_total", device="sda", start=0, format=form)
    wanted = [str(7 * at) for at in range(POINTS)]
    if form in {"json", "jsonl"}:
        found = [value for line in text.splitlines() for value in _values(json.loads(line))]
        assert found == wanted
    else:
        separator, place = {"csv": (",", -1), "openmetrics": (" ", -2), "line-protocol": (" ", -2)}[form]
        lines = [line for line in text.splitlines() if "node_disk" in line and not line.startswith("#")]
        assert [line.split(separator)[place].removeprefix("value=") for line in lines] == wanted


def _values(found: dict[str, Any]) -> list[str]:
    if "data" in found:
        return [value for one in found["data"]["result"] for _, value in one["values"]]
    return [str(value) for value in found["values"]]


async def test_an_export_takes_all_series_or_those_selected_and_says_how_many(client: Client) -> None:
    everything = await client.get("/api/v1/metrics/export", {"start": START_S})
    assert everything.headers["x-series"] == "9"
    assert everything.headers["content-disposition"] == 'attachment; filename="vigilhost.jsonl"'
    some = await exported(client, **{"match[]": ["node_gap", '{kind="small"}'], "start": START_S})
    assert {json.loads(line)["metric"]["__name__"] for line in some.splitlines()} == {"node_gap", "node_odd"}


async def test_an_export_of_nothing_is_empty_but_whole(client: Client) -> None:
    assert await exported(client, metric="nothing", format="openmetrics") == "# EOF\n"


def test_the_ends_of_an_export_are_those_of_what_is_kept(history: History) -> None:
    wanted = [(Matcher("__name__", "=", "node_load1"),)]
    low, high = extent(history, wanted, -(10**16), 10**16)
    assert low <= START_S * 1000
    assert high >= END_S * 1000
    assert high - low < 10 * 86_400_000
    assert extent(history, [(Matcher("__name__", "=", "nothing"),)], 0, 10**16) == (0, 0)


def test_a_series_is_read_a_stretch_at_a_time(history: History) -> None:
    times: list[int] = []
    for labels, (at, values) in stretches(history, [series("node_gap")], START_S * 1000, END_S * 1000):
        assert labels == series("node_gap")
        assert len(at) == len(values) <= 2000
        times += at
    assert times == sorted(set(times))
    assert len(times) == 360


async def test_an_export_stops_when_nobody_reads_it_any_more(history: History) -> None:
    client = client_of(history)
    whole = await exported(client, start=START_S)
    client.gone.set()
    answer = await client.get("/api/v1/metrics/export", {"start": START_S})
    assert len(answer.body) < len(whole)


async def test_the_head_of_an_export_is_told_without_reading_samples(client: Client) -> None:
    answer = await client.call("HEAD", "/api/v1/metrics/export", {"start": START_S})
    assert (answer.status, answer.headers["x-series"], answer.body) == (200, "9", b"")


async def test_two_exports_share_the_desk(client: Client) -> None:
    first, second = await asyncio.gather(exported(client, start=START_S), exported(client, start=START_S))
    assert first == second
