"""Do the panels ask for what the Groups declare? A renamed metric must not leave an empty panel behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.core.model import Group
from agent.dashboards.panels import Influx, Panel, Row
from agent.promql_language import PromQL
from sinks.history.naming import metric_name

_OF_ALERTING = frozenset({"ALERTS", "ALERTS_FOR_STATE"})  # written by rules, declared by no Group


class Declared:
    """The names in both dialects."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._metrics = set(_OF_ALERTING)
        self._open: set[str] = set()  # beginnings of names whose ends the kernel decides
        self._fields: set[tuple[str, str]] = set()
        self._tags: dict[str, set[str]] = {}
        for group in groups:
            for field in group.fields:
                if field.prom or (field.influx and field.is_numeric):
                    name = metric_name(group, field)
                    self._metrics.add(field.family or name)
                    if field.prom and "*" in field.prom:
                        self._open.add(field.prom.partition("*")[0])
                if field.influx:
                    self._fields.add((group.measurement, field.influx))
            self._tags.setdefault(group.measurement, {"host"}).update(tag.influx for tag in group.tags)

    def faults(self, rows: Iterable[Row]) -> list[str]:
        """What the panels ask for and nobody declares, in sentences. Raise ParseError for what is no PromQL."""
        return [f"{panel.title}: {fault}" for row in rows for panel in row.panels for fault in self._of(panel)]

    def _of(self, panel: Panel) -> Iterator[str]:
        for query in panel.prom:
            for one in PromQL().read(query.expr.replace("$__rate_interval", "1m")).inputs:
                if one.name not in self._metrics and not any(one.name.startswith(begin) for begin in self._open):
                    yield f"no collector has the metric {one.name}"
        for asked in panel.influx:
            yield from self._of_influx(asked)

    def _of_influx(self, asked: Influx) -> Iterator[str]:
        if (asked.measurement, asked.field) not in self._fields:
            yield f"no collector has the field {asked.field} of {asked.measurement}"
        for tag in (*asked.by, *asked.where):
            if tag not in self._tags.get(asked.measurement, set()):
                yield f"{asked.measurement} has no tag {tag}"
