from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.nvme import NVMe
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def test_controllers_and_namespaces() -> None:
    items = readings(NVMe(host=fixed_host("big")).collect())
    assert items[:3] == [
        ("nvme_info", ("1", "nvme0", "1B2QEXP7", "DEMO NVMe 970 PRO 512GB", "SN0000000000", "live"), {"info": 1}),
        ("nvme_namespace_info", ("optimized", "nvme0", "1"), {"info": 1}),
        (
            "nvme_namespace", ("nvme0", "1"),
            {"capacity": 512110190592, "size": 512110190592, "used": 48123456 * 512, "logical_block_size": 512},
        ),
    ]  # fmt: skip
    # The size counts sectors of 512 bytes whatever a block is; what is used counts blocks.
    assert items[5][2] == {
        "capacity": 512110190592, "size": 512110190592, "used": 48123456 * 4096, "logical_block_size": 4096,
    }  # fmt: skip


def test_a_drive_without_multipath_and_with_unreadable_parts(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write("sys/class/nvme/nvme3/nvme3n2/size", "8\n")
    tree.write("sys/class/nvme/nvme3/model", b'\xff"\n')
    assert readings(NVMe(host=tree.host).collect()) == [
        ("nvme_info", ("", "nvme3", "", '\ufffd"', "", ""), {"info": 1}),
        ("nvme_namespace_info", ("", "nvme3", "2"), {"info": 1}),
        ("nvme_namespace", ("nvme3", "2"), {"capacity": 4096, "size": 4096}),
    ]


def test_a_host_without_drives_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="class/nvme: no such file"):
        list(NVMe(host=Host(sys_root=str(tmp_path))).collect())
    (tmp_path / "class/nvme").mkdir(parents=True)
    with pytest.raises(SourceMissing, match="no NVMe controllers"):
        list(NVMe(host=Host(sys_root=str(tmp_path))).collect())
