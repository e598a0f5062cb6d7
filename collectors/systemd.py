"""Units of systemd and their states, asked over D-Bus.

One ListUnits call for all units, then a few properties of services, timers and sockets, all sent together. A systemctl
process for the same list costs several times as much and cannot tell the properties.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.labels import predicate
from agent.core.model import Failed, Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.dbus import Call, Connection, DBusError
from collectors.systemd_codes import ACTIVE_CODES, LOAD_CODES, SUB_CODES

STATES = ("active", "activating", "deactivating", "inactive", "failed")

UNITS = Group("systemd_units", (
    gauge("load_code", "code", "Load state of the service: 0 loaded, 1 stub, 2 not-found, 3 bad-setting, 4 error, "
          "5 merged, 6 masked.", influx="load_code"),
    gauge("active_code", "code", "Active state: 0 active, 1 reloading, 2 inactive, 3 failed, 4 activating, "
          "5 deactivating.", influx="active_code", twin="node_systemd_unit_state"),
    gauge("sub_code", "code", "State of the service itself, as Telegraf numbers them: 0 running, 1 dead, 12 failed.",
          influx="sub_code"),
), tags=("name", "load", "active", "sub"))  # fmt: skip

UNIT_STATE = Group("systemd_unit_state", (
    gauge(state, "bool", "1 for the state the unit is in.", type=int, prom="node_systemd_unit_state",
          labels={"state": state})
    for state in STATES
), tags=("name", "type"))  # fmt: skip

SUMMARY = Group("systemd_summary", (
    gauge("units", "count", "Units in this state, filtered ones included.", prom="node_systemd_units"),
), tags=("state",))  # fmt: skip

SYSTEM = Group("systemd_system", (
    gauge("running", "bool", "1 when `systemctl is-system-running` says running.", type=int,
          prom="node_systemd_system_running"),
))  # fmt: skip

VERSION = Group("systemd_version", (
    gauge("version", "value", "Version of systemd as a number.", prom="node_systemd_version"),
), tags=("version",))  # fmt: skip

VIRTUALIZATION = Group("systemd_virtualization", (
    gauge("info", "info", "What systemd found the host to run in; `none` on bare metal.",
          prom="node_systemd_virtualization_info"),
), tags=("virtualization_type",))  # fmt: skip

SERVICE = Group("systemd_service", (
    counter("restarts", "count", "Automatic restarts of the service.", prom="node_systemd_service_restart_total"),
    gauge("tasks_current", "count", "Tasks of the service now.", prom="node_systemd_unit_tasks_current"),
    gauge("tasks_max", "count", "Tasks the service may have.", prom="node_systemd_unit_tasks_max"),
), tags=("name",))  # fmt: skip

START_TIME = Group("systemd_unit_start", (
    gauge("start_time", "seconds", "When the unit became active, Unix time; 0 when it is not.",
          prom="node_systemd_unit_start_time_seconds"),
), tags=("name",))  # fmt: skip

TIMER = Group("systemd_timer", (
    gauge("last_trigger", "seconds", "When the timer last elapsed, Unix time; 0 when it has not.",
          prom="node_systemd_timer_last_trigger_seconds"),
), tags=("name",))  # fmt: skip

SOCKET = Group("systemd_socket", (
    counter("accepted", "count", "Connections the socket accepted.",
            prom="node_systemd_socket_accepted_connections_total"),
    gauge("current", "count", "Connections open now.", prom="node_systemd_socket_current_connections"),
    # node_exporter calls it a gauge despite its name.
    gauge("refused", "count", "Connections refused.", prom="node_systemd_socket_refused_connections_total"),
), tags=("name",))  # fmt: skip

_MANAGER = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_MICROSECOND = 1e-6
_NO_LIMIT = 2**64 - 1
_VERSION = re.compile(r"[0-9]{3,}(\.[0-9]+)?")


class Unit(NamedTuple):
    """One entry of ListUnits."""

    name: str
    load: str
    active: str
    sub: str
    path: str


@dataclass(slots=True)
class Systemd:
    """States of systemd's units, timers, sockets and service restarts."""

    name: ClassVar[str] = "systemd"
    groups: ClassVar[tuple[Group, ...]] = (
        UNITS, UNIT_STATE, SUMMARY, SYSTEM, VERSION, VIRTUALIZATION, SERVICE, START_TIME, TIMER, SOCKET,
    )  # fmt: skip
    own_lane: ClassVar[bool] = True

    interval: Seconds = option(30.0, "Time between two readings.")
    unit_include: str = option(".+", "Only units whose whole name matches this pattern.")
    unit_exclude: str = option(
        r".+\.(automount|device|mount|scope|slice)", "Without units whose whole name matches this pattern."
    )
    restarts: bool = option(True, "Count automatic restarts of services.")
    tasks: bool = option(False, "Tell how many tasks services have and may have.")
    start_times: bool = option(False, "Tell when units became active.")
    max_units: int = option(1000, "Units beyond this number are left out.", minimum=1)
    timeout: Seconds = option(5.0, "systemd must answer within this time.", minimum=0.05)
    host: Host = field(default_factory=Host)
    _connection: Connection | None = field(init=False, default=None)
    _types: dict[tuple[str, str], str] = field(
        init=False, default_factory=dict
    )  # of services, until their state changes

    def collect(self) -> Iterator[Reading | Failed]:
        """Ask systemd. Raise SourceMissing where it does not run or cannot be reached, SourceError when it fails."""
        running = self.host.file("/run/systemd/system")
        if not os.path.isdir(running):
            raise SourceMissing(f"{running}: no such directory; this host was not started by systemd")
        try:
            yield from self._readings()
        except SourceError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection:
        """The kept connection; a new one to the bus, or to systemd itself where there is no bus and we may."""
        if self._connection is None:
            bus = self.host.file("/run/dbus/system_bus_socket")
            private = self.host.file("/run/systemd/private")
            if os.path.exists(bus) or not os.access(private, os.W_OK):
                self._connection = Connection(bus, self.timeout)
            else:
                self._connection = Connection(private, self.timeout, has_bus=False)
        return self._connection

    def _first_answers(self) -> list[list[Any] | DBusError]:
        calls = [
            Call(_MANAGER, _MANAGER_PATH, f"{_MANAGER}.Manager", "ListUnits"),
            *(_get(_MANAGER_PATH, "Manager", name) for name in ("SystemState", "Version", "Virtualization")),
        ]
        is_kept = self._connection is not None
        try:
            return self._connected().calls(calls)
        except SourceError:
            if not is_kept:
                raise
            self.close()  # the bus was restarted since the last time
            return self._connected().calls(calls)

    def _readings(self) -> Iterator[Reading]:
        listed, *manager = self._first_answers()
        if isinstance(listed, DBusError):
            raise listed
        units = parse_units(listed)
        yield from self._system(*(_value(answer) for answer in manager))
        counts = dict.fromkeys(STATES, 0)
        for unit in units:
            counts[unit.active] = counts.get(unit.active, 0) + 1
        for state, count in counts.items():
            yield SUMMARY.row((state,), (count,))
        included, excluded = predicate(self.unit_include), predicate(self.unit_exclude)
        chosen = [unit for unit in units if included(unit.name) and not excluded(unit.name)][: self.max_units]
        for unit in chosen:
            if unit.name.endswith(".service"):
                codes = (LOAD_CODES.get(unit.load), ACTIVE_CODES.get(unit.active), SUB_CODES.get(unit.sub))
                if None not in codes:
                    yield UNITS.row((unit.name, unit.load, unit.active, unit.sub), codes)
        yield from self._details([unit for unit in chosen if unit.load == "loaded"])

    def _system(self, state: Any, version: Any, virtualization: Any) -> Iterator[Reading]:
        if isinstance(state, str):
            yield SYSTEM.row((), (int(state == "running"),))
        if isinstance(version, str) and (match := _VERSION.search(version)):
            yield VERSION.row((version,), (float(match[0]),))
        if isinstance(virtualization, str):
            yield VIRTUALIZATION.row((virtualization or "none",), (1,))

    def _details(self, units: list[Unit]) -> Iterator[Reading]:
        """States of the loaded units, and the properties of each kind."""
        asked = [(unit, name) for unit in units for name in self._wanted(unit)]
        calls = [_get(unit.path, *name) for unit, name in asked]
        answers = self._connected().calls(calls) if calls else []
        known = {(unit.name, name[1]): _value(answer) for (unit, name), answer in zip(asked, answers, strict=True)}
        types: dict[tuple[str, str], str] = {}
        for unit in units:
            key = (unit.name, unit.sub)
            kind = known.get((unit.name, "Type"), self._types.get(key, ""))
            types[key] = kind if isinstance(kind, str) else ""
            yield UNIT_STATE.row((unit.name, types[key]), tuple([int(unit.active == state) for state in STATES]))
            yield from _properties(unit, known)
        self._types = types

    def _wanted(self, unit: Unit) -> Iterator[tuple[str, str]]:
        """Interface and name of the properties to ask this unit for."""
        kind = unit.name.rpartition(".")[2]
        if kind == "service":
            if not self._types.get((unit.name, unit.sub)):
                yield "Service", "Type"
            if self.restarts:
                yield "Service", "NRestarts"
            if self.tasks:
                yield "Service", "TasksCurrent"
                yield "Service", "TasksMax"
        elif kind == "mount":
            if not self._types.get((unit.name, unit.sub)):
                yield "Mount", "Type"
        elif kind == "timer":
            yield "Timer", "LastTriggerUSec"
        elif kind == "socket":
            yield from (("Socket", name) for name in ("NAccepted", "NConnections", "NRefused"))
        if self.start_times:
            yield "Unit", "ActiveEnterTimestamp"


