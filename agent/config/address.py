"""Addresses to listen on, as people write them."""

from __future__ import annotations

import re
import socket

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})", re.ASCII)


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:9811`, `[::1]:9811`, `localhost:9811` as host and port; `:9811` has the host "", every interface.

    Raise ValueError, as a sentence that follows the text.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError("is not an address with a port; write it like 127.0.0.1:9811 or [::1]:9811")
    ipv6, host, port = match[1], match[2], int(match[3])
    if port > 65535:
        raise ValueError("has a port that does not exist; the last one is 65535")
    try:
        if ipv6 is not None:
            socket.inet_pton(socket.AF_INET6, ipv6.partition("%")[0])  # without the zone, `%eth0`
        elif host and not host.strip("0123456789."):
            socket.inet_pton(socket.AF_INET, host)
    except OSError:
        raise ValueError("is not an IP address; write it like 127.0.0.1:9811 or [::1]:9811") from None
    return (host if ipv6 is None else ipv6), port


def check_address(text: str) -> None:
    """Raise ValueError when the text is no address to listen on."""
    parse_address(text)
