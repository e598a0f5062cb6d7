"""TCP connections by state, and the sockets Telegraf's `netstat` counts beside them.

On the agent's own host the kernel is asked over netlink (sock_diag), which costs a 25th of reading /proc/net/tcp; where
that is not possible the file is read, at the slow interval. Both cost time for each socket there is, so a host with
many is looked at more rarely, too, and its last counts stand in between.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, read_file
from agent.core.model import Group, Reading, gauge, untyped
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sockstat import parse_sockstat

# In the kernel's order, from TCP_ESTABLISHED = 1.
STATES = ("established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close", "close_wait",
          "last_ack", "listen", "closing")  # fmt: skip
_SYN_RECV, _NEW_SYN_RECV = 3, 12  # the second is a request the kernel keeps apart; no tool shows it as a state

NETSTAT = Group("netstat", (
    *(
        untyped(f"tcp_{state}", "count", f"TCP sockets in state {state}, both families.", influx=f"tcp_{state}",
                twin="node_tcp_connection_states")
        for state in STATES
    ),
    untyped("tcp_none", "count", "Unix sockets that are not datagram sockets.", influx="tcp_none"),
    untyped("udp_socket", "count", "UDP sockets, and Unix datagram sockets.", influx="udp_socket"),
))  # fmt: skip

TCP_STATES = Group("tcp_connection_states", tuple(
    gauge(state, "bytes" if state.endswith("bytes") else "count",
          "TCP sockets by state, and the bytes that wait in their queues.",
          prom="node_tcp_connection_states", labels={"state": state})
    for state in (*STATES, "rx_queued_bytes", "tx_queued_bytes")
))  # fmt: skip


@dataclass(slots=True)
class TcpCount:
    """Sockets by state (index 0 unused) and what their queues hold."""

    by_state: list[int] = field(default_factory=lambda: [0] * (_NEW_SYN_RECV + 1))
    rx_bytes: int = 0
    tx_bytes: int = 0

    def total(self) -> int:
        return sum(self.by_state)

    def states(self) -> tuple[int, ...]:
        """Sockets in each of STATES."""
        counts = self.by_state[1 : len(STATES) + 1]
        counts[_SYN_RECV - 1] += self.by_state[_NEW_SYN_RECV]
        return tuple(counts)


_SOCKET_LINE = re.compile(
    rb"^ *\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ([0-9A-F]{8}):([0-9A-F]{8}) ", re.MULTILINE
)
_UNIX_LINE = re.compile(rb"^[0-9a-fA-F]+: [0-9A-F]{8} [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{4}) ", re.MULTILINE)


def parse_tcp(text: bytes, count: TcpCount) -> None:
    """Add the sockets of /proc/net/tcp or tcp6 to `count`; what is no socket line is passed over."""
    for state, tx_bytes, rx_bytes in _SOCKET_LINE.findall(text):
        if 1 <= (number := int(state, 16)) <= _NEW_SYN_RECV:
            count.by_state[number] += 1
            count.tx_bytes += int(tx_bytes, 16)
            count.rx_bytes += int(rx_bytes, 16)


def parse_unix(text: bytes) -> tuple[int, int]:
    """Datagram sockets and all others of /proc/net/unix."""
    types = _UNIX_LINE.findall(text)
    datagrams = types.count(b"0002")
    return datagrams, len(types) - datagrams


_TCPDIAG_GETSOCK = 18  # the older request: one dump for IPv4 and IPv6, half the time of two SOCK_DIAG_BY_FAMILY
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBB48xII")  # of inet_diag_req: family, lengths, extensions; socket id; states, id
_ALL_STATES = 0xFFFFFFFF
_MESSAGE = struct.Struct("=xB54xII")  # of inet_diag_msg: state, receive queue, send queue


def parse_diag(data: bytes, count: TcpCount) -> bool:
    """Add the sockets of one netlink datagram to `count`; True when it ends the dump.

    Raise SourceError when the kernel refuses the dump or a message does not fit.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR or not _HEADER.size + _MESSAGE.size <= length <= len(data) - at:
            raise SourceError(f"sock_diag: message of type {kind} and {length} bytes; a socket was expected")
        state, rx_bytes, tx_bytes = _MESSAGE.unpack_from(data, at + _HEADER.size)
        if 1 <= state <= _NEW_SYN_RECV:
            count.by_state[state] += 1
            count.rx_bytes += rx_bytes
            # For a listening socket this is the length its backlog may have; node_exporter adds it up all the same.
            count.tx_bytes += tx_bytes
        at += (length + 3) & ~3
    return False


