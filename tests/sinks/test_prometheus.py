from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.core.model import Group, Reading, Tick, counter, gauge, histogram_part, tag, untyped
from sinks.prometheus import Exposition

NOW = 1_700_000_000_000_000_000
CPU = Group("cpu", (
    counter("user", "seconds", "CPU time.", prom="node_cpu_seconds_total", labels={"mode": "user"}),
    counter("idle", "seconds", "CPU time.", prom="node_cpu_seconds_total", labels={"mode": "idle"}),
), ("cpu",))  # fmt: skip
DISK = Group("diskio", (
    counter("time", "milliseconds", "Time spent.", influx="io_time", prom="io_time_seconds_total", scale=0.001),
    gauge("ro", "bool", "Read only.", prom="readonly", type=bool),
    gauge("name", "text", "A text has no place here.", influx="name"),
), (tag("name", prom="device"),))  # fmt: skip
VM = Group("vm", (untyped("pgfault", "count", 'Says "hi" \\ and\nmore.', prom="node_vmstat_pgfault"),))


def shown(*readings: Reading, exposition: Exposition | None = None) -> str:
    return (exposition or Exposition()).render([Tick(NOW, "test", list(readings))])


def test_the_whole_text() -> None:
    text = shown(DISK.read("sda", time=1500, ro=False, name="x"), CPU.read("0", user=1.5, idle=2), VM.read(pgfault=7))
    assert text == (
        "# HELP io_time_seconds_total Time spent.\n"
        "# TYPE io_time_seconds_total counter\n"
        'io_time_seconds_total{device="sda"} 1.5\n'
        "# HELP node_cpu_seconds_total CPU time.\n"
        "# TYPE node_cpu_seconds_total counter\n"
        'node_cpu_seconds_total{cpu="0",mode="user"} 1.5\n'
        'node_cpu_seconds_total{cpu="0",mode="idle"} 2\n'
        '# HELP node_vmstat_pgfault Says "hi" \\\\ and\\nmore.\n'
        "# TYPE node_vmstat_pgfault untyped\n"
        "node_vmstat_pgfault 7\n"
        "# HELP readonly Read only.\n"
        "# TYPE readonly gauge\n"
        'readonly{device="sda"} 0\n'
    )


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (1e300, "1e+300")]
)
def test_odd_values_as_prometheus_spells_them(value: float, text: str) -> None:
    assert f'node_cpu_seconds_total{{cpu="0",mode="user"}} {text}\n' in shown(CPU.read("0", user=value, idle=1))


def test_a_label_value_is_escaped() -> None:
    assert 'readonly{device="a\\"b\\\\c\\nd%s"} 1' in shown(DISK.read('a"b\\c\nd%s', ro=True))


def test_a_series_that_comes_goes_or_loses_a_field_is_followed() -> None:
    exposition = Exposition()
    pictures = [
        ([DISK.read("sda", time=1000)], ['io_time_seconds_total{device="sda"} 1.0']),
        ([DISK.read("sda", time=2000)], ['io_time_seconds_total{device="sda"} 2.0']),
        ([DISK.read("sda", time=2000), DISK.read("sdb", time=1)], ["sda", "sdb"]),
        ([DISK.read("sdb", time=1)], ["sdb"]),
        ([DISK.read("sdb", ro=True)], ["readonly"]),
        ([DISK.read("sdb", ro=True, time=5)], ["readonly", "io_time"]),
        ([], []),
    ]
    for readings, expected in pictures:
        text = shown(*readings, exposition=exposition)
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(lines) == len(expected)
        assert all(part in text for part in expected)


def test_a_label_set_emitted_twice_is_one_sample_with_the_last_value() -> None:
    exposition = Exposition()
    text = shown(DISK.read("sda", time=1000), DISK.read("sda", time=3000), exposition=exposition)
    assert text.count("io_time_seconds_total{") == 1
    assert 'io_time_seconds_total{device="sda"} 3.0' in text
    assert exposition.duplicates == 1


def test_a_name_prometheus_cannot_hold_is_left_out() -> None:
    bad = Group("bad", (gauge("x", "value", "", prom="a-b"), gauge("y", "value", "", prom="fine")), ("la-bel",))
    lines = [line for line in shown(bad.read("v", x=1, y=2)).splitlines() if not line.startswith("#")]
    assert lines == ["fine 2"]


def test_openmetrics_names_counters_without_total_and_ends_with_eof() -> None:
    odd = Group("odd", (counter("n", "count", 'Odd "name".', prom="odd_count"),))
    ticks = [Tick(NOW, "test", [CPU.read("0", user=1, idle=2), VM.read(pgfault=7), odd.read(n=1)])]
    text = Exposition().render(ticks, "openmetrics")
    families = {family.name: family.type for family in parse_openmetrics(text)}
    assert families == {"node_cpu_seconds": "counter", "node_vmstat_pgfault": "unknown", "odd_count": "unknown"}
    assert text.endswith("# EOF\n")


def test_a_histogram_stays_one_family() -> None:
    parts = [
        Group("d", (histogram_part("value", "value", "Durations.", prom="d_bucket", family="d"),), ("le",)),
        Group("d", (histogram_part("value", "value", "Durations.", prom="d_sum", family="d"),)),
        Group("d", (histogram_part("value", "value", "Durations.", prom="d_count", family="d"),)),
    ]
    readings = [
        parts[0].read("1", value=2),
        parts[0].read("+Inf", value=3),
        parts[1].read(value=4.5),
        parts[2].read(value=3),
    ]
    for parse, dialect in ((parse_text, "text"), (parse_openmetrics, "openmetrics")):
        text = Exposition().render([Tick(NOW, "test", readings)], dialect)
        (family,) = parse(text)
        assert (family.name, family.type, len(family.samples)) == ("d", "histogram", 4)


LABELS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
VALUES = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70)


@given(st.dictionaries(LABELS, st.tuples(VALUES, VALUES), min_size=1, max_size=6))
def test_what_is_shown_is_what_prometheus_client_reads(rows: dict[str, tuple[float, float]]) -> None:
    text = shown(*(CPU.read(cpu, user=user, idle=idle) for cpu, (user, idle) in rows.items()))
    found = {
        (sample.labels["cpu"], sample.labels["mode"]): float(sample.value)
        for family in parse_text(text)
        for sample in family.samples
    }
    expected = {
        (cpu, mode): float(value)
        for cpu, pair in rows.items()
        for mode, value in zip(("user", "idle"), pair, strict=True)
    }
    assert found == expected
