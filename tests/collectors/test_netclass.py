from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from agent.core.errors import SourceMissing
from agent.core.host import Host
from agent.core.model import Reading
from collectors.netclass import NETCLASS, NETWORK_INFO, NetClass
from tests.collectors.hosts import HostTree
from tests.collectors.part_of_host import PartOfHost, fixed_host


def read(collector: NetClass) -> tuple[dict[str, Reading], dict[str, dict[str, str]]]:
    """Numbers by device, labels by device."""
    numbers, labels = {}, {}
    for reading in collector.collect():
        if reading.group is NETCLASS:
            numbers[reading.tags[0]] = reading
        else:
            named = dict(zip((tag.prom for tag in NETWORK_INFO.tags), reading.tags, strict=True))
            labels[named["device"]] = named
    return numbers, labels


@pytest.mark.parametrize(
    ("device", "field", "value", "why"),
    [
        ("eno1", "up", 1, "operstate is up"),
        ("lo", "up", 0, "operstate of loopback is unknown, which is not up"),
        ("eno1", "flags", 0x1803, "flags are hexadecimal in sysfs"),
        ("eno1", "speed", 25000, "Mbit/s, scaled on /metrics"),
        ("eno3", "speed", None, "an interface that is down has no speed"),
        ("eno3", "carrier", None, "nor a carrier"),
        ("docker0", "carrier", 0, "a bridge without members has none"),
        ("vethA1b2c3d", "iflink", 7, "the other end of a veth"),
        ("bond0", "mtu", 9000, "bytes"),
    ],
)
def test_numbers_of_an_interface(device: str, field: str, value: int | None, why: str) -> None:
    numbers, _ = read(NetClass(host=fixed_host("big")))
    assert numbers[device].as_dict().get(field) == value, why


def test_every_attribute_is_read_by_its_position(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    for at, field in enumerate(NETCLASS.names[1:]):
        tree.write(f"sys/class/net/eth0/{field}", f"{100 + at}\n")
    numbers, _ = read(NetClass(host=tree.host))
    assert numbers["eth0"].values[1:] == tuple(range(100, 100 + len(NETCLASS.names) - 1))


def test_words_become_labels(tmp_path: Path) -> None:
    tree = PartOfHost("big", tmp_path, "sys/class/net")
    _, labels = read(NetClass(host=tree.host))
    assert labels["bond0"] == {
        "address": "02:00:00:00:10:03", "adminstate": "up", "broadcast": "ff:ff:ff:ff:ff:ff", "device": "bond0",
        "duplex": "full", "ifalias": 'uplink to "core"', "operstate": "up",
    }  # fmt: skip
    assert labels["eno3"]["adminstate"] == "down"
    assert labels["eno3"]["duplex"] == ""


def test_a_hostile_name_and_alias_come_through_as_text(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    name = b'e\xff"0'.decode("utf-8", "surrogateescape")
    tree.write(f"sys/class/net/{name}/ifalias", b"two\nlines\xfe\n")
    _, labels = read(NetClass(host=tree.host))
    assert labels['e\ufffd"0']["ifalias"] == "two\nlines\ufffd"
    assert labels['e\ufffd"0']["adminstate"] == "unknown"


def test_files_beside_the_devices_and_excluded_devices_are_left_out() -> None:
    numbers, _ = read(NetClass(device_exclude="^veth", host=fixed_host("big")))
    assert set(numbers) == {"lo", "eno1", "eno2", "eno3", "bond0", "docker0"}


def test_no_sysfs_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="class/net: no such file"):
        list(NetClass(host=Host(sys_root=str(tmp_path))).collect())


def test_agrees_with_psutil_on_this_host() -> None:
    numbers, labels = read(NetClass())
    for device, oracle in psutil.net_if_stats().items():
        values = numbers[device].as_dict()
        assert values["mtu"] == oracle.mtu
        assert (labels[device]["adminstate"] == "up") == ("up" in oracle.flags.split(","))
