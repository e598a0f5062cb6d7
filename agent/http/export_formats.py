"""The formats of an export: text of samples, series by series, a part of each at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Final, Protocol

from agent.core.labels import METRIC_NAME, Labels, value_of, without_name
from agent.http.encoding import labels_json, number, points_json
from agent.http.faces import MetricFacts
from agent.http.times import iso, seconds_text
from sinks.line_protocol import escape_key, escape_measurement

Columns = tuple[Sequence[int], Sequence[float]]  # times in ms, values


class Writer(Protocol):
    """Writes one export. `part` comes in order of series; the parts of a series follow each other in time."""

    def head(self, series: Sequence[Labels]) -> str: ...

    def part(self, labels: Labels, columns: Columns) -> str: ...

    def tail(self) -> str: ...


class Csv:
    """A header, then a line a sample: time, metric, every label that occurs, value."""

    def __init__(self, facts: Mapping[str, MetricFacts]) -> None:  # noqa: ARG002 - a Writer is made with them
        self._names: list[str] = []

    def head(self, series: Sequence[Labels]) -> str:
        self._names = sorted({name for labels in series for name, _ in labels if name != METRIC_NAME})
        return _csv_line(["time", "metric", *self._names, "value"]) + "\n"

    def part(self, labels: Labels, columns: Columns) -> str:
        found = dict(labels)
        middle = _csv_line([found.get(METRIC_NAME, ""), *(found.get(name, "") for name in self._names)])
        return "".join([f"{iso(at)},{middle},{number(value)}\n" for at, value in zip(*columns, strict=True)])

    def tail(self) -> str:
        return ""


class Json:
    """One document in the form of a Prometheus matrix; each series once."""

    def __init__(self, facts: Mapping[str, MetricFacts]) -> None:  # noqa: ARG002 - a Writer is made with them
        self._last: Labels | None = None

    def head(self, series: Sequence[Labels]) -> str:  # noqa: ARG002 - a Writer's signature
        return '{"status":"success","data":{"resultType":"matrix","result":['

    def part(self, labels: Labels, columns: Columns) -> str:
        points = points_json(*columns)
        if labels == self._last:
            return f",{points}"
        before = "" if self._last is None else "]},"
        self._last = labels
        return f'{before}{{"metric":{labels_json(labels)},"values":[{points}'

    def tail(self) -> str:
        return ("]}" if self._last is not None else "") + "]}}\n"


class JsonLines:
    """A JSON object a line, a stretch of one series each: metric, values, timestamps in ms, as VictoriaMetrics'."""

    def __init__(self, facts: Mapping[str, MetricFacts]) -> None:
        pass

    def head(self, series: Sequence[Labels]) -> str:  # noqa: ARG002 - a Writer's signature
        return ""

    def part(self, labels: Labels, columns: Columns) -> str:
        times, values = columns
        shown = ",".join([number(value) if isfinite(value) else _json_special(value) for value in values])
        return f'{{"metric":{labels_json(labels)},"values":[{shown}],"timestamps":[{",".join(map(str, times))}]}}\n'

    def tail(self) -> str:
        return ""


class OpenMetrics:
    """OpenMetrics text with timestamps, which `promtool tsdb create-blocks-from openmetrics` takes."""

    def __init__(self, facts: Mapping[str, MetricFacts]) -> None:
        self._facts = facts
        self._family = ""

    def head(self, series: Sequence[Labels]) -> str:  # noqa: ARG002 - a Writer's signature
        return ""

    def part(self, labels: Labels, columns: Columns) -> str:
        name = value_of(labels, METRIC_NAME)
        shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in without_name(labels))
        head = f"{name}{{{shown}}}" if shown else name
        lines = "".join([f"{head} {number(value)} {seconds_text(at)}\n" for at, value in zip(*columns, strict=True)])
        if name == self._family:
            return lines
        self._family = name
        return self._about(name) + lines

    def _about(self, name: str) -> str:
        facts = self._facts.get(name)
        is_counter = facts is not None and facts.type == "counter" and name.endswith("_total")
        kind = "counter" if is_counter else "gauge" if facts is not None and facts.type == "gauge" else "unknown"
        family = name.removesuffix("_total") if is_counter else name
        help = f"# HELP {family} {_escaped(facts.help)}\n" if facts is not None and facts.help else ""
        return f"{help}# TYPE {family} {kind}\n"

    def tail(self) -> str:
        return "# EOF\n"


class LineProtocol:
    """InfluxDB line protocol: the metric as measurement, its labels as tags, one field `value`; NaN is left out."""

    def __init__(self, facts: Mapping[str, MetricFacts]) -> None:
        pass

    def head(self, series: Sequence[Labels]) -> str:  # noqa: ARG002 - a Writer's signature
        return ""

    def part(self, labels: Labels, columns: Columns) -> str:
        pairs = [(escape_key(key), escape_key(value)) for key, value in without_name(labels)]
        tags = "".join(f",{key}={value}" for key, value in pairs if value)  # an empty tag value is no line protocol
        head = f"{escape_measurement(value_of(labels, METRIC_NAME))}{tags} value="
        return "".join(
            [f"{head}{number(value)} {at}000000\n" for at, value in zip(*columns, strict=True) if isfinite(value)]
        )

    def tail(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Format:
    """A format by name: who writes it, its media type and what files of it end with."""

    writer: type[Csv | Json | JsonLines | OpenMetrics | LineProtocol]
    media_type: str
    suffix: str


FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format(Csv, "text/csv; charset=utf-8", "csv"),
    "json": Format(Json, "application/json", "json"),
    "jsonl": Format(JsonLines, "application/jsonl", "jsonl"),
    "openmetrics": Format(OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8", "om"),
    "line-protocol": Format(LineProtocol, "text/plain; charset=utf-8", "lp"),
}


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _json_special(value: float) -> str:
    if value != value:
        return "null"
    return '"Infinity"' if value == inf else '"-Infinity"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
