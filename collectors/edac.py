"""Memory errors that the hardware corrected or could not correct, from /sys/devices/system/edac/mc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceMissing
from agent.core.host import Host
from agent.core.model import Group, Reading, counter
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, list_names, read_int, read_text

EDAC = Group("edac", (
    counter("correctable", "count", "Memory errors corrected.", prom="node_edac_correctable_errors_total"),
    counter("uncorrectable", "count", "Memory errors that could not be corrected.",
            prom="node_edac_uncorrectable_errors_total"),
), tags=("controller",))  # fmt: skip

EDAC_CSROW = Group("edac_csrow", (
    counter("correctable", "count", "Memory errors corrected, by row.",
            prom="node_edac_csrow_correctable_errors_total"),
    counter("uncorrectable", "count", "Memory errors that could not be corrected, by row.",
            prom="node_edac_csrow_uncorrectable_errors_total"),
), tags=("controller", "csrow"))  # fmt: skip

EDAC_CHANNEL = Group("edac_channel", (
    counter("correctable", "count", "Memory errors corrected, by channel.",
            prom="node_edac_channel_correctable_errors_total"),
    counter("uncorrectable", "count", "Memory errors that could not be corrected, by channel.",
            prom="node_edac_channel_uncorrectable_errors_total"),
), tags=("channel", "controller", "csrow", "dimm_label"))  # fmt: skip

_CONTROLLER = re.compile(r"mc(\d+)")
_CSROW = re.compile(r"csrow(\d+)")
_CHANNEL = re.compile(r"ch(\d+)_ce_count")


@dataclass(slots=True)
class Edac:
    """Memory errors by controller, row and channel."""

    name: ClassVar[str] = "edac"
    groups: ClassVar[tuple[Group, ...]] = (EDAC, EDAC_CSROW, EDAC_CHANNEL)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        root = self.host.sys("devices/system/edac/mc")
        controllers = [match for entry in list_names(root) if (match := _CONTROLLER.fullmatch(entry))]
        if not controllers:
            raise SourceMissing(f"{root}: no memory controllers that report errors")
        for match in controllers:
            yield from _read_controller(f"{root}/{match[0]}", match[1])


def _read_controller(path: str, controller: str) -> Iterator[Reading]:
    yield EDAC.row((controller,), (read_int(f"{path}/ce_count"), read_int(f"{path}/ue_count")))
    # Errors the hardware could not place; node_exporter files them under the row "unknown".
    yield EDAC_CSROW.row(
        (controller, "unknown"), (read_int(f"{path}/ce_noinfo_count"), read_int(f"{path}/ue_noinfo_count"))
    )
    for row in map(_CSROW.fullmatch, list_names(path)):
        if row is None:
            continue
        csrow = f"{path}/{row[0]}"
        yield EDAC_CSROW.row((controller, row[1]), (read_int(f"{csrow}/ce_count"), read_int(f"{csrow}/ue_count")))
        for channel in map(_CHANNEL.fullmatch, list_names(csrow)):
            if channel is not None:
                yield _read_channel(csrow, channel[1], controller, row[1])


def _read_channel(csrow: str, channel: str, controller: str, row: str) -> Reading:
    label = read_text(f"{csrow}/ch{channel}_dimm_label") or "unknown"
    label = as_text(label).replace("#", "").replace("csrow", "_csrow").replace("channel", "_channel")
    return EDAC_CHANNEL.row(
        (channel, controller, row, label),
        (read_int(f"{csrow}/ch{channel}_ce_count"), read_int(f"{csrow}/ch{channel}_ue_count")),
    )
