"""Panels as a data source of Grafana's is asked: PromQL, InfluxQL, Flux."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from agent.dashboards.panels import Influx, Panel
from agent.influx.flux import quoted

_LEGEND = re.compile(r"\{(\w+)\}")


class Dialect(Protocol):
    """One kind of data source. `plugin`: Grafana's name of it."""

    plugin: str

    def targets(self, panel: Panel) -> list[dict[str, Any]]:
        """What a panel asks, without refId and data source."""
        ...

    def name_of(self, legend: str) -> str | None:
        """The series' name as an override of the field's, None where the query itself can say it."""
        ...

    def hosts(self) -> str | dict[str, Any]:
        """The query of the variable that lists the hosts."""
        ...


class PromQLDialect:
    """Prometheus, and the agent itself."""

    plugin = "prometheus"

    def targets(self, panel: Panel) -> list[dict[str, Any]]:
        is_instant = panel.kind == "table"
        found = []
        for query in panel.prom:
            target: dict[str, Any] = {"expr": query.expr, "legendFormat": _LEGEND.sub(r"{{\1}}", query.legend),
                                      "instant": is_instant, "range": not is_instant, "editorMode": "code"}  # fmt: skip
            found.append(target | ({"format": "table"} if is_instant else {"format": "time_series"}))
        return found

    def name_of(self, legend: str) -> str | None:  # noqa: ARG002
        return None

    def hosts(self) -> str | dict[str, Any]:
        query = "label_values(node_load1, instance)"
        return {"query": query, "refId": "host", "qryType": 1}


class InfluxQLDialect:
    """InfluxDB 1, and 3 and 2 where a database is mapped to the bucket."""

    plugin = "influxdb"

    def targets(self, panel: Panel) -> list[dict[str, Any]]:
        return [
            {"query": influxql(one), "rawQuery": True, "resultFormat": "time_series",
             "alias": _LEGEND.sub(r"$tag_\1", one.legend)}
            for one in panel.influx
        ]  # fmt: skip

    def name_of(self, legend: str) -> str | None:  # noqa: ARG002
        return None

    def hosts(self) -> str | dict[str, Any]:
        return 'SHOW TAG VALUES FROM "system" WITH KEY = "host"'


class FluxDialect:
    """InfluxDB 2."""

    plugin = "influxdb"

    def targets(self, panel: Panel) -> list[dict[str, Any]]:
        return [{"query": flux(one)} for one in panel.influx]

    def name_of(self, legend: str) -> str | None:
        return _LEGEND.sub(r"${__field.labels.\1}", legend)

    def hosts(self) -> str | dict[str, Any]:
        query = (
            'import "influxdata/influxdb/schema"\n'
            'schema.measurementTagValues(bucket: "${bucket}", measurement: "system", tag: "host")'
        )
        return {"query": query, "refId": "host"}


DIALECTS: Mapping[str, Dialect] = {
    "prometheus": PromQLDialect(),
    "vigilhost": PromQLDialect(),
    "influxql": InfluxQLDialect(),
    "flux": FluxDialect(),
}


def influxql(asked: Influx) -> str:
    """One statement, with Grafana's variables in it."""
    function = "last" if asked.how == "rate" else asked.how
    value = f'{function}("{asked.field}")'
    if asked.how == "rate":
        value = f"non_negative_derivative({value}, 1s)"
    value = _scaled(value, asked)
    matches = " AND ".join(f'"{tag}" =~ /{pattern}/' for tag, pattern in asked.where.items())
    where = f'"host" =~ /^$host$/{f" AND {matches}" if matches else ""} AND $timeFilter'
    by = ", ".join(("time($__interval)", *(f'"{tag}"' for tag in asked.by)))
    # Names and patterns are our own, from the table of panels.
    return f'SELECT {value} FROM "{asked.measurement}" WHERE {where} GROUP BY {by} fill(null)'  # noqa: S608


def _scaled(value: str, asked: Influx) -> str:
    if asked.scale != 1.0:
        value = f"{value} * {asked.scale:g}"
    return f"{asked.offset:g} + {value}" if asked.offset else value


def flux(asked: Influx) -> str:
    """One script, with Grafana's variables in it."""
    matches = "".join(f" and r.{tag} =~ /{pattern}/" for tag, pattern in asked.where.items())
    what = f"r._measurement == {quoted(asked.measurement)} and r._field == {quoted(asked.field)}"
    columns = ", ".join(map(quoted, asked.by))
    lines = [
        'from(bucket: "${bucket}")',
        "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)",
        f'  |> filter(fn: (r) => {what} and r.host == "${{host}}"{matches})',
        f"  |> group(columns: [{columns}])",
    ]
    if asked.how == "rate":
        lines.append("  |> derivative(unit: 1s, nonNegative: true)")
    function = {"rate": "mean"}.get(asked.how, asked.how)
    lines.append(f"  |> aggregateWindow(every: v.windowPeriod, fn: {function}, createEmpty: false)")
    if asked.scale != 1.0 or asked.offset:
        lines.append(f"  |> map(fn: (r) => ({{r with _value: {_float(asked.scale)} * float(v: r._value) + "
                     f"{_float(asked.offset)}}}))")  # fmt: skip
    keep = ", ".join(map(quoted, ("_time", "_value", *asked.by)))
    return "\n".join([*lines, f"  |> keep(columns: [{keep}])"])


def _float(number: float) -> str:
    """Flux has no plus and minus between int and float, so each has its point."""
    return f"{float(number)!r}" if number >= 0 else f"({float(number)!r})"
