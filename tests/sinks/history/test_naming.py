"""What a series is called in history."""

from __future__ import annotations

import pytest

from agent.core.labels import labels_of
from agent.core.model import Field, Group, Tag, counter, gauge, tag
from sinks.history.naming import Metric, Names, metrics_of

HOST = {"job": "node", "instance": "web1"}
CASES = [
    (gauge("free", "bytes", "x", influx="free", prom="node_free_bytes"), ("sda",),
     {"__name__": "node_free_bytes", "device": "sda"}, "the Prometheus name and the Prometheus label win"),
    (gauge("free", "bytes", "x", influx="free"), ("sda",),
     {"__name__": "disk-io_free", "device": "sda"}, "without one it is measurement and field"),
    (counter("t", "seconds", "x", prom="node_t_total", labels={"mode": "user"}), ("sda",),
     {"__name__": "node_t_total", "device": "sda", "mode": "user"}, "constant labels are kept"),
    (gauge("9 lives", "count", "x", influx="9 lives"), ("",),
     {"__name__": "disk-io_9 lives"}, "an empty tag is no label; odd characters are replaced"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "tags", "expected", "sentence"), CASES, ids=[case[3] for case in CASES])
def test_names(field: Field, tags: tuple[str, ...], expected: dict[str, str], sentence: str) -> None:
    group = Group("disk-io", [field], [tag("name", prom="device")])
    (named,) = Names("node", "web1").of(group, tags)
    expected = expected | {"__name__": expected["__name__"].replace("-", "_").replace(" ", "_")}
    assert named.labels == labels_of(expected | HOST), sentence


def test_twins_and_texts_are_left_out() -> None:
    group = Group("cpu", [
        gauge("usage", "percent", "x", influx="usage", twin="node_cpu_seconds_total"),
        gauge("state", "text", "x", influx="state"),
        gauge("kept", "value", "x", influx="kept"),
    ])  # fmt: skip
    assert [named.place for named in Names("node", "web1").of(group, ())] == [2]
    assert list(metrics_of(group)) == ["cpu_kept"]


def test_a_tag_called_instance_or_job_is_renamed_as_a_scraper_does() -> None:
    group = Group("pg", [gauge("up", "bool", "x", prom="pg_up")], ["instance", "job"])
    (named,) = Names("node", "web1").of(group, ("db1:5432", "backup"))
    assert named.labels == labels_of(
        {"__name__": "pg_up", "exported_instance": "db1:5432", "exported_job": "backup"} | HOST
    )


def test_a_tag_without_a_prometheus_name_counts_only_for_telegraf_names() -> None:
    fields = [gauge("a", "value", "x", prom="node_a"), gauge("b", "value", "x", influx="b")]
    group = Group("m", fields, [Tag("path", ""), Tag("9.dev", "9.dev")])
    first, second = Names("node", "web1").of(group, ("/", "x"))
    assert first.labels == labels_of({"__name__": "node_a", "_9_dev": "x"} | HOST)
    assert second.labels == labels_of({"__name__": "m_b", "_9_dev": "x", "path": "/"} | HOST)


def test_the_scale_is_that_of_the_prometheus_name() -> None:
    group = Group("d", [
        gauge("a", "milliseconds", "x", influx="a", prom="node_a_seconds", scale=0.001),
        gauge("b", "milliseconds", "x", influx="b", scale=0.001),
    ])  # fmt: skip
    assert [named.scale for named in Names("node", "web1").of(group, ())] == [0.001, 1.0]


def test_metadata_is_that_of_the_family() -> None:
    group = Group("h", [
        counter("b", "count", "Sizes.", prom="size_bucket", family="size"),
        counter("c", "count", "Sizes.", prom="size_count", family="size"),
        gauge("t", "celsius", "Heat.", influx="t"),
    ])  # fmt: skip
    assert metrics_of(group) == {"size": Metric("counter", "Sizes.", ""), "h_t": Metric("gauge", "Heat.", "celsius")}
