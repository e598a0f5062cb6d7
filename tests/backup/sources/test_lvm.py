"""Files from snapshots of real logical volumes, in an emulated machine with a disk for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.sources.scratch import owner_tag
from tests.backup.backing_up_vm import BackingUpVm
from tests.servers.debian_vm import need_vms

STATE = "/root/state"
BOTH = ["/srv/home", "/srv/mail"]
OTHERS = "vigilhost-00000000-0a1b2c3d-home"  # a snapshot that another job may be using
# xfs wants 300 MiB at least.
VOLUMES = f"""
pvcreate --quiet /dev/vdb
vgcreate --quiet vg0 /dev/vdb
lvcreate --quiet --yes --size=64M --name=home vg0
lvcreate --quiet --yes --size=304M --name=mail vg0
lvcreate --quiet --yes --snapshot --size=4M --name={OTHERS} vg0/home
mkfs.ext4 -q /dev/vg0/home
mkfs.xfs -q /dev/vg0/mail
for name in home mail; do
  mkdir -p /srv/$name
  mount /dev/vg0/$name /srv/$name
  echo "dear reader" >/srv/$name/letter
  echo "$name" >/srv/$name/box
done
chown daemon /srv/home/letter
"""
CHANGE = "cd /srv; for it in home mail; do echo changed >$it/letter; rm $it/box; done"


@pytest.fixture(scope="module")
def fresh(package: Path) -> Iterator[BackingUpVm]:
    """Two volumes: ext4 on /srv/home, xfs on /srv/mail."""
    need_vms()
    with BackingUpVm(package, disk=600) as machine:
        machine.run("sh", "-ec", VOLUMES)
        machine.hold_tar()
        machine.job("both", {"snapshot": {"kind": "lvm", "paths": BOTH, "size": "32MiB"}})
        yield machine


@pytest.fixture(scope="module")
def machine(fresh: BackingUpVm) -> BackingUpVm:
    fresh.permit_snapshots()
    return fresh


def left(machine: BackingUpVm) -> list[str]:
    return machine.left("lvs --noheadings --options=lv_name", OTHERS)


def test_without_the_right_to_mount_the_error_names_what_gives_it(fresh: BackingUpVm) -> None:
    assert "drop-in backup-snapshots.conf" in fresh.fails("run", "both")
    assert left(fresh) == []


def test_volumes_come_back_as_they_were_when_the_backup_began(machine: BackingUpVm) -> None:
    machine.run("sh", "-ec", "mkdir -p /root/before/srv; cp -a /srv/home /srv/mail /root/before/srv")
    done = machine.runs_while("both", CHANGE)
    assert (done.returncode, "verified at level 2" in done.stdout) == (0, True), done
    assert left(machine) == []
    assert machine.run("cat", "/srv/home/letter", "/srv/mail/letter") == "changed\nchanged\n"
    machine.backup("restore", "both", "--to", "/root/again")
    assert machine.run("diff", "--recursive", "/root/before", "/root/again") == ""
    assert machine.run("stat", "--format=%U", "/root/again/srv/home/letter") == "daemon\n"


def test_a_snapshot_that_ran_out_of_room_fails_the_backup(machine: BackingUpVm) -> None:
    machine.job("small", {"snapshot": {"kind": "lvm", "paths": ["/srv/home"], "size": "4MiB"}})
    done = machine.runs_while("small", "head -c 12000000 /dev/urandom >/srv/home/more; sync")
    assert done.returncode == 1, done
    assert "more changed meanwhile than the snapshot has room for; raise size" in done.stderr
    assert left(machine) == []


def test_after_a_kill_the_next_run_unmounts_and_removes_what_was_left(machine: BackingUpVm) -> None:
    source = {"snapshot": {"kind": "lvm", "paths": BOTH, "size": "32MiB"}}
    machine.job("killed", source)
    machine.is_killed("killed", STATE)
    tag = owner_tag(machine.run("hostname").strip(), "killed")
    assert sorted(name.startswith(f"vigilhost-{tag}-") for name in left(machine)) == [False, False, True, True]

    machine.let_go()
    assert "verified at level 2" in machine.backup("run", "killed", "--state-dir", STATE)

    assert left(machine) == []
    assert machine.run("ls", f"{STATE}/scratch") == ""
    assert OTHERS in machine.run("lvs"), "another job's"


def test_a_path_on_no_logical_volume_is_an_error_before_anything_is_made(machine: BackingUpVm) -> None:
    machine.job("rootfs", {"snapshot": {"kind": "lvm", "paths": ["/etc"]}})
    assert "/: /dev/vda is no logical volume" in machine.attempt("vigilhost", "backup", "doctor", "rootfs").stdout
