from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.net import Net, parse_net_dev
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host

HEAD = b"Inter-|   Receive\n face |bytes\n"


def rows(net: Net, measurement: str) -> dict[str, dict[str, Value]]:
    return {tags[0]: values for name, tags, values in readings(net.collect()) if name == measurement}


def test_every_column_lands_in_its_field(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    tree.write("proc/net/dev", HEAD + b"  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
    net = Net(host=tree.host)
    assert rows(net, "net")["eth0"] == {
        "bytes_recv": 1, "packets_recv": 2, "err_in": 3, "drop_in": 4,
        "bytes_sent": 9, "packets_sent": 10, "err_out": 11, "drop_out": 12, "speed": -1,
    }  # fmt: skip
    assert list(rows(net, "node_network")["eth0"].values()) == [*range(1, 17), 7]


def test_telegrafs_rows_lack_loopback_and_what_is_down() -> None:
    net = Net(host=fixed_host("big"))
    assert set(rows(net, "net")) == {"eno1", "eno2", "bond0", "docker0", "vethA1b2c3d", "vethE5f6a7b"}
    assert set(rows(net, "node_network")) == {*rows(net, "net"), "lo", "eno3"}


def test_configured_interfaces_are_measured_whatever_their_state() -> None:
    net = Net(interfaces=["lo", "eno*"], host=fixed_host("big"))
    assert set(rows(net, "net")) == {"lo", "eno1", "eno2", "eno3"}


def test_devices_can_be_left_out_of_metrics() -> None:
    net = Net(device_exclude="^(lo|veth.*)$", host=fixed_host("big"))
    assert set(rows(net, "node_network")) == {"eno1", "eno2", "eno3", "bond0", "docker0"}


def test_without_sysfs_only_loopback_is_left_out() -> None:
    net = Net(host=fixed_host("container"))
    assert set(rows(net, "net")) == {"eth0"}
    assert rows(net, "net")["eth0"]["speed"] == -1
    assert "receive_nohandler" not in rows(net, "node_network")["eth0"]


def test_counters_are_read_anew_and_an_interface_that_comes_later_is_found(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    net = Net(host=tree.host)
    before = rows(net, "net")["eth0"]
    tree.later()
    after = rows(net, "net")["eth0"]
    assert after["bytes_recv"] == before["bytes_recv"] + 50000  # type: ignore[operator]
    tree.write("sys/class/net/wg0/flags", "0x91\n")
    tree.write("proc/net/dev", (tree.path / "proc/net/dev").read_bytes() + b"wg0: " + b" 1" * 16 + b"\n")
    assert set(rows(net, "net")) == {"eth0", "wg0"}


def test_flags_and_speed_are_looked_at_again_after_their_interval(tmp_path: Path) -> None:
    tree, now = HostTree("small", tmp_path), [0.0]
    net = Net(host=tree.host, _now=lambda: now[0])
    assert set(rows(net, "net")) == {"eth0"}
    tree.write("sys/class/net/eth0/flags", "0x1002\n")
    now[0] = 29.0
    assert set(rows(net, "net")) == {"eth0"}
    now[0] = 30.0
    assert rows(net, "net") == {}


def test_more_interfaces_than_kept_descriptors_are_all_read(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    names = [f"veth{at}" for at in range(70)]
    for name in names:
        tree.write(f"sys/class/net/{name}/statistics/rx_nohandler", "5\n")
    tree.write("proc/net/dev", HEAD + b"".join(b"%s: %s\n" % (name.encode(), b"0 " * 16) for name in names))
    net = Net(host=tree.host)
    assert {row["receive_nohandler"] for row in rows(net, "node_network").values()} == {5}
    assert len(net._nohandler) == 64
    net.close()


def test_a_hostile_name_comes_through_as_text() -> None:
    assert set(parse_net_dev(HEAD + b'a"\xff:1: ' + b"0 " * 16)) == {'a"\ufffd:1'}


def test_garbage_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="16 counters"):
        parse_net_dev(HEAD + b"eth0: 1 2\n")
    with pytest.raises(SourceMissing, match="no such file"):
        list(Net(host=Host(proc_root=str(tmp_path))).collect())


@given(st.binary(max_size=200), st.integers(0, 600))
def test_any_bytes_give_counters_or_a_source_error(noise: bytes, cut: int) -> None:
    text = Path("/proc/net/dev").read_bytes()
    try:
        devices = parse_net_dev(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(len(values) == 16 for values in devices.values())


def test_agrees_with_psutil_on_this_host() -> None:
    net = Net()
    before = psutil.net_io_counters(pernic=True, nowrap=False)
    mine = rows(net, "node_network")
    after = psutil.net_io_counters(pernic=True, nowrap=False)
    assert set(before) & set(after) <= set(mine)
    for name in set(before) & set(after):
        assert before[name].bytes_recv <= mine[name]["receive_bytes"] <= after[name].bytes_recv  # type: ignore[operator]
        assert before[name].packets_sent <= mine[name]["transmit_packets"] <= after[name].packets_sent  # type: ignore[operator]


def test_a_bad_pattern_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="device_exclude"):
        Net(device_exclude="(")
