"""Files from snapshots of a real ZFS, whose module is compiled for the emulated machine's kernel.

    pytest tests/proof/zfs.py

The first time takes five minutes longer: the module.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.backing_up_vm import BackingUpVm
from tests.servers.debian_vm import ZFS, need_vms

STATE = "/root/state"
OTHERS = "tank/home@vigilhost-00000000-0a1b2c3d"
POOL = f"""
modprobe zfs
zpool create -m none tank /dev/vdb
zfs create -o mountpoint=/srv/home tank/home
zfs create -o mountpoint=/srv/home/mail tank/home/mail
for at in home home/mail; do echo "dear reader" >/srv/$at/letter; echo there >/srv/$at/box; done
chown daemon /srv/home/letter
zfs snapshot {OTHERS}
"""
CHANGE = "cd /srv; for at in home home/mail; do echo changed >$at/letter; rm $at/box; done"


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[BackingUpVm]:
    """Two data sets, one mounted inside the other."""
    need_vms()
    with BackingUpVm(package, ZFS, disk=512) as machine:
        machine.run("sh", "-ec", POOL)
        machine.hold_tar()
        machine.permit_snapshots()
        machine.job("home", {"snapshot": {"kind": "zfs", "paths": ["/srv/home", "/srv/home/mail"]}})
        yield machine


def left(machine: BackingUpVm) -> list[str]:
    return machine.left("zfs list -H -t snapshot -o name", OTHERS)


def test_data_sets_come_back_as_they_were_when_the_backup_began(machine: BackingUpVm) -> None:
    machine.run("sh", "-ec", "mkdir -p /root/before/srv; cp -a /srv/home /root/before/srv")
    done = machine.runs_while("home", CHANGE)
    assert (done.returncode, "verified at level 2" in done.stdout) == (0, True), done
    assert left(machine) == []
    assert machine.run("cat", "/srv/home/letter", "/srv/home/mail/letter") == "changed\nchanged\n"
    machine.backup("restore", "home", "--to", "/root/again")
    assert machine.run("diff", "--recursive", "/root/before", "/root/again") == ""
    assert machine.run("stat", "--format=%U", "/root/again/srv/home/letter") == "daemon\n"


def test_after_a_kill_the_next_run_unmounts_and_destroys_what_was_left(machine: BackingUpVm) -> None:
    machine.is_killed("home", STATE)
    assert len(left(machine)) == 4
    machine.let_go()
    assert "verified at level 2" in machine.backup("run", "home", "--state-dir", STATE)
    assert left(machine) == []
    assert OTHERS in machine.run("zfs", "list", "-t", "snapshot"), "another job's"