def ask_kernel(max_sockets: int) -> TcpCount:
    """The host's TCP sockets over netlink. Raise SourceError beyond `max_sockets`, OSError when netlink is closed."""
    count = TcpCount()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.settimeout(5.0)
        body = _REQUEST.pack(socket.AF_INET, 0, 0, 0, _ALL_STATES, 0)
        diag.send(_HEADER.pack(_HEADER.size + len(body), _TCPDIAG_GETSOCK, _NLM_F_REQUEST_DUMP, 1, 0) + body)
        while not parse_diag(diag.recv(65536), count):
            _check(count, max_sockets)
    return count


def _check(count: TcpCount, max_sockets: int) -> None:
    if count.total() > max_sockets:
        raise SourceError(f"tcp: more than {max_sockets} sockets; max_sockets says how many are counted")


@dataclass(slots=True)
class TcpStat:
    """TCP sockets by state, UDP and Unix sockets."""

    name: ClassVar[str] = "tcpstat"
    groups: ClassVar[tuple[Group, ...]] = (NETSTAT, TCP_STATES)

    interval: Seconds = option(30.0, "Time between two readings.")
    many_sockets: int = option(5000, "From this number of sockets on they are counted at `slow_interval`.", minimum=1)
    slow_interval: Seconds = option(30.0, "Time between two counts where there are many sockets or no netlink.")
    max_sockets: int = option(500_000, "With more TCP sockets than this the count is given up.", minimum=1)
    host: Host = field(default_factory=Host)
    _now: Callable[[], float] = time.monotonic
    _is_netlink_open: bool = field(init=False)
    _last: tuple[Reading, ...] = field(init=False, default=())
    _last_until: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        # Netlink tells about the agent's own network namespace, which a host mounted elsewhere is not.
        self._is_netlink_open = self.host.proc_root == "/proc"

    def collect(self) -> Iterator[Reading]:
        now = self._now()
        if not self._last or now >= self._last_until:
            tcp = self._count_tcp()
            datagrams, others = parse_unix(self._text("net/unix"))
            states = tcp.states()
            self._last = (
                NETSTAT.row((), (*states, others, self._udp_sockets() + datagrams)),
                TCP_STATES.row((), (*states, tcp.rx_bytes, tcp.tx_bytes)),
            )
            # Without netlink the kernel walks its whole hash table a page of text at a time: 9 ms even with no sockets.
            is_slow = not self._is_netlink_open or tcp.total() + datagrams + others >= self.many_sockets
            self._last_until = now + self.slow_interval if is_slow else now
        yield from self._last

    def _count_tcp(self) -> TcpCount:
        if self._is_netlink_open:
            try:
                return ask_kernel(self.max_sockets)
            except OSError:
                self._is_netlink_open = False  # forbidden by a sandbox, or a kernel without tcp_diag
        count = TcpCount()
        parse_tcp(read_file(self.host.proc("net/tcp")), count)
        parse_tcp(self._text("net/tcp6"), count)
        _check(count, self.max_sockets)
        return count

    def _udp_sockets(self) -> int:
        """From the totals the kernel keeps, which cost the same for any number of sockets."""
        ipv4, ipv6 = parse_sockstat(self._text("net/sockstat")), parse_sockstat(self._text("net/sockstat6"))
        return ipv4.get("UDP_inuse", 0) + ipv6.get("UDP6_inuse", 0)

    def _text(self, name: str) -> bytes:
        try:
            return read_file(self.host.proc(name))
        except SourceMissing:
            return b""  # a kernel without IPv6 or Unix sockets has none of them
