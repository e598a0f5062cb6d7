from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.bonding import Bonding
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import PartOfHost


def test_parts_and_those_that_work(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "sys/class/net")
    collector = Bonding(host=tree.host)
    assert readings(collector.collect()) == [("bonding", ("bond0",), {"slaves": 3, "active": 2})]
    tree.write("sys/class/net/eno2/bonding_slave/mii_status", "down\n")
    assert readings(collector.collect()) == [("bonding", ("bond0",), {"slaves": 3, "active": 1})]


def test_an_old_kernel_names_the_links_differently(tmp_path: Path) -> None:
    tree = HostTree("container", tmp_path)
    tree.write("sys/class/net/bonding_masters", b"b\xff0 gone\n")
    master = b"b\xff0".decode("utf-8", "surrogateescape")
    tree.write(f"sys/class/net/{master}/bonding/slaves", "eth0 eth1\n")
    tree.write(f"sys/class/net/{master}/slave_eth0/bonding_slave/mii_status", "up\n")
    assert readings(Bonding(host=tree.host).collect()) == [("bonding", ("b\ufffd0",), {"slaves": 2, "active": 1})]


def test_a_host_without_bonds_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="bonding_masters: no such file"):
        list(Bonding(host=Host(sys_root=str(tmp_path))).collect())
    tree = HostTree("container", tmp_path)
    tree.write("sys/class/net/bonding_masters", "\n")
    with pytest.raises(SourceMissing, match="no bonded interfaces"):
        list(Bonding(host=tree.host).collect())
