"""NVMe controllers and their namespaces, from /sys/class/nvme."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.host import Host
from agent.core.model import Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import as_text, list_names, list_some, read_int, read_text

NVME_INFO = Group("nvme_info", (
    gauge("info", "info", "Attributes of the controller that are not numbers, value always 1.", prom="node_nvme_info"),
), tags=("cntlid", "device", "firmware_revision", "model", "serial", "state"))  # fmt: skip

NVME_NAMESPACE_INFO = Group("nvme_namespace_info", (
    gauge("info", "info", "Access state of the namespace, value always 1.", prom="node_nvme_namespace_info"),
), tags=("ana_state", "device", "nsid"))  # fmt: skip

NVME_NAMESPACE = Group("nvme_namespace", (
    gauge("capacity", "bytes", "Space the namespace can hold.", prom="node_nvme_namespace_capacity_bytes"),
    gauge("size", "bytes", "Size of the namespace.", prom="node_nvme_namespace_size_bytes"),
    gauge("used", "bytes", "Space the namespace uses on the drive.", prom="node_nvme_namespace_used_bytes"),
    gauge("logical_block_size", "bytes", "Size of a block.", prom="node_nvme_namespace_logical_block_size_bytes"),
), tags=("device", "nsid"))  # fmt: skip

_SECTOR_BYTES = 512  # `size` counts these, whatever the size of the drive's blocks
_NAMESPACE = re.compile(r"nvme\d+(?:c\d+)?n(\d+)")


@dataclass(slots=True)
class NVMe:
    """NVMe controllers, and size and use of their namespaces."""

    name: ClassVar[str] = "nvme"
    groups: ClassVar[tuple[Group, ...]] = (NVME_INFO, NVME_NAMESPACE_INFO, NVME_NAMESPACE)

    interval: Seconds = option(30.0, "Time between two readings.")
    host: Host = field(default_factory=Host)

    def collect(self) -> Iterator[Reading]:
        root = self.host.sys("class/nvme")
        for entry in list_some(root, "no NVMe controllers"):
            path, device = f"{root}/{entry}", as_text(entry)
            cntlid, firmware, model, serial, state = (
                read_text(f"{path}/{attribute}") or ""
                for attribute in ("cntlid", "firmware_rev", "model", "serial", "state")
            )
            yield NVME_INFO.row((cntlid, device, firmware, model, serial, state), (1,))
            for name in list_names(path):
                if match := _NAMESPACE.fullmatch(name):
                    yield from _read_namespace(f"{path}/{name}", device, match[1])


def _read_namespace(path: str, device: str, nsid: str) -> Iterator[Reading]:
    block = read_int(f"{path}/queue/logical_block_size")
    sectors, used_blocks = read_int(f"{path}/size"), read_int(f"{path}/nuse")
    yield NVME_NAMESPACE_INFO.row((read_text(f"{path}/ana_state") or "", device, nsid), (1,))
    size = None if sectors is None else sectors * _SECTOR_BYTES
    used = None if used_blocks is None or block is None else used_blocks * block
    yield NVME_NAMESPACE.row((device, nsid), (size, size, used, block))
