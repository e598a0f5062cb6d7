"""Against the real node_exporter on the same machine: the same names, types, labels and values.

Its exceptions are tables below, each with the reason; whatever else differs fails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.config.tables import COLLECTORS
from agent.core.errors import SourceError
from agent.core.labels import Labels, labels_of, show
from agent.core.model import Reading, Tick
from collectors.disk import DEFAULT_FS_TYPES_EXCLUDE, DEFAULT_MOUNT_POINTS_EXCLUDE
from collectors.diskio import DEFAULT_EXCLUDE
from sinks.prometheus import Exposition
from tests.servers import promtool
from tests.servers.node_exporter import NodeExporter
from tests.servers.process import wait_until
from tests.servers.programs import need
from tests.servers.vigilhost import Vigilhost

LEAST_COVERAGE = 0.95

# Distributions patch the exporter's filters; upstream's are set here. Collectors of hardware and file systems that have
# no counterpart are off, so that the coverage does not depend on which of them the machine happens to have.
FLAGS = (
    "--collector.processes", "--collector.systemd", "--collector.interrupts", "--collector.tcpstat",
    f"--collector.diskstats.device-exclude={DEFAULT_EXCLUDE}",
    f"--collector.filesystem.mount-points-exclude={DEFAULT_MOUNT_POINTS_EXCLUDE}",
    f"--collector.filesystem.fs-types-exclude={DEFAULT_FS_TYPES_EXCLUDE}",
    "--collector.netdev.device-exclude=^$",
    *(f"--no-collector.{name}" for name in (
        "bcache", "btrfs", "fibrechannel", "infiniband", "ipvs", "nfs", "nfsd", "rapl", "tapestats", "xfs", "zfs",
    )),
)  # fmt: skip

# Names of the exporter that /metrics with default options lacks.
NOT_CARRIED = {
    "node_exporter_build_info": "the exporter's own version; ours is vigilhost_build_info",
    "node_processes_threads_state": "off by default: it reads every thread; `thread_states: true` gives it",
    "node_selinux_enabled": "not among our collectors",
}

# Labels that releases after 1.5 have and we carry; compared as if we did not.
NEWER_LABELS = {
    "node_disk_info": {"rotational"},
    "node_network_info": {"adminstate"},
    "node_filesystem_.*": {"device_error"},
}

# Series that one side has and the other need not have.
SERIES_MAY_DIFFER = {
    "node_tcp_connection_states": "the exporter leaves out states that no socket is in",
    "node_processes_state": "both leave out states that no process was in yet; a state may last for a moment",
    "node_processes_threads_state": "as node_processes_state",
    "node_interrupts_total": "ours leaves out zeros where a host has more series than `max_series`",
}

# Values that the act of looking changes, or that move both ways within a scrape: how far apart they may be.
MOVING: Mapping[str, tuple[float, float]] = {  # name: (absolute, share of the value); the first that matches counts
    "node_time_seconds": (5, 0),
    "node_load.*": (1, 0.2),
    "node_procs_(running|blocked)": (50, 0),
    "node_processes_(pids|threads|state|threads_state)": (50, 0.2),
    "node_tcp_connection_states": (500, 0.2),  # counts, and bytes that wait
    "node_sockstat_(TCP_mem_bytes|UDP_mem_bytes|FRAG6?_memory)": (1 << 20, 0.2),
    "node_sockstat_.*|node_netstat_Tcp_CurrEstab": (50, 0.2),
    "node_filefd_allocated": (500, 0.2),
    "node_memory_(Dirty|Writeback|WritebackTmp)_bytes": (256 << 20, 0),
    "node_memory_.*_bytes": (1 << 20, 0.1),
    "node_filesystem_(free|avail)_bytes": (64 << 20, 0.01),
    "node_filesystem_files_free": (1000, 0.01),
    "node_disk_io_now|node_softnet_backlog_len": (100, 0),
    "node_udp_queues": (1 << 20, 0),
    "node_arp_entries": (20, 0.2),
    "node_timex_(offset|maxerror|estimated_error)_seconds": (1, 0),
    "node_timex_frequency_adjustment_ratio": (1e-4, 0),
    "node_entropy_available_bits": (256, 0),
    "node_nf_conntrack_entries": (500, 0.2),
    "node_hwmon_.*|node_thermal_zone_temp": (5, 0.5),
    "node_cpu_(scaling_)?frequency_hertz": (0, 0.9),
    "node_power_supply_.*": (0, 0.1),
    "node_cooling_device_cur_state": (20, 0),
}

# promtool dislikes names the kernel gives; these are only in exporters after 1.5, so it cannot say the same of 1.5.
NEWER_KERNEL_NAMES = {"node_netstat_TcpExt_TCPOFOQueue", "node_netstat_TcpExt_TCPRcvQDrop"}

Series = tuple[str, Labels]
T = TypeVar("T")


@dataclass(slots=True)
class Page:
    """One scrape."""

    types: dict[str, str] = field(default_factory=dict)  # by the name of the samples
    values: dict[Series, float] = field(default_factory=dict)

    def series_of(self, name: str) -> set[Labels]:
        return {labels for found, labels in self.values if found == name}

    def names(self) -> set[str]:
        return {name for name in self.types if name.startswith("node_")}


def parse(text: str) -> Page:
    page = Page()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            page.types[sample.name] = family.type
            page.values[sample.name, _comparable(sample.name, sample.labels)] = sample.value
    return page


def _comparable(name: str, labels: Mapping[str, str]) -> Labels:
    """An empty label and an absent one are the same to Prometheus."""
    newer = {label for pattern, names in NEWER_LABELS.items() if re.fullmatch(pattern, name) for label in names}
    return labels_of((label, value) for label, value in labels.items() if label not in newer)


@pytest.fixture(scope="module")
def textfiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("textfile")
    (directory / "job.prom").write_text('# TYPE job_ok gauge\njob_ok{job="nightly \\"full\\""} 1\njob_runs 41\n')
    return directory


@pytest.fixture(scope="module")
def exporter(textfiles: Path) -> Iterator[NodeExporter]:
    need("node_exporter")
    with NodeExporter([*FLAGS, f"--collector.textfile.directory={textfiles}"]) as server:
        yield server


@pytest.fixture(scope="module")
def agent(exporter: NodeExporter, textfiles: Path) -> Iterator[Vigilhost]:
    """With its defaults, but for where the text files are."""
    config = f'log: {{level: warning}}\ncollectors: {{textfile: {{directory: "{textfiles}"}}}}\n'
    with Vigilhost(config) as server:
        yield server


def ours(textfiles: Path) -> str:
    """/metrics of all default collectors, read now by collectors made anew, so that none shows what it kept."""
    options: dict[str, dict[str, Any]] = {
        "processes": {"thread_states": True, "top": 0},
        "textfile": {"directory": str(textfiles)},
    }
    ticks = []
    for name in COLLECTORS.on_by_default:
        collector = COLLECTORS.find(name)(**options.get(name, {}))
        try:
            readings = [item for item in collector.collect() if isinstance(item, Reading)]
        except SourceError:
            continue  # this machine has nothing of the kind
        finally:
            getattr(collector, "close", lambda: None)()
        ticks.append(Tick(0, name, readings))
    return Exposition().render(ticks)


def test_the_agent_carries_the_exporters_names(
    exporter: NodeExporter, agent: Vigilhost, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = parse(exporter.metrics()).names()

    def missing() -> set[str]:
        return wanted - parse(agent.metrics()).names()

    try:
        wait_until(lambda: missing() <= NOT_CARRIED.keys(), "every collector's first readings", 20, every=0.2)
    finally:
        left = missing()
        with capsys.disabled():
            share = 1 - len(left) / len(wanted)
            print(
                f"\nnode_exporter's names on /metrics: {share:.1%} of {len(wanted)}; without {', '.join(sorted(left))}"
            )
    assert len(left) <= (1 - LEAST_COVERAGE) * len(wanted)


def test_types_and_label_sets_are_the_exporters(exporter: NodeExporter, textfiles: Path) -> None:
    def differences() -> set[str]:
        theirs, mine = parse(exporter.metrics()), parse(ours(textfiles))
        common = theirs.types.keys() & mine.types.keys()
        found = {f"{name}: {theirs.types[name]} there, {mine.types[name]} here"
                 for name in common if theirs.types[name] != mine.types[name]}  # fmt: skip
        absent = theirs.names() - mine.names() - NOT_CARRIED.keys()
        found |= {f"{name}: only there" for name in absent if not name.startswith("node_scrape_")}  # the agent's part
        for name in common:
            if not _listed(name, SERIES_MAY_DIFFER):
                there, here = theirs.series_of(name), mine.series_of(name)
                found |= {f"{name}{show(labels)}: only there" for labels in there - here}
                found |= {f"{name}{show(labels)}: only here" for labels in here - there}
        return found

    assert lasting(differences) == set()


def test_values_of_the_same_moment_are_the_exporters(exporter: NodeExporter, textfiles: Path) -> None:
    def differences() -> set[Series]:
        before, theirs, after = (parse(text) for text in (ours(textfiles), exporter.metrics(), ours(textfiles)))
        common = before.values.keys() & theirs.values.keys() & after.values.keys()
        assert len(common) > 300
        return {one for one in common if not agrees(one[0], before.values[one], theirs.values[one], after.values[one])}

    assert lasting(differences) == set()


def agrees(name: str, before: float, theirs: float, after: float) -> bool:
    """What the exporter read between our two readings lies between them, or near where it may move both ways."""
    low, high = min(before, after), max(before, after)
    absolute, share = next((bounds for pattern, bounds in MOVING.items() if re.fullmatch(pattern, name)), (0.0, 1e-9))
    slack = absolute + share * max(abs(low), abs(high))
    return low - slack <= theirs <= high + slack


def lasting(differences: Callable[[], set[T]]) -> set[T]:
    """The differences that every round finds: what lasts is a fault, what does not is the host at work."""
    found = differences()
    until = time.monotonic() + 10
    while found and time.monotonic() < until:
        found &= differences()
    return found


def _listed(name: str, patterns: Mapping[str, object]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def disliked(page: str, reference: str) -> list[str]:
    """What promtool says of a page that it does not say of the reference in the same words."""
    accepted = set(promtool.check_metrics(reference))
    problems = (problem for problem in promtool.check_metrics(page) if problem not in accepted)
    return [problem for problem in problems if problem.split()[0] not in NEWER_KERNEL_NAMES]


@pytest.mark.usefixtures("promtool")
def test_promtool_dislikes_nothing_that_it_likes_in_the_exporter(exporter: NodeExporter, textfiles: Path) -> None:
    assert disliked(ours(textfiles), exporter.metrics()) == []


@pytest.mark.usefixtures("promtool")
def test_promtool_likes_the_page_of_the_agent_too(exporter: NodeExporter, agent: Vigilhost) -> None:
    wait_until(lambda: "vigilhost_collector_" in agent.metrics(), "the agent's readings of itself", 20, every=0.2)
    assert disliked(agent.metrics(), exporter.metrics()) == []
