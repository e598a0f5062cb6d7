from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.nstat import NStat, parse_snmp6, parse_table
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def read(collector: NStat) -> dict[str, dict[str, Value]]:
    """Values by Telegraf's tag; node_exporter's under an empty one."""
    return {tags[0] if tags else "": values for _, tags, values in readings(collector.collect())}


def small_host(at: Path) -> HostTree:
    tree = HostTree("small", at)
    tree.write("proc/net/snmp", "Tcp: MaxConn RetransSegs InErrs\nTcp: -1 7 0\nUdp: NoPorts\nUdp: 3\n")
    tree.write("proc/net/netstat", "TcpExt: ListenDrops TW\nTcpExt: 5 9\n")
    tree.write("proc/net/snmp6", "Ip6InOctets   \t11\nIcmp6InType134  \t2\nUdpLite6InErrors 1\n")
    return tree


def test_the_dialects_name_counters_in_their_own_way(tmp_path: Path) -> None:
    assert read(NStat(host=small_host(tmp_path).host)) == {
        "netstat": {"TcpExtListenDrops": 5, "TcpExtTW": 9},
        "snmp": {"TcpMaxConn": -1, "TcpRetransSegs": 7, "TcpInErrs": 0, "UdpNoPorts": 3},
        "snmp6": {"Ip6InOctets": 11, "Icmp6InType134": 2, "UdpLite6InErrors": 1},
        "": {
            "TcpExt_ListenDrops": 5, "Tcp_RetransSegs": 7, "Tcp_InErrs": 0, "Udp_NoPorts": 3, "Ip6_InOctets": 11,
            "UdpLite6_InErrors": 1,
        },
    }  # fmt: skip


def test_zeros_and_the_filter_are_options(tmp_path: Path) -> None:
    values = read(NStat(dump_zeros=False, fields="^Tcp_MaxConn$", host=small_host(tmp_path).host))
    assert values["snmp"] == {"TcpMaxConn": -1, "TcpRetransSegs": 7, "UdpNoPorts": 3}
    assert values[""] == {"Tcp_MaxConn": -1}


def test_counters_that_grow_and_counters_that_appear_are_read(tmp_path: Path) -> None:
    tree = small_host(tmp_path)
    collector = NStat(host=tree.host)
    first = [item.group for item in collector.collect()]
    tree.write("proc/net/netstat", "TcpExt: ListenDrops TW\nTcpExt: 6 9\n")
    assert read(collector)["netstat"]["TcpExtListenDrops"] == 6
    assert [item.group for item in collector.collect()] == first  # the series stay the same
    tree.write("proc/net/netstat", "TcpExt: ListenDrops TW TCPTimeouts\nTcpExt: 6 9 4\n")
    assert read(collector)[""]["TcpExt_TCPTimeouts"] == 4
    collector.close()


def test_a_host_without_ipv6_has_the_other_counters() -> None:
    assert set(read(NStat(host=fixed_host("container")))) == {"netstat", "snmp", ""}


def test_a_host_without_the_files_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(NStat(host=Host(proc_root=str(tmp_path))).collect())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"Tcp: A B\nTcp: 1\n", "a value is missing"),
        (b"Tcp: A\nUdp: 1\n", "the lines belong to different protocols"),
        (b"Tcp: A\nTcp: x\n", "a value is a word"),
        (b"Tcp: A\n\n", "the values are missing"),
    ],
)
def test_a_table_that_does_not_match_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(SourceError, match="/proc/net/netstat: "):
        parse_table(text)


def test_names_that_cannot_be_metric_names_are_left_out() -> None:
    assert parse_table(b'Tcp: A-B C\nTcp: 1 2\n"x: A\n"x: 1\n') == {"Tcp_C": 2}
    assert parse_snmp6(b"Ip6\xff 1\nNothing 2\n6In 3\n") == {}


@given(st.binary(max_size=200), st.integers(0, 3000), st.sampled_from(["netstat", "snmp", "snmp6"]))
def test_any_bytes_give_named_numbers_or_a_source_error(noise: bytes, cut: int, name: str) -> None:
    text = Path(f"/proc/net/{name}").read_bytes() if os.path.exists(f"/proc/net/{name}") else b""
    try:
        counters = (parse_snmp6 if name == "snmp6" else parse_table)(text[:cut] + noise + text[cut:])
    except SourceError:
        return
    assert all(re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name) for name in counters)
    assert all(isinstance(value, int) for value in counters.values())


def test_agrees_with_the_kernel_on_this_host() -> None:
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    oracle = {
        names[0].rstrip(":") + name: int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    mine = read(NStat())["snmp"]
    assert mine.keys() == oracle.keys()
    assert all(mine[name] >= oracle[name] for name in ("TcpActiveOpens", "IpInReceives", "UdpOutDatagrams"))  # type: ignore[operator]
