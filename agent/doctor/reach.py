"""Can a server be reached: one TCP connection, nothing sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from agent.core.secrets import Secret

_CONNECT_S: Final = 3.0
_PORTS: Final = {"http": 80, "https": 443}
_URLS: Final = ("url", "urls", "webhook_url", "server_url", "api_url")  # as sinks and notifiers call them


def unreachable(options: Mapping[str, Any]) -> str:
    """Why a plugin's server cannot be reached, "" when it can or the options name none. Waits up to 3 s a server.

    Hosts of secret addresses (a chat's webhook) are named, never their paths.
    """
    for host, port in _servers(options):
        try:
            socket.create_connection((host, port), _CONNECT_S).close()
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0) if error.errno else str(error)
            return f"{host}:{port} cannot be reached: {reason.lower()}"
    return ""


def _servers(options: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Host and port of each server the options name: those of the first option that has any."""
    for key in _URLS:
        found = options.get(key)
        texts = [each.reveal() if isinstance(each, Secret) else each for each in _as_list(found)]
        if servers := [server for text in texts if (server := _of_url(text)) is not None]:
            yield from servers
            return
    if options.get("server"):
        yield str(options["server"]), int(options["port"])


def _as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found] if found else []


def _of_url(text: str) -> tuple[str, int] | None:
    """None where the text is no web address (apprise has schemes of its own)."""
    try:
        url = urlsplit(text)
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return None
    return (url.hostname, port) if url.hostname and port and url.scheme in _PORTS else None
