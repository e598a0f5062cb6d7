"""Protocol counters of the kernel, from /proc/net/netstat, snmp and snmp6.

Telegraf publishes all of them under concatenated names with the file as a tag; node_exporter those of a filter, as
`<protocol>_<counter>` without a tag. So each dialect has its own Group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host, KeptFile
from agent.core.model import Group, Reading, untyped
from agent.core.options import option
from agent.core.units import Seconds
from collectors.sysfs import compiled

# node_exporter's own default.
DEFAULT_FIELDS = (
    r"^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)"
    r"|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)"
    r"|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)"
    r"|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$"
)

NSTAT = Group("nstat", (
    untyped("*", "count", "The counter of this name in the file that the tag names.", influx="*"),
), tags=("name",))  # fmt: skip

NETSTAT = Group("node_netstat", (
    untyped("*", "count", "The counter of this name in /proc/net/netstat, snmp or snmp6.", prom="node_netstat_*"),
))  # fmt: skip

_PROTOCOL, _COUNTER = re.compile(r"[a-zA-Z][a-zA-Z0-9]*"), re.compile(r"[a-zA-Z0-9_]+")
_MOST_NAMES = 4096  # the kernel has about 400; a source that changes its names must not fill memory


def _named(protocol: str, counter: str) -> str | None:
    """`Tcp_RetransSegs`, None when the two words make no metric name."""
    return f"{protocol}_{counter}" if _PROTOCOL.fullmatch(protocol) and _COUNTER.fullmatch(counter) else None


class _Headers(dict[bytes, tuple[str | None, ...]]):
    """The names in a header line such as `Tcp: RtoAlgorithm RtoMin`, worked out once."""

    def __missing__(self, header: bytes) -> tuple[str | None, ...]:
        protocol, *counters = header.decode("ascii", "replace").split()
        names = tuple(_named(protocol.removesuffix(":"), counter) for counter in counters)
        if len(self) > _MOST_NAMES // 16:
            self.clear()
        self[header] = names
        return names


class _Names(dict[bytes, str | None]):
    """The name of a counter of snmp6: `Ip6InOctets` is `Ip6_InOctets`; None for one without a 6."""

    def __missing__(self, raw: bytes) -> str | None:
        protocol, six, counter = raw.decode("ascii", "replace").partition("6")
        name = _named(protocol + six, counter) if six else None
        if len(self) > _MOST_NAMES:
            self.clear()
        self[raw] = name
        return name


_headers, _names6 = _Headers(), _Names()


def parse_table(text: bytes) -> dict[str, int]:
    """Counters as `Tcp_RetransSegs`, from a file of header and value lines in pairs (netstat, snmp).

    Raise SourceError when a pair does not match.
    """
    counters: dict[str, int] = {}
    lines = text.splitlines()
    for header, line in zip(lines[::2], lines[1::2], strict=False):
        values = line.split()
        if not values or not header.startswith(values[0]):
            raise SourceError(f"/proc/net/netstat: {header[:60]!r} is followed by {line[:60]!r}, not by its values")
        try:
            named = zip(_headers[header], map(int, values[1:]), strict=True)
            counters.update({name: value for name, value in named if name is not None})
        except ValueError as error:
            raise SourceError(f"/proc/net/netstat: {line[:60]!r} is not one number for each name") from error
    return counters


def parse_snmp6(text: bytes) -> dict[str, int]:
    """Counters as `Ip6_InOctets`, from lines such as `Ip6InOctets 12`. Raise SourceError for another form."""
    words = text.split()
    try:
        return {
            name: value
            for raw, value in zip(words[::2], map(int, words[1::2]), strict=True)
            if (name := _names6[raw]) is not None
        }
    except ValueError as error:
        raise SourceError(f"/proc/net/snmp6: {text[:60]!r}... is not pairs of a name and a number") from error


@dataclass(slots=True)
class NStat:
    """Counters of IP, ICMP, TCP and UDP."""

    name: ClassVar[str] = "nstat"
    groups: ClassVar[tuple[Group, ...]] = (NSTAT, NETSTAT)

    interval: Seconds = option(30.0, "Time between two readings.")
    dump_zeros: bool = option(True, "Write counters that are zero to the `nstat` measurement, too.")
    fields: str = option(DEFAULT_FIELDS, "Regular expression of the counters that node_netstat_* has.")
    host: Host = field(default_factory=Host)
    _files: dict[str, KeptFile] = field(init=False)
    _influx_names: dict[str, str] = field(init=False, default_factory=dict)
    _is_shown: dict[str, bool] = field(init=False, default_factory=dict)
    _twins: dict[str, str] = field(init=False, default_factory=dict)  # by Telegraf's name, of those that are shown

    def __post_init__(self) -> None:
        compiled("fields", self.fields)
        self._files = {name: KeptFile(self.host.proc(f"net/{name}")) for name in ("netstat", "snmp", "snmp6")}

    def collect(self) -> Iterator[Reading]:
        shown: dict[str, int] = {}
        for name, file in self._files.items():
            try:
                text = file.read()
            except SourceMissing:
                if name != "snmp6":  # absent without IPv6
                    raise
                continue
            counters = parse_snmp6(text) if name == "snmp6" else parse_table(text)
            if not counters.keys() <= self._is_shown.keys():
                self._learn(counters)
            influx, is_shown = self._influx_names, self._is_shown
            written = {influx[key]: value for key, value in counters.items() if value or self.dump_zeros}
            if written:
                yield NSTAT.expand(written, twin=self._twins.get).row((name,), tuple(written.values()))
            shown.update((key, value) for key, value in counters.items() if is_shown[key])
        if shown:
            yield NETSTAT.expand(shown).row((), tuple(shown.values()))

    def _learn(self, counters: dict[str, int]) -> None:
        """Work out once what each counter is called by Telegraf, and whether node_exporter's filter lets it through."""
        if len(self._is_shown) > _MOST_NAMES:
            self._influx_names.clear()
            self._is_shown.clear()
            self._twins.clear()
        shown = compiled("fields", self.fields)
        for key in counters:
            self._influx_names[key] = key.replace("_", "", 1)
            self._is_shown[key] = shown.search(key) is not None
            if self._is_shown[key]:
                self._twins[self._influx_names[key]] = f"node_netstat_{key}"

    def close(self) -> None:
        """Give the descriptors back."""
        for file in self._files.values():
            file.close()
