"""Clock frequency, governor, throttling and isolation of each CPU, from /sys/devices/system/cpu.

Reading the current frequency may interrupt the CPU it belongs to, hence the long default interval.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import read_attribute, read_int, read_text

_KHZ = 1000.0

# Fields are named after their file in cpuN/cpufreq; the kernel writes kHz.
FREQUENCY = Group("cpu_frequency", (
    gauge("scaling_cur_freq", "hertz", "Frequency the governor asked for.",
          prom="node_cpu_scaling_frequency_hertz"),
    gauge("scaling_min_freq", "hertz", "Lowest frequency the governor may ask for.",
          prom="node_cpu_scaling_frequency_min_hertz"),
    gauge("scaling_max_freq", "hertz", "Highest frequency the governor may ask for.",
          prom="node_cpu_scaling_frequency_max_hertz"),
    gauge("cpuinfo_cur_freq", "hertz", "Frequency the hardware reports.", prom="node_cpu_frequency_hertz"),
    gauge("cpuinfo_min_freq", "hertz", "Lowest frequency of the hardware.", prom="node_cpu_frequency_min_hertz"),
    gauge("cpuinfo_max_freq", "hertz", "Highest frequency of the hardware.", prom="node_cpu_frequency_max_hertz"),
), tags=("cpu",))  # fmt: skip

GOVERNOR = Group("cpu_governor", (
    gauge("active", "bool", "1 for the governor in use, 0 for those that could be.",
          prom="node_cpu_scaling_governor"),
), tags=("cpu", "governor"))  # fmt: skip

CORE_THROTTLES = Group("cpu_core_throttles", (
    counter("count", "count", "Times the core was slowed down because it was hot.",
            prom="node_cpu_core_throttles_total"),
), tags=("core", "package"))  # fmt: skip

PACKAGE_THROTTLES = Group("cpu_package_throttles", (
    counter("count", "count", "Times the package was slowed down because it was hot.",
            prom="node_cpu_package_throttles_total"),
), tags=("package",))  # fmt: skip

ISOLATED = Group("cpu_isolated", (
    gauge("isolated", "info", "CPUs kept away from the scheduler; always 1.", prom="node_cpu_isolated"),
), tags=("cpu",))  # fmt: skip

_INFO_LINES = {
    "cachesize": "cache size", "core": "core id", "cpu": "processor", "family": "cpu family", "microcode": "microcode",
    "model": "model", "model_name": "model name", "package": "physical id", "stepping": "stepping",
    "vendor": "vendor_id",
}  # fmt: skip

INFO = Group("cpu_info", (
    gauge("info", "info", "Make of each CPU, from /proc/cpuinfo; always 1.", prom="node_cpu_info"),
), tags=tuple(_INFO_LINES))  # fmt: skip


class Place(NamedTuple):
    """Where a CPU is: its directory, and its package and core where the hardware tells."""

    cpu: str
    path: str
    package: str | None
    core: str | None


def parse_cpu_list(text: bytes) -> list[str]:
    """CPU numbers of a list like `1-3,8`; empty when it is empty or no list."""
    cpus: list[str] = []
    for part in text.strip().split(b","):
        match = re.fullmatch(rb"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None:
            return []
        cpus += map(str, range(int(match[1]), int(match[2] or match[1]) + 1))
    return cpus


def parse_cpuinfo(text: bytes) -> list[tuple[str, ...]]:
    """Tags of INFO for each processor of /proc/cpuinfo; a line it lacks is empty."""
    found = []
    for block in text.decode("utf-8", "replace").split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        lines = {key.strip(): value.strip() for key, _, value in pairs}
        if lines.get("processor"):
            found.append(tuple(lines.get(line, "") for line in _INFO_LINES.values()))
    return found


@dataclass(slots=True)
class Cpufreq:
    """Frequency, governor and heat throttling of the CPUs."""

    name: ClassVar[str] = "cpufreq"
    groups: ClassVar[tuple[Group, ...]] = (FREQUENCY, GOVERNOR, CORE_THROTTLES, PACKAGE_THROTTLES, ISOLATED, INFO)

    interval: Seconds = option(30.0, "Time between two readings.")
    info: bool = option(False, "Make, model and microcode of each CPU as well.")
    host: Host = field(default_factory=Host)
    _online: bytes | None = field(default=None, init=False)
    _places: list[Place] = field(default_factory=list, init=False)

    def collect(self) -> Iterator[Reading]:
        found = [*self._read_frequencies(), *self._read_throttles(), *self._read_isolated(), *self._read_info()]
        if not found:
            raise SourceMissing(f"{self.host.sys('devices/system/cpu')}: no frequency scaling and no throttle counter")
        yield from found

    def _cpus(self) -> list[Place]:
        """Places of the CPUs, looked up again when one comes or goes."""
        online = read_attribute(self.host.sys("devices/system/cpu/online"))
        if online is None or online != self._online:
            self._online = online
            start = self.host.sys("devices/system/cpu/cpu")
            numbers = (path[len(start) :] for path in glob.glob(f"{glob.escape(start)}[0-9]*"))
            self._places = [
                Place(
                    n, start + n, _id(f"{start}{n}/topology/physical_package_id"), _id(f"{start}{n}/topology/core_id")
                )
                for n in sorted(filter(str.isdecimal, numbers), key=int)
            ]
        return self._places

    def _read_frequencies(self) -> Iterator[Reading]:
        for cpu, path, *_ in self._cpus():
            directory = f"{path}/cpufreq"
            if not os.path.isdir(directory):
                continue
            kilohertz = [read_int(f"{directory}/{file}") for file in FREQUENCY.names]
            if any(value is not None for value in kilohertz):
                yield FREQUENCY.row((cpu,), tuple(value if value is None else value * _KHZ for value in kilohertz))
            governor = _words(f"{directory}/scaling_governor")[:1]
            for name in dict.fromkeys(governor and [*_words(f"{directory}/scaling_available_governors"), *governor]):
                yield GOVERNOR.row((cpu, name), (int([name] == governor),))

    def _read_throttles(self) -> Iterator[Reading]:
        """Hyper-threads share the counters of their core, cores those of their package: the first CPU speaks."""
        cores, packages = set(), set()
        for _, path, package, core in self._cpus():
            if package is None or core is None or not os.path.isdir(f"{path}/thermal_throttle"):
                continue
            if (package, core) not in cores:
                cores.add((package, core))
                count = read_int(f"{path}/thermal_throttle/core_throttle_count")
                if count is not None:
                    yield CORE_THROTTLES.row((core, package), (count,))
            if package not in packages:
                packages.add(package)
                count = read_int(f"{path}/thermal_throttle/package_throttle_count")
                if count is not None:
                    yield PACKAGE_THROTTLES.row((package,), (count,))

    def _read_isolated(self) -> Iterator[Reading]:
        for cpu in parse_cpu_list(read_attribute(self.host.sys("devices/system/cpu/isolated")) or b""):
            yield ISOLATED.row((cpu,), (1,))

    def _read_info(self) -> Iterator[Reading]:
        if self.info:
            for tags in dict.fromkeys(parse_cpuinfo(_file(self.host.proc("cpuinfo")))):
                yield INFO.row(tags, (1,))


def _id(path: str) -> str | None:
    """A topology number as a label; None when the machine does not know it and says -1."""
    number = read_int(path)
    return None if number is None or number < 0 else str(number)


def _words(path: str) -> list[str]:
    return (read_text(path) or "").split()


def _file(path: str) -> bytes:
    try:
        return read_file(path)
    except SourceError:
        return b""
