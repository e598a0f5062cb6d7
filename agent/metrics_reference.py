"""The manual's page on what is measured, made from the Groups of the collectors:

`python -m agent.metrics_reference > docs/metrics.md`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from agent.config.declared import purpose
from agent.config.registry import Registry
from agent.config.tables import COLLECTORS
from agent.core.model import Field, Group
from agent.core.units import format_duration

_HEAD = """\
# Metrics

This page is made from the declarations in the collectors: `python -m agent.metrics_reference > docs/metrics.md`.

Every reading is published under the names that dashboards already know:

- **InfluxDB line protocol** (the sinks, `vigilhost collect --format influx`) as Telegraf writes it with its default
  options: measurement, tags and fields below, and on every point the tag `host` and the `tags` of the configuration.
  The type of a field never changes: `int` carries an `i`, `float` does not, `str` stands in quotes.
- **Prometheus** (`/metrics`) as node_exporter names it. A scraper adds `job` and `instance`; nothing else is added.

The two are not always two names of one row. node_exporter has no `cpu-total`, Telegraf no `lo` and no tmpfs, and one
counts seconds where the other counts milliseconds. So some tables below belong to one dialect alone. Where InfluxDB has
two tables of one measurement, they are two points, as Telegraf sends its gauges and its counters.

**In history and rules** the Prometheus names count, with `job="node"` and `instance="<host>"`, so that rules written
for node_exporter match. A field that only InfluxDB has is called `<measurement>_<field>` there, unless a Prometheus
metric says the same in its own way: then the table names that one, and history has it alone. `true` and `false` become
1 and 0; text is left out.

A field is absent, rather than zero, where the kernel of the host does not tell it.
"""
_OPEN = (
    "The name stands for many: the source decides at run time which there are, and `*` is what it calls each of them."
)
_BY_OTHERS = {
    "exec": "Beside these it publishes whatever the programs print, under the names they give.",
    "prometheus": "Beside these it publishes whatever the targets have, under the names they give.",
    "textfile": "Beside these it publishes whatever the files hold, under the names they give.",
}
_UNIT_AFTER_SCALE = {("milliseconds", 0.001): "seconds"}


def reference(registry: Registry = COLLECTORS) -> str:
    """The page. Raise PluginError when one of our own collectors cannot be imported."""
    names = sorted(registry.builtin)
    lines = [_HEAD, "## Collectors", "", "| collector | interval | default | measures |", "|---|---|---|---|"]
    for name in names:
        cls = registry.find(name)
        state = "on" if name in registry.on_by_default else "off"
        lines.append(f"| [`{name}`](#{name}) | {_interval(cls)} | {state} | {_cell(purpose(cls))} |")
    for name in names:
        lines += _collector(name, registry.find(name), is_on=name in registry.on_by_default)
    return "\n".join(lines) + "\n"


def _collector(name: str, cls: Any, *, is_on: bool) -> Iterator[str]:
    state = "On by default" if is_on else "Off unless named"
    yield from ("", f"## {name}", "", f"{purpose(cls)} {state}, every {_interval(cls)}.")
    if name in _BY_OTHERS:
        yield from ("", _BY_OTHERS[name])
    for group in cls.groups:
        yield from ("", *_group(group))


def _interval(cls: Any) -> str:
    return format_duration(cls.__dataclass_fields__["interval"].default)


def _group(group: Group) -> Iterator[str]:
    """A heading and a table for each dialect that the Group has; one table where it has both."""
    if group.in_influx:
        tags = [f"`{tag.influx}`" for tag in group.tags if tag.influx]
        yield f"**InfluxDB `{group.measurement}`**{_with('tag', tags)}"
    if group.in_prom:
        labels = [f"`{tag.prom}`" for tag in group.tags if tag.prom]
        yield f"**{'and ' if group.in_influx else ''}Prometheus**{_with('label', labels)}"
    yield ""
    if any("*" in field.name for field in group.fields):
        yield from (_OPEN, "")
    columns = ["InfluxDB field", "type"] * group.in_influx + ["Prometheus metric", "kind"] * group.in_prom
    columns += ["unit", "meaning"]
    yield _row(columns)
    yield "|---" * len(columns) + "|"
    for field in group.fields:
        yield _row(_cells(field, group))


def _with(noun: str, names: list[str]) -> str:
    return f", {noun}{'s' * (len(names) > 1)} {', '.join(names)}" if names else ""


def _cells(field: Field, group: Group) -> Iterator[str]:
    if group.in_influx:
        yield f"`{field.influx}`" if field.influx else ""
        yield field.type.__name__ if field.influx else ""
    if group.in_prom:
        yield _prometheus(field)
        yield field.kind if field.prom else ""
    yield _unit(field)
    instead = f" In history: `{field.twin}`." if field.twin else ""
    yield f"{field.help}{instead}"


def _prometheus(field: Field) -> str:
    if not field.prom:
        return ""
    labels = ", ".join(f'{name}="{value}"' for name, value in field.labels)
    return f"`{field.prom}{{{labels}}}`" if labels else f"`{field.prom}`"


def _unit(field: Field) -> str:
    if field.scale == 1.0 or not field.prom:
        return _words(field.unit)
    scaled = _UNIT_AFTER_SCALE.get((field.unit, field.scale), f"{_words(field.unit)} × {field.scale:g}")
    return f"{_words(field.unit)}; {scaled} on /metrics" if field.influx else _words(scaled)


def _words(unit: str) -> str:
    return {"bool": "0 or 1", "info": "1", "text": "", "value": ""}.get(unit, unit.replace("_", " "))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(reference())
