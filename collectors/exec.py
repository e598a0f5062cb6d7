"""What programs of the operator's own print: line protocol, Prometheus' text, or a Nagios plugin's result.

Programs are run without a shell, in an empty environment but for PATH, LANG and what is configured, in a process group
that is killed whole at the deadline. A program must belong to root or to the agent's user, and nobody else may be able
to write to it. Timestamps that a program prints are not used: what it said counts for the slot it was run in.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import ClassVar, Literal

from agent.core.errors import SourceError
from agent.core.model import Failed, Field, Group, Reading, Tag, Value, gauge, untyped
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes, Seconds
from collectors.each_alone import EachAlone, rounds
from collectors.influx_line import Point, parse_influx_lines
from collectors.nagios import STATES, parse_plugin_output
from collectors.prom_text import parse_prom_text
from collectors.run_program import GRACE, UNKILLABLE, Finished, StillRunning, check_program, run_program
from collectors.samples import SampleGroups

COMMAND = Tag("", "command")  # Telegraf does not say which program a point is from

EXEC = Group("vigilhost_exec", (
    gauge("success", "bool", "1 when the program ended well and its output was understood.", type=int,
          influx="success", prom="vigilhost_exec_success"),
    gauge("duration", "seconds", "Time the program ran; absent when it failed.", influx="duration_seconds",
          prom="vigilhost_exec_duration_seconds"),
), tags=("command",))  # fmt: skip

NAGIOS_STATE = Group("nagios_state", (
    gauge("state", "code", "Exit status of a Nagios plugin: 0 ok, 1 warning, 2 critical, 3 unknown.",
          influx="state", prom="nagios_state"),
    gauge("service_output", "text", "The plugin's line for people.", influx="service_output"),
    gauge("long_service_output", "text", "The lines after the first.", influx="long_service_output"),
), tags=("command",))  # fmt: skip

_PERF_FIELDS = ("value", "min", "max", "warning_lt", "warning_gt", "warning_le", "warning_ge",
                "critical_lt", "critical_gt", "critical_le", "critical_ge")  # fmt: skip

NAGIOS = Group("nagios", (
    gauge(name, "value", f"Performance data of a Nagios plugin: {name}.", influx=name, prom=f"nagios_{name}")
    for name in _PERF_FIELDS
), tags=("command", "perfdata", "unit"))  # fmt: skip

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_MOST_POINTS = 20_000
_MOST_SHAPES = 2_000  # Groups of line protocol kept before they are forgotten; a program may print ever new names
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(slots=True)
class Command:
    """One program and how to read what it prints."""

    name: str = required("Name of this command in metrics and errors.")
    argv: list[str] = required("The program's absolute path and its arguments; there is no shell.")
    format: Literal["influx", "prometheus", "nagios"] = option("influx", "What it prints.")
    timeout: Seconds = option(10.0, "The program and what it started is killed after this time.", minimum=0.05)
    tags: dict[str, str] = option(dict[str, str], "Tags for everything it prints.")
    environment: dict[str, Secret] = option(
        dict[str, Secret], "Variables for its environment, which holds only PATH and LANG otherwise."
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be run."""
        if not self.argv or not self.argv[0].startswith("/"):
            raise ValueError("argv: must start with the absolute path of a program")
        for text in (*self.argv, *self.environment, *(secret.reveal() for secret in self.environment.values())):
            if "\0" in text:
                raise ValueError("argv, environment: a NUL character cannot be passed to a program")


