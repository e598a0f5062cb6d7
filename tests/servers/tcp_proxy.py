"""An in-tree TCP fault proxy: stands between a client and a real server and does what networks do.

It works on connections, not packets: loss and reordering are not among its faults.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Literal, Self

from tests.servers.namespaces import socket_of
from tests.servers.process import LOOPBACK
from tests.servers.scripted_http import abort

Kind = Literal["pass", "hang", "reset", "slow", "cut"]
TICK = 0.02  # seconds in which a change of mode is seen
CHUNK = 65536


@dataclass(frozen=True, slots=True)
class _Mode:
    kind: Kind = "pass"
    bytes_per_s: float = 0.0
    cut_request: int | None = None  # bytes that still pass towards the server
    cut_answer: int | None = None


class TcpProxy:
    """Passes everything to `target_port` until told otherwise; a new mode holds for open connections too.

    Except `refuse`, which closes the listening port and leaves open connections as they are. `target_of` and
    `listens_for` are processes: in whose network the target is, and in whose it listens, on `port` or a free one.
    """

    def __init__(
        self, target_port: int, *, target_of: int | None = None, listens_for: int | None = None, port: int = 0
    ) -> None:
        self.target_port = target_port
        self.port = port
        self._target_of = target_of
        self._listens_for = listens_for
        self.accepted = 0  # connections so far
        self.to_server = 0  # bytes passed on
        self.to_client = 0
        self._mode = _Mode()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._accepting: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._listener = self._listen()
        self.port = int(self._listener.getsockname()[1])
        self._accept_in_thread()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.refuse()
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):  # not connected any more
                    one.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a side that does not read
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    # What the network does from now on.

    def pass_through(self) -> None:
        self._set(_Mode())

    def hang(self) -> None:
        """Connections are accepted and stay open; nothing passes in either direction."""
        self._set(_Mode("hang"))

    def reset(self) -> None:
        """Open connections get RST, new ones as soon as they are accepted."""
        self._set(_Mode("reset"))

    def slow(self, bytes_per_s: float) -> None:
        """Each direction of each connection passes that much."""
        self._set(_Mode("slow", bytes_per_s))

    def cut(self, request_after: int | None = None, answer_after: int | None = None) -> None:
        """Each connection gets RST once it has passed that many bytes in that direction."""
        self._set(_Mode("cut", cut_request=request_after, cut_answer=answer_after))

    def refuse(self) -> None:
        """Nobody listens on the port: connection refused. Any other mode listens on the same port again."""
        accepting, self._accepting = self._accepting, None
        if accepting is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); close() alone would not
        accepting.join()
        self._listener.close()

    def _set(self, mode: _Mode) -> None:
        self._mode = mode
        if self._accepting is None:
            self._listener = self._listen()
            self._accept_in_thread()

    def _listen(self) -> socket.socket:
        listener = socket_of(self._listens_for)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, self.port))
        listener.listen(128)
        return listener

    # Threads: one that accepts, one a connection.

    def _accept_in_thread(self) -> None:
        self._accepting = threading.Thread(target=self._accept, name="tcp-proxy")
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(client,), name="tcp-proxy-connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        ends = {client}
        with self._lock:
            self._sockets |= ends
        try:
            if self._mode.kind != "reset":
                server = socket_of(self._target_of)
                ends.add(server)
                server.settimeout(10)
                server.connect((LOOPBACK, self.target_port))
                server.settimeout(None)
                with self._lock:
                    self._sockets |= ends
                _Connection(self, client, server).run()
        except OSError:
            pass  # one side is gone, which ends the other below
        finally:
            with self._lock:
                self._sockets -= ends
            for one in ends:
                abort(one) if self._mode.kind in ("reset", "cut") else one.close()


class _Connection:
    """Copies between two sockets in one thread, as the proxy's mode of the moment allows."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.ends = {client: server, server: client}  # open directions, from -> to
        self.client = client
        self.passed = {client: 0, server: 0}
        self.next_at = {client: 0.0, server: 0.0}  # monotonic seconds: no reading from this side before

    def run(self) -> None:
        """Return when both sides are done, one was cut, or the proxy stops. Raise OSError when a side breaks."""
        while self.ends and not self.proxy._stopping.is_set():
            mode = self.proxy._mode
            if mode.kind == "reset":
                return
            if mode.kind == "hang":
                self.proxy._stopping.wait(TICK)
                continue
            now = time.monotonic()
            ready, _, _ = select.select([one for one in self.ends if self.next_at[one] <= now], [], [], TICK)
            for source in ready:
                if not self._copy(source, mode):
                    return

    def _copy(self, source: socket.socket, mode: _Mode) -> bool:
        """Pass one piece on; False when this connection has passed all it may."""
        limit = mode.cut_request if source is self.client else mode.cut_answer
        size = max(1, min(CHUNK, int(mode.bytes_per_s * TICK))) if mode.kind == "slow" else CHUNK
        if limit is not None:
            size = min(size, limit - self.passed[source])
        piece = source.recv(size) if size > 0 else b""
        target = self.ends[source]
        if piece:
            target.sendall(piece)
            self._count(source, len(piece))
        elif size > 0:
            del self.ends[source]
            with contextlib.suppress(OSError):  # the other side may have closed altogether
                target.shutdown(socket.SHUT_WR)
        if mode.kind == "slow":
            self.next_at[source] = time.monotonic() + len(piece) / mode.bytes_per_s
        return limit is None or self.passed[source] < limit

    def _count(self, source: socket.socket, size: int) -> None:
        self.passed[source] += size
        if source is self.client:
            self.proxy.to_server += size
        else:
            self.proxy.to_client += size
