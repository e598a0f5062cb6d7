"""Keeps the test process from calling out: a connection to anything but this machine fails the test that made it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


class CalledOut(BaseException):
    """A test connected beyond loopback. No Exception: code that survives network errors shall not survive this."""


class LoopbackOnly:
    """While installed, `connect` and `sendto` of IPv4 and IPv6 sockets reach this machine only.

    `offences` keeps what was refused, for threads whose exception nobody sees. Child processes are not watched.
    """

    def __init__(self) -> None:
        self.offences: list[str] = []
        self._real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}

    def install(self) -> None:
        for name, real in self._real.items():
            setattr(socket.socket, name, self._guarded(name, real))

    def remove(self) -> None:
        for name in self._real:
            delattr(socket.socket, name)  # the methods of the C class below show again

    def _guarded(self, name: str, real: Any) -> Any:
        def guarded(sock: socket.socket, *args: Any) -> Any:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and not is_here(args[-1]):
                self.offences.append(f"{name} to {args[-1]!r}")
                raise CalledOut(f"{name} to {args[-1]!r}; tests reach only this machine")
            return real(sock, *args)

        return guarded


def is_here(address: Any) -> bool:
    """True when an (address, port, ...) of a socket is loopback, or no address that could be reached at all."""
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return True  # the real method refuses it
    host = address[0].partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host in ("", "localhost")
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    return mapped.is_loopback or mapped.is_unspecified  # Linux takes 0.0.0.0 for this machine