@dataclass(slots=True)
class Exec:
    """Metrics that programs of your own print."""

    name: ClassVar[str] = "exec"
    groups: ClassVar[tuple[Group, ...]] = (EXEC, NAGIOS_STATE, NAGIOS)
    own_lane: ClassVar[bool] = True

    interval: Seconds = option(30.0, "Time between two runs.")
    commands: list[Command] = option(
        list[Command],
        "Programs to run; none by default.",
        example="[{name: raid, argv: [/usr/local/bin/raid-status, --all], format: influx}]",
    )
    max_output: Bytes = option(1 << 20, "A program that prints more is killed.", minimum=1024)
    timeout: Seconds = field(init=False)
    _series: dict[str, SampleGroups] = field(init=False, default_factory=dict)
    _points: PointGroups = field(init=False)
    _tagged_groups: dict[tuple[Group, tuple[str, ...]], Group] = field(init=False, default_factory=dict)
    _stuck: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)
    _each: EachAlone[Command, tuple[float, Finished]] = field(init=False)

    def __post_init__(self) -> None:
        """Raise ValueError when two commands have one name."""
        names = [command.name for command in self.commands]
        if len(set(names)) < len(names):
            raise ValueError("commands: two of them have the same name")
        longest = max((command.timeout for command in self.commands), default=0.0) + GRACE + UNKILLABLE
        self.timeout = rounds(len(names)) * longest + 2.0
        self._each = EachAlone(self._run, self.commands, self.timeout - 1.0)
        self._points = PointGroups()

    def collect(self) -> Iterator[Reading | Failed]:
        """Run every command; what one of them does wrong is that command's failure alone."""
        for command, outcome in self._each.outcomes():
            try:
                if isinstance(outcome, SourceError):
                    raise outcome
                took, finished = outcome
                said = list(self._read(command, finished))
            except SourceError as error:
                yield EXEC.row((command.name,), (0, None))
                yield Failed(command.name, str(error))
                continue
            yield EXEC.row((command.name,), (1, took))
            yield from said

    def _run(self, command: Command) -> tuple[float, Finished]:
        """Seconds it took, and what it left. Raise SourceError."""
        stuck = self._stuck.get(command.name)
        if stuck is not None and stuck.poll() is None:
            raise SourceError(f"not started: process {stuck.pid} of an earlier run cannot be killed")
        self._stuck.pop(command.name, None)
        check_program(command.argv[0])
        environment = _ENVIRONMENT | {name: value.reveal() for name, value in command.environment.items()}
        started = monotonic()
        try:
            finished = run_program(command.argv, environment, command.timeout, self.max_output)
        except StillRunning as error:
            self._stuck[command.name] = error.child
            raise
        return monotonic() - started, finished

    def _read(self, command: Command, finished: Finished) -> Iterable[Reading]:
        """What the program said, by its format. Raise SourceError."""
        if command.format == "nagios":
            return self._nagios_readings(command, finished)
        if finished.status != 0:
            raise SourceError(_ended(finished))
        if command.format == "influx":
            points = parse_influx_lines(finished.stdout, _MOST_POINTS)
            return self._points.readings(points, command)
        series = self._series.get(command.name)
        if series is None:
            tags = _tags(command.tags, {COMMAND.prom})
            series = self._series[command.name] = SampleGroups((COMMAND, *tags))
        families = parse_prom_text(finished.stdout, _MOST_POINTS)
        readings = series.readings(families, (command.name, *command.tags.values()))
        series.forget_unused()
        return readings

    def _nagios_readings(self, command: Command, finished: Finished) -> Iterator[Reading]:
        """State and performance data. Raise SourceError when the exit status is no state."""
        if not 0 <= finished.status < len(STATES):
            raise SourceError(f"{_ended(finished)}; a Nagios plugin exits 0, 1, 2 or 3")
        said = parse_plugin_output(finished.stdout)
        state, perf = self._tagged(NAGIOS_STATE, command), self._tagged(NAGIOS, command)
        own = tuple(command.tags.values())
        text = said.text or finished.complaint()
        yield state.row((command.name, *own), (finished.status, text, said.long_text or None))
        by_tags = {(command.name, item.label, item.unit, *own): item.fields for item in said.perfdata}
        for tags, fields in by_tags.items():
            yield perf.row(tags, tuple(map(fields.get, _PERF_FIELDS)))

    def _tagged(self, group: Group, command: Command) -> Group:
        """The Group with the command's own tags added; the same one for the same tag names."""
        names = tuple(command.tags)
        if not names:
            return group
        if (group, names) not in self._tagged_groups:
            extra = _tags(names, {tag.prom for tag in group.tags})
            self._tagged_groups[group, names] = Group(group.measurement, group.fields, (*group.tags, *extra))
        return self._tagged_groups[group, names]


def _ended(finished: Finished) -> str:
    how = f"exited {finished.status}" if finished.status >= 0 else f"was ended by signal {-finished.status}"
    complaint = finished.complaint()
    return f"{how}: {complaint}" if complaint else how


def _prom_name(text: str) -> str:
    """The text as a label or metric name: what may not stand in one becomes an underscore."""
    name = _NOT_IN_A_NAME.sub("_", text)
    return f"_{name}" if name[:1].isdigit() else name


def _tags(names: Iterable[str], taken: set[str]) -> list[Tag]:
    """Tags with their label names on /metrics, which differ from each other and from those `taken`."""
    tags = []
    for name in names:
        prom = _prom_name(name)
        while prom in taken:
            prom = f"exported_{prom}"
        taken.add(prom)
        tags.append(Tag(name, prom))
    return tags


class PointGroups:
    """Points of line protocol to Readings; the same measurement, tags and fields give the same Group object."""

    def __init__(self) -> None:
        self._groups: dict[tuple[object, ...], Group] = {}

    def readings(self, points: Iterable[Point], command: Command) -> list[Reading]:
        """One Reading a series; fields of later points with the same tags are added, and win."""
        merged: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, Value]] = {}
        for point in points:
            tags = tuple(sorted((dict(point.tags) | command.tags).items()))
            merged.setdefault((point.measurement, tags), {}).update(point.fields)
        if len(self._groups) > _MOST_SHAPES:
            self._groups.clear()
        rows = []
        for (measurement, tags), fields in merged.items():
            group = self._group(measurement, tuple([key for key, _ in tags]), fields)
            rows.append(Reading(group, (command.name, *[value for _, value in tags]), tuple(fields.values())))
        return rows

    def _group(self, measurement: str, tag_keys: tuple[str, ...], fields: dict[str, Value]) -> Group:
        shape = (measurement, tag_keys, tuple([(key, type(value)) for key, value in fields.items()]))
        group = self._groups.get(shape)
        if group is None:
            tags = _tags(tag_keys, {COMMAND.prom})
            group = self._groups[shape] = Group(measurement, _fields(measurement, fields), (COMMAND, *tags))
        return group


def _fields(measurement: str, fields: dict[str, Value]) -> Iterator[Field]:
    """Declarations of the fields; one whose name on /metrics another has already stays out of there."""
    taken: set[str] = set()
    for key, value in fields.items():
        prom = _prom_name(f"{measurement}_{key}")
        is_shown = prom not in taken and not isinstance(value, str)
        taken.add(prom)
        kind = type(value)
        unit = "text" if isinstance(value, str) else "value"
        assert kind in (int, float, bool, str)
        yield untyped(key, unit, f"Field {key} of {measurement}, from a program.", type=kind, influx=key,
                      prom=prom if is_shown else None)  # fmt: skip
