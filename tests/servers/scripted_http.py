"""An in-tree stand-in for an HTTP service, whose answers a test scripts one by one; it records what it was asked.

It is no InfluxDB and no webhook receiver: it knows no protocol beyond HTTP/1.1, and says so in its Server header.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from tests.servers.certificates import Certificate
from tests.servers.process import LOOPBACK, wait_until

Fault = Literal["", "hang", "reset", "close"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; header names in lower case."""

    method: str
    path: str  # without the query
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    at: float  # monotonic seconds
    client: tuple[str, int]  # address and port: equal ones mean a kept connection

    @property
    def content(self) -> bytes:
        """The body without its Content-Encoding (gzip or deflate)."""
        match self.headers.get("content-encoding"):
            case "gzip":
                return gzip.decompress(self.body)
            case "deflate":
                return zlib.decompress(self.body)
        return self.body

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. Content-Length counts the whole body, also where only `cut` bytes of it are sent.

    `fault` is what happens instead of an answer, or after the `cut` bytes: "hang" keeps the connection open and
    silent until the client or the test ends it, "reset" sends RST, "close" FIN.
    """

    status: int = 204
    body: bytes | str = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before the first byte; stopping the server ends it
    cut: int | None = None
    fault: Fault = ""


HANG = Reply(fault="hang")
RESET = Reply(fault="reset")
Answerer = Reply | Callable[[Request], Reply]


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """A reply whose body is that value in JSON."""
    return Reply(status, json.dumps(value), {"Content-Type": "application/json", **headers})


class ScriptedHttp:
    """Answers each request with the next scripted reply, and with `default` when the script is at its end.

    A reply may be a function of the request. With a `certificate` it speaks TLS.
    """

    def __init__(self, default: Answerer = Reply(), certificate: Certificate | None = None) -> None:
        self.default = default
        self.certificate = certificate
        self.requests: list[Request] = []
        self._script: dict[str | None, deque[Answerer]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._server = _Listener((LOOPBACK, 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="scripted-http")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # waits for the threads of the connections

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{LOOPBACK}:{self.port}"

    def answer(self, *replies: Answerer, path: str | None = None) -> None:
        """Add to the script: for requests to `path` (tried first), or for any."""
        with self._lock:
            self._script.setdefault(path, deque()).extend(replies)

    def wait_for(self, count: int, deadline: float = 20.0) -> list[Request]:
        """The requests so far, as soon as there are `count`. Raise TimeoutError when they do not come."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests, saw {len(self.requests)}", deadline)
        return list(self.requests)

    @property
    def left(self) -> int:
        """How many scripted replies nobody has had yet."""
        return sum(map(len, self._script.values()))

    # Called by the connections' threads.

    def _opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def _closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def _next(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            queues = [self._script.get(request.path), self._script.get(None)]
            queue = next((one for one in queues if one), None)
            reply = queue.popleft() if queue else self.default
        return reply(request) if callable(reply) else reply


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them: a test leaves no thread behind
    owner: ScriptedHttp

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or refuses our certificate, is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "scripted-stand-in"
    sys_version = ""
    server: _Listener

    def setup(self) -> None:
        owner = self.server.owner
        owner._opened(self.request)
        if owner.certificate:
            context = owner.certificate.server_context()
            owner._closed(self.request)
            self.request = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            owner._opened(self.request)
            try:
                self.request.do_handshake()
            except BaseException:
                self._close()
                raise
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # flushing to a client that is gone
            super().finish()
        self._close()

    def _close(self) -> None:
        self.server.owner._closed(self.request)
        if self.server.owner.certificate:
            self.request.close()  # socketserver knows only the socket below it

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test looks at `requests`."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(chunks)

    def _answer(self) -> None:
        at = time.monotonic()
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(
            self.command, url.path, parse_qs(url.query, keep_blank_values=True), headers, self._read_body(), at,
            self.client_address,
        )  # fmt: skip
        reply = self.server.owner._next(request)
        self.server.owner._stopping.wait(reply.delay)
        if not reply.fault or reply.cut is not None:
            self._send(reply)
        self._misbehave(reply.fault)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = do_MKCOL = do_PROPFIND = _answer  # noqa: N815

    def _send(self, reply: Reply) -> None:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        lengthless = reply.status == 204 or 100 <= reply.status < 200 or "Transfer-Encoding" in reply.headers
        if not lengthless and "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if reply.cut is None else body[: reply.cut])
        self.wfile.flush()
        if reply.cut is not None:
            self.close_connection = True

    def _misbehave(self, fault: Fault) -> None:
        if fault:
            self.close_connection = True
        if fault == "hang":
            # recv returns when the client gives up; stopping the server shuts the socket down
            with contextlib.suppress(OSError):
                while self.connection.recv(65536):
                    pass
        elif fault == "reset":
            abort(self.connection)


def abort(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):  # already gone
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # the file objects made of the socket hold it open until they are closed too
    connection.close()
