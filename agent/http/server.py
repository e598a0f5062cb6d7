"""The HTTP server: uvicorn without its heartbeat, and with deadlines.

uvicorn's main loop wakes ten times a second to refresh the Date header and look for its exit flag; that alone costs
0.10 CPU s/min, as much as the whole agent may use. Ours waits for an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Generator
from typing import Any, Final

import h11

from agent.http import lean_uvicorn
from agent.http.guard import HEADER_BYTES
from agent.http.options import Tls

MOST_CONNECTIONS: Final = 64
HEADER_DEADLINE_S: Final = 5.0
_KEEP_ALIVE_S: Final = 75  # longer than any usual scrape interval, so that a scraper keeps its connection
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 32 * 1024 * 1024

_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 21\r\n\r\ntoo many connections\n"
)
_MALFORMED: Final = b"not an HTTP request, or one with a request line and headers of more than 8 KiB\n"


class ListenError(Exception):
    """The address cannot be listened on; the text says why."""


def bind(address: str) -> socket.socket:
    """A listening socket for `host:port` or `[v6]:port`. Raise ListenError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio sets TCP_NODELAY on such sockets only; without it answers wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(128)
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise ListenError(f"listen: {address}: {reason}") from error
    return listener


def tls_context(tls: Tls) -> ssl.SSLContext:
    """What the server shows and demands of its clients. Raise ListenError when a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    name = tls.cert
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.client_ca:
            name = tls.client_ca
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        reason = error.reason or "unusable" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
        raise ListenError(f"http.tls: {name}: {reason.lower().replace('_', ' ')}") from error
    return context


class Protocol(lean_uvicorn.H11Protocol):
    """A connection whose headers must come within a deadline, one timer while they are on their way and none else."""

    _deadline: asyncio.TimerHandle | None = None
    _discarded = -1  # bytes thrown away of a request that was refused; -1 while none was

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(_BUSY)
            transport.close()
            return
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        if self._discarded >= 0:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.transport.close()
            return
        super().data_received(data)
        if self._discarded >= 0 or self.transport.is_closing():
            return
        is_partial = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if is_partial and self._deadline is None:
            self._watch_headers()
        elif not is_partial:
            self._cancel_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def _watch_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_DEADLINE_S, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Say why, then read on for a moment: closing on unread bytes would take the answer away from its reader."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close"),
                       ("content-length", str(len(_MALFORMED))), ("x-content-type-options", "nosniff")]  # fmt: skip
            for event in (
                h11.Response(status_code=400, headers=headers), h11.Data(data=_MALFORMED), h11.EndOfMessage(),
            ):  # fmt: skip
                self.transport.write(self.conn.send(event))
        self._cancel_deadline()
        self._discarded = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline = self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()


class Server(lean_uvicorn.Server):
    """Serves an ASGI application on a bound socket until `stop`. Raise ListenError when `tls` cannot be used."""

    def __init__(self, app: Any, listener: socket.socket, tls: Tls | None = None) -> None:
        super().__init__(
            lean_uvicorn.Config(
                app,
                lifespan="off",
                http=Protocol,
                ws="none",
                loop="none",
                interface="asgi3",
                log_config=None,
                log_level="critical",  # the guard logs what fails
                access_log=False,
                date_header=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener
        self._tls = None if tls is None else tls_context(tls)
        self._stopped = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """As uvicorn's for one socket, with a deadline for the TLS handshake."""
        self.servers = [
            await asyncio.get_running_loop().create_server(
                lambda: Protocol(self.config, self.server_state, {}),
                sock=self._listener,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HEADER_DEADLINE_S,
            )
        ]
        self.started = True

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
