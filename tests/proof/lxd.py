"""A real LXD: instances and volumes are backed up, drilled, lost, and restored on a fresh one by the manual's commands.

    pytest tests/proof/lxd.py

Its machine is emulated, so that it takes minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.backing_up_vm import STORE, BackingUpVm
from tests.servers.debian_vm import need_vms

PAGE = (Path(__file__).parents[2] / "docs/disaster-recovery.md").read_text()
PRESEED = """\
storage_pools: [{name: fast, driver: dir}]
profiles: [{name: default, devices: {root: {type: disk, path: /, pool: fast}}}]
"""
# Of busybox alone; its init waits for ever.
IMAGE = """
mkdir -p /root/image/rootfs/bin /root/image/rootfs/sbin /root/image/rootfs/etc
cd /root/image
mkdir rootfs/proc rootfs/sys rootfs/dev rootfs/tmp
cp /bin/busybox rootfs/bin/
for name in sh cat sleep; do ln -s busybox rootfs/bin/$name; done
printf '#!/bin/sh\\nwhile :; do sleep 1; done\\n' >rootfs/sbin/init
chmod 755 rootfs/sbin/init
printf 'architecture: x86_64\\ncreation_date: 1700000000\\n' >metadata.yaml
tar -cf ../image.tar metadata.yaml rootfs
lxc image import ../image.tar --alias small
"""
INSTANCE = """
lxc storage volume create fast data
lxc launch small web
lxc storage volume attach fast data web /data
lxc exec web -- sh -c 'echo yes >/etc/precious; echo kept >/data/file'
lxc snapshot web before
lxc exec web -- sh -c 'echo changed >/etc/precious'
"""
GONE = "lxc delete --force web; lxc storage volume delete fast data"
DRILL = {"schedule": "never", "assertions": [
    {"archive": "web", "file_exists": ["etc/precious"]}, {"archive": "volume/fast/data", "file_exists": ["file"]},
]}  # fmt: skip


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[BackingUpVm]:
    """An instance `web` with a snapshot, and the volume `fast/data` attached to it; both are backed up."""
    need_vms()
    with BackingUpVm(package) as machine:
        machine.run("lxd", "init", "--preseed", stdin=PRESEED)
        for commands in (IMAGE, INSTANCE):
            machine.run("sh", "-ec", commands)
        machine.job("lxd", {"lxd": {}}, drill=DRILL)
        assert "verified at level 2" in machine.backup("run", "lxd")
        yield machine


def names(machine: BackingUpVm) -> list[str]:
    """Instances and custom volumes."""
    listed = machine.run("lxc", "list", "--format=csv", "--columns=n")
    return sorted((listed + machine.run("lxc", "storage", "volume", "list", "fast", "type=custom", "--format=csv",
                                        "--columns=n")).split())  # fmt: skip


def test_a_drill_imports_looks_and_leaves_nothing(machine: BackingUpVm) -> None:
    said = machine.backup("drill", "lxd")
    for line in ("web: it can be imported", "web: etc/precious exists", "volume/fast/data: it can be imported",
                 "volume/fast/data: file exists"):  # fmt: skip
        assert re.search(f"^ok +{line}", said, re.MULTILINE), said
    assert names(machine) == ["data", "web"]


def test_an_instance_that_is_there_is_not_replaced(machine: BackingUpVm) -> None:
    said = machine.fails("restore", "lxd", "--archive", "web", "--to", "web", "--force")
    assert "there is such an instance" in said


def test_the_chapter_of_the_manual_brings_back_a_lost_host(machine: BackingUpVm) -> None:
    """All that LXD had is deleted; then every block of the chapter is typed, those that are not marked `sh` too."""
    machine.run("sh", "-ec", GONE)
    chapter = PAGE.split("\n## The LXD host is lost\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    machine.run("mkdir", "-p", "/root/restored")
    for block in blocks:
        machine.run("bash", "-euo", "pipefail", "-c", block)
    inside = ("lxc", "exec", "web", "--", "cat", "/etc/precious", "/data/file")
    assert machine.run(*inside) == "changed\nkept\n"
    machine.run("lxc", "restore", "web", "before")
    assert machine.run(*inside) == "yes\nkept\n"
    assert machine.run("ls", "/root/restored").split() == ["networks.json", "pools.json", "profiles.json"]
    assert machine.run("ls", STORE) == machine.run("hostname")
