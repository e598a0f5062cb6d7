from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from agent.core.host import Host
from collectors.udp_queues import UdpQueues, parse_udp
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import fixed_host


def test_queues_are_added_up_by_family() -> None:
    ipv4, ipv6 = readings(UdpQueues(host=fixed_host("small")).collect())
    assert ipv4 == ("udp_queues", ("v4",), {"tx": 16, "rx": 1024})
    assert ipv6 == ("udp_queues", ("v6",), {"tx": 4, "rx": 8})


def test_a_host_without_ipv6_has_no_series_for_it() -> None:
    assert [tags for _, tags, _ in readings(UdpQueues(host=fixed_host("container")).collect())] == [("v4",)]


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(UdpQueues(host=Host(proc_root=str(tmp_path))).collect())


def test_a_datagram_nobody_reads_shows_on_this_host() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.sendto(b"x" * 500, receiver.getsockname())
        deadline = time.monotonic() + 10
        while parse_udp(Path("/proc/net/udp").read_bytes())[1] < 500:
            assert time.monotonic() < deadline, "the datagram never showed in the queue"


@given(st.binary(max_size=200), st.integers(0, 700))
def test_any_bytes_give_sums(noise: bytes, cut: int) -> None:
    text = (Path(__file__).parent.parent / "fixtures/hosts/small/proc/net/udp").read_bytes()
    assert min(parse_udp(text[:cut] + noise + text[cut:])) >= 0
