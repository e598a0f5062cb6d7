from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.edac import Edac
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def test_errors_by_controller_row_and_channel() -> None:
    items = readings(Edac(host=fixed_host("big")).collect())
    assert items[:6] == [
        ("edac", ("0",), {"correctable": 3, "uncorrectable": 0}),
        ("edac_csrow", ("0", "unknown"), {"correctable": 2, "uncorrectable": 0}),
        ("edac_csrow", ("0", "0"), {"correctable": 0, "uncorrectable": 0}),
        ("edac_channel", ("0", "0", "0", "mc0_csrow0_channel0"), {"correctable": 1, "uncorrectable": 0}),
        ("edac_csrow", ("0", "1"), {"correctable": 1, "uncorrectable": 0}),
        ("edac_channel", ("1", "0", "1", "unknown"), {"correctable": 0}),
    ]
    assert items[6] == ("edac", ("1",), {"correctable": 4, "uncorrectable": 1})


def test_a_new_error_shows(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write("sys/devices/system/edac/mc/mc0/ce_count", "0\n")
    collector = Edac(host=tree.host)
    assert readings(collector.collect())[0][2] == {"correctable": 0}
    tree.write("sys/devices/system/edac/mc/mc0/ce_count", "1\n")
    assert readings(collector.collect())[0][2] == {"correctable": 1}


def test_a_host_without_error_reporting_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="edac/mc: no such file"):
        list(Edac(host=Host(sys_root=str(tmp_path))).collect())
    (tmp_path / "devices/system/edac/mc/power").mkdir(parents=True)
    with pytest.raises(SourceMissing, match="no memory controllers"):
        list(Edac(host=Host(sys_root=str(tmp_path))).collect())
