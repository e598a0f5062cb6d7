from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from collectors.mdadm import MD, MD_RAID, MDSTAT, Mdadm, parse_mdstat
from tests.collectors.hosts import FIXTURES, readings
from tests.collectors.part_of_host import fixed_host

ARRAY = """Personalities : [raid1] [raid10]
md7 : {head}
      {status}
{sync}
unused devices: <none>
"""
RAID1 = "1000 blocks super 1.2 [2/2] [UU]"
ACTIVE = "active raid1 sdb1[1] sda1[0]"


@pytest.mark.parametrize(
    ("head", "status", "sync", "expected", "why"),
    [
        (ACTIVE, RAID1, "", ("active", 2, 0, 0, 2, 1000), "all is well"),
        (
            "active raid1 sdb1[1](F) sda1[0]", "1000 blocks [2/1] [U_]", "", ("active", 1, 1, 0, 2, 1000),
            "a disk failed and nothing replaces it",
        ),
        (
            "active raid1 sdc1[2](S) sdb1[1] sda1[0]", RAID1, "      bitmap: 0/4 pages", ("active", 2, 0, 1, 2, 1000),
            "a spare disk waits",
        ),
        ("active (auto-read-only) raid1 sdb1[1] sda1[0]", RAID1, "", ("active", 2, 0, 0, 2, 1000), "a word more"),
        (
            "inactive sdb[1](S) sda[0](S)", "1000 blocks super external:imsm", "", ("inactive", 0, 0, 2, 0, 1000),
            "a container of arrays",
        ),
        ("active linear sdb[1] sda[0]", "1000 blocks 64k rounding", "", ("active", 2, 0, 0, 2, 1000), "no redundancy"),
        (
            ACTIVE, RAID1, "      [=>...]  resync = 12.5% (125/1000) finish=1.5min speed=200K/sec",
            ("resyncing", 2, 0, 0, 2, 125), "after a crash",
        ),
        (
            ACTIVE, RAID1, "      [=>...]  check = 50.0% (500/1000) finish=1.0min speed=200K/sec",
            ("checking", 2, 0, 0, 2, 500), "the monthly check",
        ),
        (ACTIVE, RAID1, "      resync=PENDING", ("resyncing", 2, 0, 0, 2, 0), "waits for the first write"),
        (ACTIVE, RAID1, "      resync=DELAYED", ("resyncing", 2, 0, 0, 2, 0), "waits for another array"),
        (
            ACTIVE, RAID1, "      [=>...]  reshape = 10.0% (100/1000) finish=1.0min speed=200K/sec",
            ("reshaping", 2, 0, 0, 2, 100), "grows",
        ),
    ],
)  # fmt: skip
def test_arrays_as_the_kernel_shows_them(
    head: str, status: str, sync: str, expected: tuple[object, ...], why: str
) -> None:
    (array,) = parse_mdstat(ARRAY.format(head=head, status=status, sync=sync).encode())
    assert (array.state, array.active, array.failed, array.spare, array.required, array.synced) == expected, why
    assert (array.name, array.blocks) == ("md7", 1000)


def test_a_rebuild_in_both_dialects() -> None:
    items = list(Mdadm(host=fixed_host("big")).collect())
    telegraf = [item for item in items if item.group is MDSTAT]
    assert telegraf[0].tags == ("recovering", "sda,sdb,sdc,sdd,sde", "md0")
    assert telegraf[0].as_dict() == {
        "BlocksSynced": 711234560, "BlocksSyncedFinishTime": 612.5, "BlocksSyncedPct": 9.1,
        "BlocksSyncedSpeed": 193250.0, "BlocksTotal": 15627788288, "DisksActive": 3, "DisksFailed": 1, "DisksSpare": 1,
        "DisksTotal": 4,
    }  # fmt: skip
    assert telegraf[1].tags == ("active", "sdf,sdg", "md1")
    node = {item.tags[0]: item.as_dict() for item in items if item.group is MD}
    states = {name: value for name, value in node["md0"].items() if name.startswith("state_")}
    assert states == {
        "state_active": 0, "state_inactive": 0, "state_recovering": 1, "state_check": 0, "state_resync": 0,
    }  # fmt: skip
    assert (node["md0"]["disks_failed"], node["md1"]["disks_required"]) == (1, 2)
    raid = {item.tags[0]: item.as_dict() for item in items if item.group is MD_RAID}
    assert raid == {"md0": {"raid_disks": 4, "degraded": 1}, "md1": {"raid_disks": 2}}


def test_an_array_that_grows_counts_as_active_on_metrics(tmp_path: Path) -> None:
    sync = "      [=>...]  reshape = 10.0% (100/1000) finish=1.0min speed=200K/sec"
    (tmp_path / "mdstat").write_text(ARRAY.format(head=ACTIVE, status=RAID1, sync=sync))
    _, (_, _, node) = readings(Mdadm(host=Host(proc_root=str(tmp_path), sys_root=str(tmp_path))).collect())
    assert node["state_active"] == 1


def test_no_arrays_give_nothing_and_no_driver_is_told_apart(tmp_path: Path) -> None:
    assert parse_mdstat(b"Personalities : \nunused devices: <none>\n") == []
    with pytest.raises(SourceMissing, match="mdstat: no such file"):
        list(Mdadm(host=Host(proc_root=str(tmp_path))).collect())
    with pytest.raises(SourceError, match="1024 blocks"):
        parse_mdstat(b"md0 : active raid1 sda[0]\n      nothing here\n\n")


@given(st.binary(max_size=200), st.integers(0, 600))
def test_any_bytes_give_arrays_or_a_source_error(noise: bytes, cut: int) -> None:
    text = (FIXTURES / "big/proc/mdstat").read_bytes()
    try:
        arrays = parse_mdstat(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(array.name and isinstance(array.blocks, int) for array in arrays)
