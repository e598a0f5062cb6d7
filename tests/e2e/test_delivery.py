"""The whole agent against real stores: what was collected is what is read back."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from collectors.influx_line import Point, parse_influx_lines
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.process import wait_until
from tests.servers.victoriametrics import VictoriaMetrics
from tests.servers.vigilhost import Vigilhost

# The stdout sink prints exactly what the other sink is given: both read the same Ticks.
CONFIG = """
hostname: e2e-{name}
tags: {{zone: "north, east"}}
log: {{level: warning}}
sinks:
  stdout: {{flush_interval: 1s}}
  influxdb: {{{sink}, flush_interval: 1s}}
"""


def emitted(agent: Vigilhost) -> list[Point]:
    """The points the agent printed so far, and the time of its last complete second left out."""
    lines = [line for line in agent.log.splitlines() if re.search(r" \d{19}$", line)]
    points = parse_influx_lines("\n".join(lines).encode()) if lines else []
    newest = max((point.time_ns or 0 for point in points), default=0)
    return [point for point in points if (point.time_ns or 0) < newest - 2 * 10**9]


def numbers(points: Iterable[Point]) -> dict[tuple[str, tuple[tuple[str, str], ...], int], float]:
    return {
        (f"{point.measurement}_{key}", point.tags, (point.time_ns or 0) // 10**6): float(value)
        for point in points
        for key, value in point.fields
        if not isinstance(value, str)
    }


@pytest.mark.server("victoriametrics")
def test_victoriametrics_holds_what_was_collected(victoriametrics: VictoriaMetrics) -> None:
    sink = f'url: "{victoriametrics.url}", org: home, bucket: hosts'
    with Vigilhost(CONFIG.format(name="vm", sink=sink)) as agent:
        sent = wait_until(lambda: len(found := numbers(emitted(agent))) > 2000 and found, "readings", 30)

        def stored() -> dict[tuple[str, tuple[tuple[str, str], ...], int], float]:
            return {
                (series.labels["__name__"], tags_of(series.labels), round(second * 1000)): value
                for series in victoriametrics.export('{host="e2e-vm"}')
                for second, value in zip(series.times, series.values, strict=True)
            }

        def tags_of(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
            # VictoriaMetrics adds the bucket as a label of its own
            return tuple(sorted((k, v) for k, v in labels.items() if k not in ("__name__", "db")))

        wait_until(lambda: sent.keys() <= stored().keys(), "every point in the store", 20)
        found = stored()
        # VictoriaMetrics keeps twelve decimal digits of a number
        assert {key: found[key] for key in sent} == pytest.approx(sent, rel=1e-11)


@pytest.mark.server("influxdb")
def test_influxdb_holds_what_was_collected_with_its_types(influxdb1: InfluxDB1) -> None:
    influxdb1.create_database("e2e")
    sink = f'url: "{influxdb1.url}", version: "1", database: e2e'
    with Vigilhost(CONFIG.format(name="v1", sink=sink)) as agent:
        sent = wait_until(lambda: len(found := emitted(agent)) > 200 and found, "readings", 30)
        wanted = {(point.measurement, point.tags, point.time_ns): dict(point.fields) for point in sent}

        def stored(measurement: str) -> dict[tuple[str, tuple[tuple[str, str], ...], int | None], dict[str, object]]:
            rows = influxdb1.query(f'SELECT * FROM "{measurement}" GROUP BY *', "e2e")
            tags = {point.measurement: {key for key, _ in point.tags} for point in sent}[measurement]
            found = {}
            for row in rows:
                key = (measurement, tuple(sorted((k, row[k]) for k in tags if row.get(k))), row["time"])
                rest = {k: v for k, v in row.items() if k not in tags | {"time", "_measurement"} and v is not None}
                found[key] = rest
            return found

        # Telegraf's timex has a tag and a field `status`; InfluxQL's answer has one column for both.
        for measurement in sorted({point.measurement for point in sent} - {"timex"}):
            mine = {key: fields for key, fields in wanted.items() if key[0] == measurement}
            wait_until(lambda m=measurement, w=mine: w.keys() <= stored(m).keys(), f"{measurement} in the store", 20)
            found = stored(measurement)
            for key, fields in mine.items():
                assert {name: found[key].get(name) for name in fields} == fields

        kinds = {row["fieldKey"]: row["fieldType"] for row in influxdb1.query('SHOW FIELD KEYS FROM "mem"', "e2e")}
        assert kinds["total"] == "integer"
        assert kinds["used_percent"] == "float"
