"""The HTTP server: uvicorn without its heartbeat.

uvicorn's main loop wakes ten times a second to refresh the Date header and look for its exit flag; that alone costs
0.10 CPU s/min, as much as the whole agent may use. Ours waits for an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

MOST_CONNECTIONS = 64
HEADER_BYTES = 8 * 1024


class ListenError(Exception):
    """The address cannot be listened on; the text says why."""


def bind(address: str) -> socket.socket:
    """A listening socket for `host:port` or `[v6]:port`. Raise ListenError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(128)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise ListenError(f"listen: {address}: {reason}") from error
    return listener


class Server(uvicorn.Server):
    """Serves an ASGI application on a bound socket until `stop`."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http="h11",
                ws="none",
                loop="none",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=75,  # longer than any usual scrape interval, so that a scraper keeps its connection
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener
        self._stopped = asyncio.Event()

    async def main_loop(self) -> None:
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # signals are the daemon's

    async def run_until_stopped(self) -> None:
        """Serve; returns after `stop` once open requests are answered or two seconds have passed."""
        await self.serve(sockets=[self._listener])

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()
