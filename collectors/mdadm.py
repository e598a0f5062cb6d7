"""Software RAID arrays, from /proc/mdstat and /sys/block/md*/md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import Host, read_file
from agent.core.model import Field, Group, Reading, gauge, untyped
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, list_names, read_int

MDSTAT = Group("mdstat", (
    untyped("BlocksSynced", "count", "Blocks in sync.", influx="BlocksSynced", twin="node_md_blocks_synced"),
    untyped("BlocksSyncedFinishTime", "value", "Minutes until the arrays are in sync.",
            influx="BlocksSyncedFinishTime"),
    untyped("BlocksSyncedPct", "percent", "Part of the sync that is done.", influx="BlocksSyncedPct"),
    untyped("BlocksSyncedSpeed", "value", "Speed of the sync in KiB/s.", influx="BlocksSyncedSpeed"),
    untyped("BlocksTotal", "count", "Blocks of the array.", influx="BlocksTotal", twin="node_md_blocks"),
    untyped("DisksActive", "count", "Disks in use.", influx="DisksActive", twin="node_md_disks"),
    untyped("DisksFailed", "count", "Disks that failed.", influx="DisksFailed", twin="node_md_disks"),
    untyped("DisksSpare", "count", "Disks waiting to replace another.", influx="DisksSpare", twin="node_md_disks"),
    untyped("DisksTotal", "count", "Disks the array should have.", influx="DisksTotal",
            twin="node_md_disks_required"),
), tags=("ActivityState", "Devices", "Name"))  # fmt: skip


def _disks(state: str) -> Field:
    return gauge(f"disks_{state}", "count", "Disks of the array by state.", prom="node_md_disks",
                 labels={"state": state})  # fmt: skip


# How node_exporter calls the states of an array, and how Telegraf does.
_STATES = {"active": "active", "inactive": "inactive", "recovering": "recovering", "check": "checking",
           "resync": "resyncing"}  # fmt: skip

MD = Group("md", (
    gauge("blocks", "count", "Blocks of the array.", prom="node_md_blocks"),
    gauge("blocks_synced", "count", "Blocks in sync.", prom="node_md_blocks_synced"),
    _disks("active"),
    _disks("failed"),
    _disks("spare"),
    gauge("disks_required", "count", "Disks the array should have.", prom="node_md_disks_required"),
    *(
        gauge(f"state_{state}", "bool", "1 for the state the array is in.", prom="node_md_state",
              labels={"state": state})
        for state in _STATES
    ),
), tags=("device",))  # fmt: skip

MD_RAID = Group("md_raid", (
    gauge("raid_disks", "count", "Disks of the array by its set-up.", prom="node_md_raid_disks"),
    gauge("degraded", "count", "Disks missing from the array.", prom="node_md_degraded"),
), tags=("device",))  # fmt: skip


class Array(NamedTuple):
    """One array of /proc/mdstat."""

    name: str
    state: str  # active, inactive, recovering, checking, resyncing, reshaping
    devices: tuple[str, ...]
    active: int
    failed: int
    spare: int
    required: int
    blocks: int
    synced: int
    synced_percent: float
    finish_minutes: float
    speed: float  # KiB/s


_HEAD = re.compile(r"(\S+) : (\S+)(.*)")
_COMPONENT = re.compile(r"(\S+)\[\d+\](\([A-Z]\))*")
_SIZE = re.compile(r"^\s+(\d+) blocks", re.MULTILINE)
_COUNTS = re.compile(r"\[(\d+)/(\d+)\] \[[U_]+\]")
_SYNC = re.compile(r"\b(recovery|resync|check|reshape)\s*=\s*([\d.]+)% \((\d+)/\d+\)(?: finish=([\d.]+)min)?"
                   r"(?: speed=([\d.]+)K)?")  # fmt: skip
_WAITING = re.compile(r"\b(recovery|resync|check|reshape)=(?:PENDING|DELAYED)")
_ACTIVITY = {"recovery": "recovering", "resync": "resyncing", "check": "checking", "reshape": "reshaping"}


def parse_mdstat(text: bytes) -> list[Array]:
    """The arrays of /proc/mdstat. Raise SourceError when the lines of an array do not tell its size."""
    arrays = []
    block: list[str] = []
    for line in [*text.decode("utf-8", "replace").split("\n"), ""]:
        if line[:1].isspace() and block:
            block.append(line)
            continue
        if block:
            arrays.append(_parse_array(block))
        block = [line] if _HEAD.match(line) and not line.startswith(("Personalities", "unused")) else []
    return arrays


def _parse_array(block: list[str]) -> Array:
    head = _HEAD.match(block[0])
    body = "\n".join(block[1:])
    size = _SIZE.search(body)
    if head is None or size is None:
        raise SourceError(f"/proc/mdstat: {block[0]!r} is not followed by a line like '1024 blocks super 1.2'")
    name, state, rest = head.groups()
    components = list(_COMPONENT.finditer(rest))
    blocks = int(size[1])
    failed = sum("(F)" in component[0] for component in components)
    spare = sum("(S)" in component[0] for component in components)
    if counts := _COUNTS.search(body):
        required, active = int(counts[1]), int(counts[2])
    elif state == "inactive":
        required = active = 0
    else:
        required = active = len(components)  # raid0 and linear cannot lose a disk and go on
    synced, percent, finish, speed = blocks, 0.0, 0.0, 0.0
    if waiting := _WAITING.search(body):
        state, synced = _ACTIVITY[waiting[1]], 0
    elif sync := _SYNC.search(body):
        state, synced = _ACTIVITY[sync[1]], int(sync[3])
        percent, finish, speed = _number(sync[2]), _number(sync[4]), _number(sync[5])
    devices = tuple(sorted(component[1] for component in components))
    return Array(name, state, devices, active, failed, spare, required, blocks, synced, percent, finish, speed)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Mdadm:
    """State, disks and synchronisation of software RAID arrays."""

    name: ClassVar[str] = "mdadm"
    groups: ClassVar[tuple[Group, ...]] = (MDSTAT, MD, MD_RAID)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        for array in parse_mdstat(read_file(self.host.proc("mdstat"))):
            yield MDSTAT.row((array.state, ",".join(array.devices), array.name), (
                array.synced, array.finish_minutes, array.synced_percent, array.speed, array.blocks,
                array.active, array.failed, array.spare, array.required,
            ))  # fmt: skip
            # node_exporter has no state for an array that is being reshaped; it works, so it is active.
            state = "active" if array.state == "reshaping" else array.state
            yield MD.row((array.name,), (
                array.blocks, array.synced, array.active, array.failed, array.spare, array.required,
                *(int(state == telegrafs) for telegrafs in _STATES.values()),
            ))  # fmt: skip
        yield from self._read_sysfs()

    def _read_sysfs(self) -> Iterator[Reading]:
        root = self.host.sys("block")
        try:
            names = [name for name in list_names(root) if name.startswith("md")]
        except SourceError:
            return  # a container without /sys still has /proc/mdstat
        for name in names:
            disks, degraded = (read_int(f"{root}/{name}/md/{attribute}") for attribute in ("raid_disks", "degraded"))
            if disks is not None:
                yield MD_RAID.row((as_text(name),), (disks, degraded))
