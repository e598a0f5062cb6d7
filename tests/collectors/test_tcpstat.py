from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors import tcpstat
from collectors.tcpstat import STATES, TcpCount, TcpStat, ask_kernel, parse_diag, parse_tcp, parse_unix
from tests.collectors.hosts import HostTree, readings
from tests.collectors.part_of_host import fixed_host


def read(collector: TcpStat) -> tuple[dict[str, Value], dict[str, Value]]:
    telegraf, node = readings(collector.collect())
    return telegraf[2], node[2]


def test_sockets_of_both_families_are_counted_by_state() -> None:
    telegraf, node = read(TcpStat(host=fixed_host("small")))
    assert {name: count for name, count in telegraf.items() if count} == {
        "tcp_established": 4, "tcp_syn_sent": 1, "tcp_syn_recv": 1, "tcp_time_wait": 2, "tcp_close_wait": 1,
        "tcp_listen": 3, "tcp_closing": 1, "tcp_none": 4, "udp_socket": 9,
    }  # fmt: skip
    assert len(telegraf) == 13  # zeros included
    assert [node[state] for state in STATES] == [telegraf[f"tcp_{state}"] for state in STATES]
    assert node["tx_queued_bytes"] == 100 * sum(range(10))
    assert node["rx_queued_bytes"] == 7 * sum(range(10))


def test_a_host_without_ipv6_and_unix_sockets_has_the_rest() -> None:
    telegraf, _ = read(TcpStat(host=fixed_host("container")))
    assert telegraf["tcp_listen"] == 1
    assert telegraf["tcp_none"] == 0


def test_datagram_sockets_are_told_from_the_other_unix_sockets() -> None:
    line = b"0000000000000000: 00000002 00000000 00010000 %04X 01 1234 %s\n"
    text = b"Num RefCount\n" + line % (1, b"/run/ 0002 /x") + line % (2, b"@\xff") + line % (5, b"")
    assert parse_unix(text) == (1, 2)


def test_a_request_that_the_kernel_keeps_apart_counts_as_syn_recv() -> None:
    count = TcpCount()
    parse_tcp(b"   0: 0100007F:1F90 0100007F:9C40 0C 00000000:00000000 00:0\n", count)
    assert count.states()[STATES.index("syn_recv")] == 1


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def inet(state: int, rx: int = 0, tx: int = 0) -> bytes:
    return message(20, struct.pack("=BBBB48xIIIII", 2, state, 0, 0, 0, rx, tx, 0, 0))


def test_netlink_messages_are_counted_until_the_dump_is_done() -> None:
    count = TcpCount()
    assert not parse_diag(inet(1, 3, 5) + inet(10, 0, 128), count)
    assert parse_diag(inet(6) + message(3, b"\0\0\0\0"), count)
    assert count.total() == 3
    assert (count.rx_bytes, count.tx_bytes) == (3, 133)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (message(2, struct.pack("=i", -2)), "the kernel refused"),
        (inet(1)[:-20], "the message is cut"),
        (struct.pack("=IHHII", 4, 20, 0, 0, 0) + b"\0" * 80, "a length that would never move on"),
    ],
)
def test_a_netlink_message_that_does_not_fit_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(SourceError, match="sock_diag"):
        parse_diag(data, TcpCount())


@given(st.binary(max_size=300))
def test_any_netlink_bytes_end(noise: bytes) -> None:
    try:
        parse_diag(inet(1) + noise, TcpCount())
    except SourceError:
        pass


@given(st.binary(max_size=200), st.integers(0, 900))
def test_any_file_gives_counts(noise: bytes, cut: int) -> None:
    text = (Path(__file__).parent.parent / "fixtures/hosts/small/proc/net/tcp").read_bytes()
    count = TcpCount()
    parse_tcp(text[:cut] + noise + text[cut:], count)
    assert sum(count.states()) == count.total()


@contextmanager
def connections(number: int) -> Iterator[None]:
    """So many established pairs on loopback, and the socket that listens."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(number):
            stack.enter_context(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
        yield


def test_netlink_sees_what_the_file_shows_on_this_host() -> None:
    with connections(5):
        asked, text = ask_kernel(10**6), TcpCount()
        for name in ("tcp", "tcp6"):
            parse_tcp(Path(f"/proc/net/{name}").read_bytes(), text)
    # Other programs open and close theirs meanwhile; ours are in both.
    for counted in (asked, text):
        assert counted.by_state[1] >= 10
        assert counted.by_state[10] >= 1


def test_too_many_sockets_are_not_counted_to_the_end() -> None:
    with connections(3), pytest.raises(SourceError, match="tcp: more than 2 sockets"):
        ask_kernel(2)


def test_the_limit_holds_for_the_file_as_well() -> None:
    with pytest.raises(SourceError, match="more than 5 sockets"):
        list(TcpStat(max_sockets=5, host=fixed_host("small")).collect())


def test_a_sandbox_without_netlink_falls_back_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> TcpCount:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(tcpstat, "ask_kernel", refuse)
    with connections(2):
        _, node = read(TcpStat())
    assert node["established"] >= 4  # type: ignore[operator]


def test_counts_stand_until_the_slow_interval_has_passed(tmp_path: Path) -> None:
    tree, now = HostTree("small", tmp_path), [100.0]
    collector = TcpStat(host=tree.host, _now=lambda: now[0])
    assert read(collector)[1]["listen"] == 3
    tree.write("proc/net/tcp", "")
    now[0] = 129.0
    assert read(collector)[1]["listen"] == 3
    now[0] = 130.0
    assert read(collector)[1]["listen"] == 1


def test_few_sockets_asked_over_netlink_are_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((1, 2, 3))

    def answer(_: int) -> TcpCount:
        count = TcpCount()
        count.by_state[1] = next(counts)
        return count

    monkeypatch.setattr(tcpstat, "ask_kernel", answer)
    few, many = TcpStat(_now=lambda: 0.0), TcpStat(many_sockets=1, _now=lambda: 0.0)
    assert [read(few)[1]["established"] for _ in range(2)] == [1, 2]
    assert [read(many)[1]["established"] for _ in range(2)] == [3, 3]


def test_a_host_without_the_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(TcpStat(host=Host(proc_root=str(tmp_path))).collect())
