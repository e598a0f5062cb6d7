"""Requests to block devices, from /proc/diskstats; who the devices are, from udev's database and sysfs.

Telegraf has a row for every device that was ever used, node_exporter for every device its filter lets through
(partitions are not), so each dialect has its own rows. Times are milliseconds for Telegraf, seconds on /metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile, read_file
from agent.core.model import Field, Group, Kind, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import compiled, read_text

# node_exporter's own default.
DEFAULT_EXCLUDE = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$"
_SECTOR_BYTES = 512  # of /proc/diskstats, whatever the device says
_MOST_COLUMNS = 17
_LEAST_COLUMNS = 11  # 15 with discards (Linux 4.18), 17 with flushes (5.5)


def _telegraf(name: str, unit: str, help: str, twin: str) -> Field:
    return counter(name, unit, help, influx=name, twin=f"node_disk_{twin}")


DISKIO = Group("diskio", (
    _telegraf("reads", "count", "Reads done.", "reads_completed_total"),
    _telegraf("writes", "count", "Writes done.", "writes_completed_total"),
    _telegraf("read_bytes", "bytes", "Bytes read.", "read_bytes_total"),
    _telegraf("write_bytes", "bytes", "Bytes written.", "written_bytes_total"),
    _telegraf("read_time", "milliseconds", "Time all reads took, waiting included.", "read_time_seconds_total"),
    _telegraf("write_time", "milliseconds", "Time all writes took, waiting included.", "write_time_seconds_total"),
    _telegraf("io_time", "milliseconds", "Time in which requests were under way.", "io_time_seconds_total"),
    _telegraf("weighted_io_time", "milliseconds", "Time requests were under way, each counted for itself.",
              "io_time_weighted_seconds_total"),
    _telegraf("iops_in_progress", "count", "Requests under way.", "io_now"),
    _telegraf("merged_reads", "count", "Reads merged with another before they were done.", "reads_merged_total"),
    _telegraf("merged_writes", "count", "Writes merged with another before they were done.", "writes_merged_total"),
    gauge("io_util", "percent", "Part of the time since the last reading in which requests were under way.",
          influx="io_util"),
    gauge("io_await", "milliseconds", "Time a request took since the last reading, waiting included.", type=float,
          influx="io_await"),
    gauge("io_svctm", "milliseconds", "Time the device was busy for each request since the last reading.", type=float,
          influx="io_svctm"),
), tags=("name",))  # fmt: skip


def _node(name: str, help: str, *, kind: Kind = "counter", unit: str = "count", scale: float = 1.0) -> Field:
    declare = counter if kind == "counter" else gauge
    return declare(name, unit, help, prom=f"node_disk_{name}", scale=scale)


def _node_ms(name: str, help: str) -> Field:
    return _node(name, help, unit="milliseconds", scale=0.001)


# In the order of the columns of /proc/diskstats.
NODE_DISK = Group("node_disk", (
    _node("reads_completed_total", "Reads done."),
    _node("reads_merged_total", "Reads merged with another before they were done."),
    _node("read_bytes_total", "Bytes read.", unit="bytes"),
    _node_ms("read_time_seconds_total", "Time all reads took, waiting included."),
    _node("writes_completed_total", "Writes done."),
    _node("writes_merged_total", "Writes merged with another before they were done."),
    _node("written_bytes_total", "Bytes written.", unit="bytes"),
    _node_ms("write_time_seconds_total", "Time all writes took, waiting included."),
    _node("io_now", "Requests under way.", kind="gauge"),
    _node_ms("io_time_seconds_total", "Time in which requests were under way."),
    _node_ms("io_time_weighted_seconds_total", "Time requests were under way, each counted for itself."),
    _node("discards_completed_total", "Discards done."),
    _node("discards_merged_total", "Discards merged with another before they were done."),
    _node("discarded_sectors_total", "Sectors of 512 bytes discarded."),
    _node_ms("discard_time_seconds_total", "Time all discards took, waiting included."),
    _node("flush_requests_total", "Flushes done."),
    _node_ms("flush_requests_time_seconds_total", "Time all flushes took."),
), tags=("device",))  # fmt: skip


def _info(measurement: str, help: str, *tags: str) -> Group:
    return Group(measurement, (gauge("info", "info", help, prom=f"node_{measurement}"),), tags=tags)


DISK_INFO = _info("disk_info", "What the device is, value always 1.", "device", "major", "minor", "model", "path",
                  "revision", "rotational", "serial", "wwn")  # fmt: skip
DISK_FILESYSTEM_INFO = _info("disk_filesystem_info", "The file system on the device, value always 1.",
                             "device", "type", "usage", "uuid", "version")  # fmt: skip
DISK_MAPPER_INFO = _info("disk_device_mapper_info", "The device-mapper volume behind the device, value always 1.",
                         "device", "lv_layer", "lv_name", "name", "uuid", "vg_name")  # fmt: skip
DISK_ATA = Group("disk_ata", (
    gauge("write_cache", "bool", "1 when the ATA disk has a write cache.", prom="node_disk_ata_write_cache"),
    gauge("write_cache_enabled", "bool", "1 when the write cache is on.", prom="node_disk_ata_write_cache_enabled"),
    gauge("rotation_rate", "rpm", "Revolutions per minute, 0 for an SSD.", prom="node_disk_ata_rotation_rate_rpm"),
), tags=("device",))  # fmt: skip


class Disk(NamedTuple):
    """One line of /proc/diskstats."""

    major: str
    minor: str
    name: str
    columns: tuple[int, ...]  # after the name: 11, 15 or 17 of them


def parse_diskstats(text: bytes) -> list[Disk]:
    """The block devices. Lines with fewer than 14 columns (partitions of Linux 2.6) are passed over.

    Raise SourceError when a counter is not a number.
    """
    disks = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < _LEAST_COLUMNS + 3:
            continue
        try:
            columns = tuple(map(int, words[3 : _MOST_COLUMNS + 3]))
        except ValueError as error:
            raise SourceError(f"/proc/diskstats: {line[:80]!r} is not a device and its counters") from error
        major, minor, name = (word.decode("utf-8", "replace") for word in words[:3])
        disks.append(Disk(major, minor, name, columns))
    return disks


def parse_udev(text: bytes) -> dict[str, str]:
    """The properties (`E:NAME=value`) of a file of /run/udev/data."""
    properties = {}
    for line in text.splitlines():
        if line.startswith(b"E:"):
            name, _, value = line[2:].decode("utf-8", "replace").partition("=")
            properties[name] = value
    return properties


@dataclass(slots=True)
class DiskIO:
    """Requests, bytes and times of block devices."""

    name: ClassVar[str] = "diskio"
    groups: ClassVar[tuple[Group, ...]] = (
        DISKIO, NODE_DISK, DISK_INFO, DISK_FILESYSTEM_INFO, DISK_MAPPER_INFO, DISK_ATA,
    )  # fmt: skip

    interval: Seconds = option(5.0, "Time between two readings.")
    device_exclude: str = option(DEFAULT_EXCLUDE, "Regular expression of the devices that node_disk_* leaves out.")
    info_interval: Seconds = option(30.0, "Time between two looks at what the devices are.")
    host: Host = field(default_factory=Host)
    _now: Callable[[], float] = time.monotonic
    _file: KeptFile = field(init=False)
    _last: dict[str, tuple[int, ...]] = field(init=False, default_factory=dict)
    _last_at: float = field(init=False, default=0.0)
    _shown: dict[str, bool] = field(init=False, default_factory=dict)
    _infos: list[Reading] = field(init=False, default_factory=list)
    _infos_until: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        compiled("device_exclude", self.device_exclude)
        self._file = KeptFile(self.host.proc("diskstats"))

    def collect(self) -> Iterator[Reading]:
        disks = {
            disk.name: disk for disk in parse_diskstats(self._file.read())
        }  # one row a name, whatever the file has
        now = self._now()
        if now >= self._infos_until or disks.keys() != self._shown.keys():
            exclude = compiled("device_exclude", self.device_exclude)
            self._shown = {name: not exclude.search(name) for name in disks}
            self._infos = [info for disk in disks.values() if self._shown[disk.name] for info in self._describe(disk)]
            self._infos_until = now + self.info_interval
        passed_ms = (now - self._last_at) * 1000.0
        last, self._last, self._last_at = self._last, {name: disk.columns for name, disk in disks.items()}, now
        for name, disk in disks.items():
            c = disk.columns
            if any(c):
                yield DISKIO.row((name,), (
                    c[0], c[4], c[2] * _SECTOR_BYTES, c[6] * _SECTOR_BYTES, c[3], c[7], c[9], c[10], c[8], c[1], c[5],
                    *_rates(last.get(name), c, passed_ms),
                ))  # fmt: skip
            if self._shown[name]:
                yield NODE_DISK.row((name,), (
                    c[0], c[1], c[2] * _SECTOR_BYTES, *c[3:6], c[6] * _SECTOR_BYTES, *c[7:],
                    *(None,) * (_MOST_COLUMNS - len(c)),
                ))  # fmt: skip
        yield from self._infos

    def _describe(self, disk: Disk) -> Iterator[Reading]:
        """Readings that say what the device is; udev may know nothing (containers, systems without udev)."""
        try:
            udev = parse_udev(read_file(self.host.file(f"/run/udev/data/b{disk.major}:{disk.minor}")))
        except (SourceError, ValueError):  # ValueError: a damaged diskstats gave a number with a NUL
            udev = {}
        get = udev.get
        rotational = read_text(self.host.sys(f"block/{disk.name}/queue/rotational")) or ""
        # The serial number printed on the disk first; virtio disks have ID_SERIAL alone.
        serial = get("SCSI_IDENT_SERIAL") or get("ID_SERIAL_SHORT") or get("ID_SERIAL", "")
        yield DISK_INFO.row((
            disk.name, disk.major, disk.minor, get("ID_MODEL", ""), get("ID_PATH", ""), get("ID_REVISION", ""),
            rotational, serial, get("ID_WWN", ""),
        ), (1,))  # fmt: skip
        if kind := get("ID_FS_TYPE"):
            about = (get(f"ID_FS_{key}", "") for key in ("USAGE", "UUID", "VERSION"))
            yield DISK_FILESYSTEM_INFO.row((disk.name, kind, *about), (1,))
        if get("DM_NAME"):
            about = (get(f"DM_{key}", "") for key in ("LV_LAYER", "LV_NAME", "NAME", "UUID", "VG_NAME"))
            yield DISK_MAPPER_INFO.row((disk.name, *about), (1,))
        if get("ID_ATA"):
            ata = ("ID_ATA_WRITE_CACHE", "ID_ATA_WRITE_CACHE_ENABLED", "ID_ATA_ROTATION_RATE_RPM")
            cache, is_on, rate = (_number(get(key, "")) for key in ata)
            yield DISK_ATA.row((disk.name,), (cache, is_on, None if rate is None else float(rate)))

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()


def _rates(last: tuple[int, ...] | None, now: tuple[int, ...], passed_ms: float) -> tuple[float | None, ...]:
    """io_util, io_await and io_svctm between two readings; None without an earlier reading, after a reset, idle."""
    if last is None:
        return None, None, None
    reads, writes = now[0] - last[0], now[4] - last[4]
    read_ms, write_ms, busy_ms = now[3] - last[3], now[7] - last[7], now[9] - last[9]
    if min(reads, writes, read_ms, write_ms, busy_ms) < 0:
        return None, None, None
    util = 100.0 * busy_ms / passed_ms if passed_ms > 0 else None
    if not (requests := reads + writes):
        return util, None, None
    return util, (read_ms + write_ms) / requests, busy_ms / requests


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
