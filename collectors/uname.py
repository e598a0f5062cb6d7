"""What the host is: kernel, distribution and hardware, as labels of series that are always 1."""

from __future__ import annotations

import calendar
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import read_text

UNAME = Group("uname", (
    gauge("info", "info", "Kernel and name of the host; always 1.", prom="node_uname_info"),
), tags=("domainname", "machine", "nodename", "release", "sysname", "version"))  # fmt: skip

_OS_KEYS = ("build_id", "id", "id_like", "image_id", "image_version", "name", "pretty_name", "variant", "variant_id",
            "version", "version_codename", "version_id")  # fmt: skip

OS = Group("os", (
    gauge("info", "info", "Distribution, from os-release; always 1.", prom="node_os_info"),
), tags=_OS_KEYS)  # fmt: skip

OS_VERSION = Group("os_version", (
    gauge("version", "value", "First two parts of the distribution's version.", prom="node_os_version"),
), tags=("id", "id_like", "name"))  # fmt: skip

OS_SUPPORT = Group("os_support", (
    gauge("end", "seconds", "Unix time at which the distribution's support ends.", type=int,
          prom="node_os_support_end_timestamp_seconds"),
))  # fmt: skip

_DMI_KEYS = (
    "bios_date", "bios_release", "bios_vendor", "bios_version",
    "board_asset_tag", "board_name", "board_serial", "board_vendor", "board_version",
    "chassis_asset_tag", "chassis_serial", "chassis_vendor", "chassis_version",
    "product_family", "product_name", "product_serial", "product_sku", "product_uuid", "product_version",
    "system_vendor",
)  # fmt: skip

DMI = Group("dmi", (
    gauge("info", "info", "Hardware, as its firmware describes it; always 1.", prom="node_dmi_info"),
), tags=_DMI_KEYS)  # fmt: skip


# A value as a shell would take it: in double quotes, in single quotes, or one bare word.
_ASSIGNMENT = re.compile(r"""([A-Z0-9_]+)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"']*))\s*""")


def parse_os_release(text: bytes) -> dict[str, str]:
    """Assignments of an os-release file, keys in lower case; a line that no shell would take is left out."""
    values = {}
    for line in text.decode("utf-8", "replace").splitlines():
        if match := _ASSIGNMENT.fullmatch(line.strip()):
            key, double, single, bare = match.groups()
            values[key.lower()] = re.sub(r"\\([$`\"\\])", r"\1", double) if double else single or bare or ""
    return values


def parse_version(version_id: str) -> float | None:
    """`22.04` as 22.04, `10.2.1` as 10.2; None when it does not start with a number above zero."""
    match = re.match(r"[0-9]{1,9}(\.[0-9]{0,9})?", version_id)
    return (float(match[0]) or None) if match else None


def parse_day(day: str) -> int | None:
    """Unix time of `2028-06-30`; None when it is no such day."""
    try:
        return calendar.timegm(time.strptime(day, "%Y-%m-%d"))
    except ValueError:
        return None


@dataclass(slots=True)
class Uname:
    """Kernel, distribution and hardware of the host."""

    name: ClassVar[str] = "os"
    groups: ClassVar[tuple[Group, ...]] = (UNAME, OS, OS_VERSION, OS_SUPPORT, DMI)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)
    _dmi: tuple[str, ...] | None = field(default=None, init=False)  # cannot change before the next boot

    def collect(self) -> Iterator[Reading]:
        found = [*self._read_uname(), *self._read_os_release(), *self._read_dmi()]
        if not found:
            raise SourceMissing(f"{self.host.proc('sys/kernel')}, os-release and DMI: none of them can be read")
        yield from found

    def _read_uname(self) -> Iterator[Reading]:
        def kernel(name: str) -> str | None:
            return read_text(self.host.proc(f"sys/kernel/{name}"))

        system, node, release = kernel("ostype"), kernel("hostname"), kernel("osrelease")
        if system is not None and node is not None and release is not None:
            # Kernels before 6.1 do not tell their architecture in a file.
            machine = kernel("arch") or os.uname().machine
            domain = kernel("domainname") or "(none)"
            yield UNAME.row((domain, machine, node, release, system, kernel("version") or ""), (1,))

    def _read_os_release(self) -> Iterator[Reading]:
        for path in ("/etc/os-release", "/usr/lib/os-release"):
            try:
                release = parse_os_release(read_file(self.host.file(path)))
            except SourceError:
                continue
            tags = {key: release.get(key, "") for key in _OS_KEYS}
            yield OS.row(tuple(tags.values()), (1,))
            if version := parse_version(tags["version_id"]):
                yield OS_VERSION.row((tags["id"], tags["id_like"], tags["name"]), (version,))
            if end := parse_day(release.get("support_end", "")):
                yield OS_SUPPORT.row((), (end,))
            return

    def _read_dmi(self) -> Iterator[Reading]:
        """Nothing on a machine without DMI; serial numbers are for root only and then empty."""
        if self._dmi is None:
            files = (key.replace("system_vendor", "sys_vendor") for key in _DMI_KEYS)
            self._dmi = tuple(read_text(self.host.sys(f"class/dmi/id/{file}")) or "" for file in files)
        if any(self._dmi):
            yield DMI.row(self._dmi, (1,))
