from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Failed, Reading, Value
from collectors.disk import Disk, parse_mountinfo
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


@dataclass(frozen=True)
class Stat:
    """A file system of 1000 blocks of 4 KiB, 400 of them used, 100 reserved for root."""

    f_frsize: int = 4096
    f_blocks: int = 1000
    f_bfree: int = 600
    f_bavail: int = 500
    f_files: int = 200
    f_ffree: int = 150


def answer(_: str) -> Stat:
    return Stat()


def disk_of(host: Host, stat: Callable[[str], Stat] = answer, remote: Callable[[str], Stat] = answer) -> Disk:
    return Disk(host=host, stat_local=stat, stat_remote=remote)


def rows(disk: Disk, measurement: str) -> dict[str, tuple[tuple[str, ...], dict[str, Value]]]:
    """Rows of a measurement by mount point."""
    at = 0 if measurement == "disk" else 3
    return {tags[at]: (tags, values) for name, tags, values in readings(disk.collect()) if name == measurement}


def mounts(tree: HostTree, *lines: str) -> None:
    tree.write("proc/1/mountinfo", "".join(f"{30 + at} 28 0:{40 + at} / {line}\n" for at, line in enumerate(lines)))


def test_space_as_df_and_telegraf_reckon_it() -> None:
    tags, values = rows(disk_of(fixed_host("small")), "disk")["/"]
    assert tags == ("/", "vda1", "ext4", "rw", "")
    assert values == {
        "total": 4096000, "free": 500 * 4096, "used": 400 * 4096, "used_percent": pytest.approx(100 * 400 / 900),
        "inodes_total": 200, "inodes_free": 150, "inodes_used": 50, "inodes_used_percent": 25.0,
    }  # fmt: skip


def test_space_as_node_exporter_shows_it() -> None:
    tags, values = rows(disk_of(fixed_host("small")), "filesystem")["/"]
    assert tags == ("/dev/vda1", "", "ext4", "/")
    assert values == {
        "size_bytes": 4096000, "free_bytes": 600 * 4096, "avail_bytes": 500 * 4096, "files": 200, "files_free": 150,
        "readonly": 0, "device_error": 0,
    }  # fmt: skip


def test_each_dialect_has_its_own_mounts() -> None:
    disk = disk_of(fixed_host("big"))
    both = {"/", "/srv/data", "/srv/raid", "/mnt/backup", "/mnt/backup/local", "/home/demo/remote", "/srv/fast"}
    assert set(rows(disk, "disk")) == both
    assert set(rows(disk, "filesystem")) == both | {"/run"}, "tmpfs is node_exporter's alone"


@pytest.mark.parametrize(
    ("mount", "device", "label", "why"),
    [
        ("/", "dm-0", "vg0-root", "a volume of the device mapper goes by its number"),
        ("/srv/raid", "md0", "", "/dev/ is cut off"),
        ("/mnt/backup", "198.51.100.9:/export/backup", "", "a share has no device"),
        ("/srv/fast", "nvme1n1p1", "", "the mount on top hides the one below"),
    ],
)
def test_devices_as_telegraf_names_them(mount: str, device: str, label: str, why: str) -> None:
    tags, _ = rows(disk_of(fixed_host("big")), "disk")[mount]
    assert (tags[1], tags[4]) == (device, label), why


def test_a_device_mapper_volume_is_found_by_its_link_where_numbers_do_not_help(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "sys/block/dm-0")
    mounts(tree, "/data rw - btrfs /dev/mapper/vg0-root rw")
    (tree.path / "dev/mapper").mkdir(parents=True)
    (tree.path / "dev/mapper/vg0-root").symlink_to("../dm-0")
    tags, _ = rows(disk_of(tree.host), "disk")["/data"]
    assert (tags[1], tags[4]) == ("dm-0", "vg0-root")


@pytest.mark.parametrize(
    ("line", "mode", "readonly", "why"),
    [
        ("/data rw,noatime - ext4 /dev/vdb rw", "rw", 0, "both writable"),
        ("/data ro,noatime - ext4 /dev/vdb rw", "ro", 1, "a read-only bind mount"),
        ("/data rw,noatime - ext4 /dev/vdb ro,errors=remount-ro", "rw", 1, "the kernel gave up after an error"),
        ("/data noatime shared:4 master:2 - ext4 /dev/vdb rw", "unknown", 0, "options without either"),
    ],
)
def test_read_only_mounts(tmp_path: Path, line: str, mode: str, readonly: int, why: str) -> None:
    tree = HostTree("small", tmp_path)
    mounts(tree, line)
    disk = disk_of(tree.host)
    assert rows(disk, "disk")["/data"][0][3] == mode, why
    assert rows(disk, "filesystem")["/data"][1]["readonly"] == readonly, why


def test_remote_mounts_and_what_lies_below_them_go_through_their_own_stat() -> None:
    host, asked = fixed_host("big"), []

    def remote(path: str) -> Stat:
        asked.append(path.removeprefix(host.root))
        return Stat()

    list(disk_of(host, remote=remote).collect())
    assert asked == ["/mnt/backup", "/mnt/backup/local", "/home/demo/remote"]


@pytest.mark.parametrize("fstype", ["nfs", "cifs", "smb3", "9p", "ceph", "fuse.glusterfs", "fuseblk", "afs", "lustre"])
def test_file_systems_that_may_hang_are_remote(tmp_path: Path, fstype: str) -> None:
    tree = HostTree("small", tmp_path)
    mounts(tree, f"/mnt/x rw - {fstype} there rw")

    def never(_: str) -> Stat:
        raise AssertionError("asked for without a deadline")

    assert set(rows(disk_of(tree.host, stat=never), "filesystem")) == {"/mnt/x"}


