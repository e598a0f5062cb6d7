from __future__ import annotations

import pytest

from agent.core.model import Tag
from collectors.prom_text import parse_prom_text
from collectors.samples import SampleGroups, go_float
from tests.collectors.hosts import readings


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.5, "0.5"), (10, "10"), (125000, "125000"), (1e6, "1e+06"), (2.5e-05, "2.5e-05"), (0.0001, "0.0001"),
        (float("inf"), "+Inf"), (float("-inf"), "-Inf"), (float("nan"), "NaN"), (0, "0"), (-2.5, "-2.5"),
        (123456789, "1.23456789e+08"), (0.99, "0.99"), (0.1 + 0.2, "0.30000000000000004"),
    ],
)  # fmt: skip
def test_bucket_bounds_are_written_as_go_writes_them(number: float, text: str) -> None:
    assert go_float(number) == text


def test_each_type_has_telegrafs_field() -> None:
    families = parse_prom_text(b"# TYPE c counter\nc 1\n# TYPE g gauge\ng 2\nu 3\n")
    found = SampleGroups().readings(families)
    assert [(r.group.measurement, r.group.fields[0].influx, r.group.fields[0].kind, r.values) for r in found] == [
        ("c", "counter", "counter", (1.0,)),
        ("g", "gauge", "gauge", (2.0,)),
        ("u", "value", "untyped", (3.0,)),
    ]
    assert [r.group.fields[0].prom for r in found] == ["c", "g", "u"]


def test_a_histogram_is_one_point_for_telegraf_and_its_series_for_prometheus() -> None:
    # Telegraf's own test case, metric_version = 1.
    families = parse_prom_text(
        b"# TYPE lat histogram\n"
        b'lat_bucket{verb="POST",le="125000"} 1994\nlat_bucket{verb="POST",le="1e+06"} 2005\n'
        b'lat_bucket{verb="POST",le="+Inf"} 2025\nlat_sum{verb="POST"} 1.02726334e+08\nlat_count{verb="POST"} 2025\n'
    )
    found = SampleGroups().readings(families)
    points = [r for r in found if r.group.in_influx]
    series = [r for r in found if r.group.in_prom]
    assert [(r.group.measurement, r.tags, r.as_dict()) for r in points] == [
        ("lat", ("POST",), {"125000": 1994, "1e+06": 2005, "+Inf": 2025, "sum": 102726334, "count": 2025})
    ]
    assert [(r.group.fields[0].prom, r.group.fields[0].kind, r.tags, r.values) for r in series] == [
        ("lat_bucket", "histogram", ("125000", "POST"), (1994,)),
        ("lat_bucket", "histogram", ("1e+06", "POST"), (2005,)),
        ("lat_bucket", "histogram", ("+Inf", "POST"), (2025,)),
        ("lat_sum", "histogram", ("POST",), (102726334,)),
        ("lat_count", "histogram", ("POST",), (2025,)),
    ]


def test_a_summary_stays_one_family_and_gives_telegrafs_fields() -> None:
    families = parse_prom_text(b'# TYPE s summary\ns{quantile="0.5"} 1\ns{quantile="0.99"} 7\ns_sum 9\ns_count 3\n')
    found = SampleGroups().readings(families)
    assert [r.as_dict() for r in found if r.group.in_influx] == [{"0.5": 1, "0.99": 7, "sum": 9, "count": 3}]
    parts = {
        r.group.fields[0].prom: (r.group.fields[0].kind, r.group.fields[0].family) for r in found if r.group.in_prom
    }
    assert parts == {"s": ("summary", "s"), "s_sum": ("summary", "s"), "s_count": ("summary", "s")}


def test_the_same_series_keeps_its_group_whatever_the_order_of_its_labels() -> None:
    groups = SampleGroups()
    (first,) = groups.readings(parse_prom_text(b'a{x="1",y="2"} 1\n'))
    (again,) = groups.readings(parse_prom_text(b'a{y="2",x="1"} 5\n'))
    assert again.group is first.group
    assert again.tags == first.tags


def test_of_two_lines_for_one_series_the_last_counts() -> None:
    assert readings(SampleGroups().readings(parse_prom_text(b'a{x="1"} 1\na{x="1"} 2\n'))) == [
        ("a", ("1",), {"value": 2})
    ]


def test_a_label_that_is_taken_is_exported_under_another_name() -> None:
    groups = SampleGroups((Tag("url", "target"),), ("job",))
    (found,) = groups.readings(parse_prom_text(b'a{job="x",target="y",url="z"} 1\n'), ("http://h/metrics",))
    assert [tag.prom for tag in found.group.tags] == ["target", "exported_job", "exported_target", "url"]
    assert [tag.influx for tag in found.group.tags] == ["url", "job", "target", ""]
    assert found.tags == ("http://h/metrics", "x", "y", "z")


def test_groups_that_are_not_used_any_more_are_forgotten() -> None:
    groups = SampleGroups()
    (kept,) = groups.readings(parse_prom_text(b"kept 1\n"))
    for at in range(1000):
        groups.readings(parse_prom_text(b"kept 1\nm%d 1\n" % at))
        groups.forget_unused()
    assert len(groups._groups) < 400
    (still,) = groups.readings(parse_prom_text(b"kept 2\n"))
    assert still.group is kept.group
