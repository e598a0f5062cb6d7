"""What a field is called in history: the Prometheus name, with `job` and `instance` attached.

A field without a Prometheus name is `<measurement>_<field>`. Left out: texts, and fields that say again what a
Prometheus series says (`twin`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agent.core.labels import METRIC_NAME, Labels, labels_of
from agent.core.model import Field, Group

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


class Named(NamedTuple):
    """A field that history keeps: its place among the values of a Reading, its series, its factor."""

    place: int
    labels: Labels
    scale: float


class Metric(NamedTuple):
    """What is known of a metric name: Prometheus' type, the help sentence, the unit."""

    type: str
    help: str
    unit: str


class Names:
    """Gives series their labels. A tag called `job` or `instance` becomes `exported_job`, as in a scraper."""

    def __init__(self, job: str, instance: str) -> None:
        self._attached = {"job": job, "instance": instance}

    def of(self, group: Group, tags: tuple[str, ...]) -> list[Named]:
        """The kept fields of one series of a Group."""
        return [
            Named(place, self._labels(group, tags, field), field.scale if field.prom else 1.0)
            for place, field in enumerate(group.fields)
            if is_kept(field)
        ]

    def plain(self, name: str) -> Labels:
        """A series of our own, with nothing but the attached labels."""
        return labels_of({METRIC_NAME: name, **self._attached})

    def _labels(self, group: Group, tags: tuple[str, ...], field: Field) -> Labels:
        found: dict[str, str] = {}
        for tag, value in zip(group.tags, tags, strict=False):
            name = tag.prom or ("" if field.prom else tag.influx)
            if name:
                found[label_name(name)] = value
        for name, value in field.labels:
            found[label_name(name)] = value
        for name in self._attached:
            if name in found:
                found[f"exported_{name}"] = found.pop(name)
        return labels_of({METRIC_NAME: metric_name(group, field), **found, **self._attached})


def is_kept(field: Field) -> bool:
    """Does history keep this field?"""
    return field.is_numeric and not field.twin


def metric_name(group: Group, field: Field) -> str:
    """The name of the field's series."""
    name = field.prom or f"{group.measurement}_{field.influx}"
    name = _NOT_IN_NAMES.sub("_", name)
    return f"_{name}" if name[:1].isdigit() else name


def label_name(name: str) -> str:
    """The name with everything replaced that a label name may not hold."""
    name = _NOT_IN_LABELS.sub("_", name)
    return f"_{name}" if name[:1].isdigit() else name


def metrics_of(group: Group) -> dict[str, Metric]:
    """Type, help and unit of every metric of a Group, by name; a histogram's parts under the name of the whole."""
    found: dict[str, Metric] = {}
    for field in group.fields:
        if is_kept(field):
            name = field.family if field.prom and field.family else metric_name(group, field)
            kind = "unknown" if field.kind == "untyped" else field.kind
            found.setdefault(name, Metric(kind, field.help, "" if field.unit in {"value", "count"} else field.unit))
    return found
