"""Whether an address may be listened on as it is protected."""

from __future__ import annotations

import ipaddress

from agent.config.address import parse_address
from agent.http.options import HttpOptions


class ExposedError(Exception):
    """The address can be reached from elsewhere and nothing protects it; the text says what would."""


def is_loopback(listen: str) -> bool:
    """Can the address be reached from this host only?"""
    host, _ = parse_address(listen)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False  # a name, or every interface


def check_exposure(listen: str, options: HttpOptions, *, is_insecure: bool = False) -> str:
    """A warning for the log, "" for none. Raise ExposedError when others could read and nothing keeps them out."""
    if is_loopback(listen):
        return ""
    is_guarded = bool(options.tokens) or (options.tls is not None and bool(options.tls.client_ca))
    if not is_guarded and not is_insecure:
        raise ExposedError(
            f"listen: {listen} can be reached from other hosts and nothing protects it; "
            "configure http.tokens or http.tls.client_ca, listen on 127.0.0.1, or run with --insecure"
        )
    if not is_guarded:
        return f"{listen} can be read by everyone who reaches it, as --insecure asks for"
    if options.tls is None:
        return f"{listen} takes tokens without TLS: whoever sees the traffic can read them; configure http.tls"
    return ""


def url_of(listen: str, *, is_tls: bool = False) -> str:
    """Where someone on this host finds what listens there."""
    host, port = parse_address(listen)
    if not host.strip("0.:"):  # every interface
        host = "127.0.0.1"
    return f"{'https' if is_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