@pytest.mark.parametrize(
    ("error", "label", "is_failed", "why"),
    [
        (TimeoutError("no answer"), "mountpoint timeout", True, "a server that is gone"),
        (SourceError("8 helpers are stuck already"), "unavailable", True, "nobody was there to ask"),
        (OSError(errno.ESTALE, "stale"), "stale file handle", True, "a server that came back without the export"),
        (OSError(errno.EACCES, "denied"), "permission denied", False, "not ours to see, and no change in sight"),
        (OSError(errno.ENOENT, "gone"), "no such file or directory", False, "unmounted since"),
    ],
)
def test_a_mount_that_does_not_answer(error: Exception, label: str, is_failed: bool, why: str) -> None:
    def refuse(path: str) -> Stat:
        if path.endswith("/mnt/backup"):
            raise error
        return Stat()

    items = list(disk_of(fixed_host("big"), remote=refuse).collect())
    assert [item for item in items if isinstance(item, Failed)] == ([Failed("/mnt/backup", label)] if is_failed else [])
    about = [item for item in readings(items) if "/mnt/backup" in item[1]]
    assert about == [
        (
            "filesystem",
            ("198.51.100.9:/export/backup", label, "nfs4", "/mnt/backup"),
            {"readonly": 0, "device_error": 1},
        )
    ], why
    assert "/srv/data" in {item.tags[0] for item in items if isinstance(item, Reading)}, "the others go on"


def test_an_answer_without_blocks_is_not_telegrafs() -> None:
    def empty(_: str) -> Stat:
        return Stat(f_blocks=0, f_bfree=0, f_bavail=0, f_files=0, f_ffree=0)

    disk = disk_of(fixed_host("small"), stat=empty)
    assert rows(disk, "disk") == {}
    assert rows(disk, "filesystem")["/"][1]["size_bytes"] == 0


def test_root_may_have_used_up_what_is_reserved() -> None:
    def full(_: str) -> Stat:
        return Stat(f_bfree=0, f_bavail=0, f_files=0, f_ffree=0)

    values = rows(disk_of(fixed_host("small"), stat=full), "disk")["/"][1]
    assert (values["used_percent"], values["inodes_used_percent"]) == (100.0, 0.0)


def test_options_choose_the_mounts(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    disk = Disk(ignore_fs=["vfat"], fs_types_exclude="^$", mount_points_exclude="^/(sys|proc|dev|mnt)", host=tree.host,
                stat_local=answer)  # fmt: skip
    assert set(rows(disk, "disk")) == {"/", "/dev", "/run", "/mnt/my data"}
    assert set(rows(disk, "filesystem")) == {"/", "/run", "/boot/efi"}
    with pytest.raises(ValueError, match="fs_types_exclude"):
        Disk(fs_types_exclude="(")


def test_ten_thousand_mounts_are_cut_and_told(tmp_path: Path) -> None:
    tree, asked = HostTree("small", tmp_path), []

    def count(path: str) -> Stat:
        asked.append(path)
        return Stat()

    mounts(tree, *(f"/m/{at} rw - ext4 /dev/vdb rw" for at in range(10_000)))
    items = list(disk_of(tree.host, stat=count).collect())
    assert len(asked) == 1000
    assert items[-1] == Failed("max_mounts", "10000 mounts; only the first 1000 are measured")


def test_mounts_come_from_pid_1_and_else_from_ourselves(tmp_path: Path) -> None:
    assert set(rows(disk_of(fixed_host("container")), "disk")) == {"/etc/hosts"}
    with pytest.raises(SourceMissing, match="self/mountinfo: no such file"):
        list(Disk(host=Host(proc_root=str(tmp_path))).collect())


def test_hostile_mount_points_come_through_as_text_and_are_asked_by_their_bytes(tmp_path: Path) -> None:
    tree, asked = HostTree("small", tmp_path), []

    def count(path: str) -> Stat:
        asked.append(os.fsencode(path).removeprefix(os.fsencode(tree.path)))
        return Stat()

    tree.write("proc/1/mountinfo", b'30 1 0:9 / /a\\040b\\012c"\\134\xff rw - ext4 /dev/v"\xfe rw\n')
    assert rows(disk_of(tree.host, stat=count), "disk").keys() == {'/a b\nc"\\\ufffd'}
    assert asked == [b'/a b\nc"\\\xff']


def test_a_line_that_is_no_mount_is_refused() -> None:
    with pytest.raises(SourceError, match="is not a mount"):
        parse_mountinfo(b"22 28 0:20 / /sys rw\n")


@given(st.binary(max_size=100), st.integers(0, 700))
def test_any_bytes_give_mounts_or_a_source_error(noise: bytes, cut: int) -> None:
    text = (Path(__file__).parent.parent / "fixtures/hosts/small/proc/1/mountinfo").read_bytes()
    try:
        found = parse_mountinfo(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert len({mount.point for mount in found}) == len(found)


def test_agrees_with_psutil_on_this_host() -> None:
    disk = Disk(ignore_fs=[], fs_types_exclude="^$", mount_points_exclude="^$")
    values = rows(disk, "disk")["/"][1]
    oracle = psutil.disk_usage("/")
    assert values["total"] == oracle.total
    assert values["used_percent"] == pytest.approx(oracle.percent, abs=1)
    assert {mount.mountpoint for mount in psutil.disk_partitions()} <= set(rows(disk, "filesystem"))