def _properties(unit: Unit, known: dict[tuple[str, str], Any]) -> Iterator[Reading]:
    def number(name: str) -> int | None:
        value = known.get((unit.name, name))
        return value if isinstance(value, int) and value != _NO_LIMIT else None

    service = (number("NRestarts"), number("TasksCurrent"), number("TasksMax"))
    if service != (None, None, None):
        yield SERVICE.row((unit.name,), service)
    sockets = (number("NAccepted"), number("NConnections"), number("NRefused"))
    if sockets != (None, None, None):
        yield SOCKET.row((unit.name,), sockets)
    last_trigger = number("LastTriggerUSec")
    if last_trigger is not None:
        yield TIMER.row((unit.name,), (last_trigger * _MICROSECOND,))
    started = number("ActiveEnterTimestamp")
    if started is not None:
        yield START_TIME.row((unit.name,), (started * _MICROSECOND if unit.active == "active" else 0.0,))


def parse_units(answer: list[Any]) -> list[Unit]:
    """Units of ListUnits' answer, a(ssssssouso). Raise SourceError when it is something else."""
    try:
        return [Unit(str(unit[0]), str(unit[2]), str(unit[3]), str(unit[4]), str(unit[6])) for unit in answer[0]]
    except (IndexError, TypeError, KeyError) as error:
        raise SourceError("systemd: an answer to ListUnits that is no list of units") from error


def _get(path: str, interface: str, name: str) -> Call:
    return Call(_MANAGER, path, _PROPERTIES, "Get", (f"{_MANAGER}.{interface}", name))


def _value(answer: list[Any] | DBusError) -> Any:
    """The property; None when systemd does not have it (an older version) or the unit is gone."""
    return None if isinstance(answer, DBusError) or not answer else answer[0]
