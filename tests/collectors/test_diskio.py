from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.diskio import NODE_DISK, DiskIO, parse_diskstats, parse_udev
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def rows(collector: DiskIO, measurement: str) -> dict[str, dict[str, Value]]:
    return {tags[0]: values for name, tags, values in readings(collector.collect()) if name == measurement}


def disk(numbers: str) -> str:
    return f" 254 0 vda {numbers}\n"


def test_every_column_lands_in_its_field(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    tree.write("proc/diskstats", disk(" ".join(map(str, range(1, 18)))))
    collector = DiskIO(host=tree.host)
    assert rows(collector, "diskio")["vda"] == {
        "reads": 1, "merged_reads": 2, "read_bytes": 3 * 512, "read_time": 4,
        "writes": 5, "merged_writes": 6, "write_bytes": 7 * 512, "write_time": 8,
        "iops_in_progress": 9, "io_time": 10, "weighted_io_time": 11,
    }  # fmt: skip
    node = rows(collector, "node_disk")["vda"]
    assert list(node.values()) == [1, 2, 3 * 512, 4, 5, 6, 7 * 512, *range(8, 18)]
    assert [field.prom for field in NODE_DISK.fields if field.scale == 0.001] == [
        f"node_disk_{name}_seconds_total"
        for name in ("read_time", "write_time", "io_time", "io_time_weighted", "discard_time", "flush_requests_time")
    ]


@pytest.mark.parametrize(
    ("columns", "present", "absent"),
    [
        (11, "io_time_weighted_seconds_total", "discards_completed_total"),
        (15, "discard_time_seconds_total", "flush_requests_total"),
    ],
)
def test_columns_an_older_kernel_lacks_are_absent(tmp_path: Path, columns: int, present: str, absent: str) -> None:
    tree = HostTree("small", tmp_path)
    tree.write("proc/diskstats", disk(" ".join(["1"] * columns)))
    node = rows(DiskIO(host=tree.host), "node_disk")["vda"]
    assert present in node
    assert absent not in node


def test_telegraf_has_what_was_used_and_node_exporter_what_its_filter_lets_through() -> None:
    collector = DiskIO(host=fixed_host("small"))
    assert set(rows(collector, "diskio")) == {"vda", "vda1", "vda14"}
    assert set(rows(collector, "node_disk")) == {"vda"}
    everything = DiskIO(device_exclude="^$", host=fixed_host("big"))
    assert len(rows(everything, "node_disk")) == 40 + 4 + 4 + 3 + 2


@pytest.mark.parametrize(
    ("later", "rates", "why"),
    [
        ("10 0 0 40 10 0 0 60 0 2500 0", {"io_util": 50.0, "io_await": 5.0, "io_svctm": 125.0}, "20 requests in 5 s"),
        ("0 0 0 0 0 0 0 0 3 500 0", {"io_util": 10.0}, "a request under way, none done"),
    ],
)
def test_rates_between_two_readings(tmp_path: Path, later: str, rates: dict[str, float], why: str) -> None:
    tree, now = HostTree("small", tmp_path), [100.0]
    collector = DiskIO(host=tree.host, _now=lambda: now[0])
    base = [1000] * 11
    tree.write("proc/diskstats", disk(" ".join(map(str, base))))
    assert "io_util" not in rows(collector, "diskio")["vda"], "the first reading has no earlier one"
    now[0] = 105.0
    grown = [old + int(more) for old, more in zip(base, later.split(), strict=True)]
    tree.write("proc/diskstats", disk(" ".join(map(str, grown))))
    values = rows(collector, "diskio")["vda"]
    assert {name: value for name, value in values.items() if name in ("io_util", "io_await", "io_svctm")} == rates, why


def test_a_counter_that_went_back_gives_no_rates(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    collector = DiskIO(host=tree.host)
    tree.write("proc/diskstats", disk(" ".join(["1000"] * 11)))
    list(collector.collect())
    tree.write("proc/diskstats", disk(" ".join(["5"] * 11)))
    assert "io_util" not in rows(collector, "diskio")["vda"]
    tree.write("proc/diskstats", disk(" ".join(["6"] * 11)))
    assert "io_await" in rows(collector, "diskio")["vda"]


def labels(collector: DiskIO, measurement: str) -> dict[str, dict[str, str]]:
    found = {}
    for reading in collector.collect():
        if reading.group.measurement == measurement:
            named = dict(zip((tag.prom for tag in reading.group.tags), reading.tags, strict=True))
            found[named.pop("device")] = named
    return found


def test_udev_says_what_the_devices_are() -> None:
    collector = DiskIO(host=fixed_host("big"))
    assert labels(collector, "disk_info")["sdb"] == {
        "major": "8", "minor": "16", "model": "DEMO_HDD_8000", "path": "pci-0000:3b:00.0-ata-2", "revision": "DM01",
        "rotational": "1", "serial": "SN0001", "wwn": "0x5000c50000000001",
    }  # fmt: skip
    assert labels(collector, "disk_filesystem_info")["dm-0"]["type"] == "xfs"
    assert labels(collector, "disk_device_mapper_info")["dm-1"] == {
        "lv_layer": "", "lv_name": "srv-data", "name": "vg0-srv--data", "uuid": "LVM-demo1", "vg_name": "vg0",
    }  # fmt: skip
    assert rows(collector, "disk_ata")["sda"] == {"write_cache": 1, "write_cache_enabled": 0, "rotation_rate": 7200.0}
    assert set(rows(collector, "disk_ata")) == {"sda", "sdb", "sdc", "sdd"}


def test_a_virtio_disk_has_its_serial_and_a_host_without_udev_has_numbers() -> None:
    assert labels(DiskIO(host=fixed_host("small")), "disk_info")["vda"]["serial"] == "demo-disk-01"
    assert labels(DiskIO(host=fixed_host("container")), "disk_info")["sda"] == {
        "major": "8", "minor": "0", "model": "", "path": "", "revision": "", "rotational": "", "serial": "", "wwn": "",
    }  # fmt: skip


def test_what_devices_are_is_looked_up_again_after_its_interval_and_for_a_new_device(tmp_path: Path) -> None:
    tree, now = HostTree("small", tmp_path), [0.0]
    collector = DiskIO(host=tree.host, _now=lambda: now[0])
    assert labels(collector, "disk_info")["vda"]["rotational"] == "1"
    tree.write("sys/block/vda/queue/rotational", "0\n")
    now[0] = 29.0
    assert labels(collector, "disk_info")["vda"]["rotational"] == "1"
    now[0] = 30.0
    assert labels(collector, "disk_info")["vda"]["rotational"] == "0"
    tree.write("proc/diskstats", (tree.path / "proc/diskstats").read_bytes() + b" 254 16 vdb" + b" 0" * 17 + b"\n")
    assert set(labels(collector, "disk_info")) == {"vda", "vdb"}
    collector.close()


def test_garbage_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a device and its counters"):
        parse_diskstats(b"8 0 sda " + b"x " * 11)
    with pytest.raises(SourceMissing, match="diskstats: no such file"):
        list(DiskIO(host=Host(proc_root=str(tmp_path))).collect())
    assert parse_diskstats(b"   8 1 sda1 1 2 3 4\n") == [], "a partition of Linux 2.6"


@given(st.binary(max_size=200), st.integers(0, 800))
def test_any_bytes_give_devices_or_a_source_error(noise: bytes, cut: int) -> None:
    text = Path("/proc/diskstats").read_bytes()
    try:
        disks = parse_diskstats(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(11 <= len(found.columns) <= 17 for found in disks)


@given(st.binary(max_size=200))
def test_any_udev_file_gives_text(noise: bytes) -> None:
    assert all(isinstance(value, str) for value in parse_udev(b"E:A=1\n" + noise).values())


def test_agrees_with_psutil_on_this_host() -> None:
    collector = DiskIO(device_exclude="^$")
    before = psutil.disk_io_counters(perdisk=True, nowrap=False)
    mine = rows(collector, "node_disk")
    after = psutil.disk_io_counters(perdisk=True, nowrap=False)
    assert mine.keys() == before.keys()
    for name, values in mine.items():
        assert before[name].read_bytes <= values["read_bytes_total"] <= after[name].read_bytes  # type: ignore[operator]
        assert before[name].busy_time <= values["io_time_seconds_total"] <= after[name].busy_time  # type: ignore[operator]
