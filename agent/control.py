"""The control socket: one JSON object a line in, one out. Everything that changes something goes through here.

Who may connect is decided by the socket's mode (0660) and its directory; who did is asked of the kernel (SO_PEERCRED)
and logged for commands that change something.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

log = structlog.get_logger("control")

SOCKET_NAME = "control.sock"
_LONGEST_REQUEST = 64 * 1024
_ANSWER_TIMEOUT_S = 60.0
_RETRY_S = 30.0

Command = Callable[[Mapping[str, Any]], Awaitable[Any]]


class ControlError(Exception):
    """A command could not be carried out; the text goes to the person who asked."""


class ControlSocket:
    """Serves commands. `changing`: names of those that change something, which are logged with who asked."""

    def __init__(self, directory: str, commands: Mapping[str, Command], changing: frozenset[str] = frozenset()) -> None:
        self._directory = directory
        self._commands = commands
        self._changing = changing
        self._server: asyncio.Server | None = None
        self.has_tried = asyncio.Event()  # to listen, with or without success

    @property
    def path(self) -> str:
        return os.path.join(self._directory, SOCKET_NAME)

    async def start(self) -> None:
        """Listen. Raise OSError."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # of an agent that died; the state directory's lock says that none is alive
        mask = os.umask(0o117)
        try:
            with _short(self.path) as address:
                self._server = await asyncio.start_unix_server(self._serve, address, limit=_LONGEST_REQUEST)
        finally:
            os.umask(mask)

    async def keep_trying(self) -> None:
        """Listen, as soon as the directory takes a socket: it may be full or read-only now."""
        reason = ""
        while self._server is None:
            try:
                await self.start()
            except OSError as error:
                if str(error) != reason:
                    log.error("control.no_socket", path=self.path, reason=str(error), again_in_s=_RETRY_S)
                reason = str(error)
            self.has_tried.set()
            if self._server is None:
                await asyncio.sleep(_RETRY_S)
        if reason:
            log.info("control.listening", path=self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line, _peer(writer))
                writer.write(json.dumps(answer, default=str).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the other side hung up, or sent a line longer than the limit
        finally:
            writer.close()

    async def _answer(self, line: bytes, uid: int | None) -> dict[str, Any]:
        try:
            request = json.loads(line)
            name = request["command"]
            command = self._commands[name]
        except (ValueError, TypeError, KeyError):
            return {"error": f"unknown command; there are {', '.join(sorted(self._commands))}"}
        if name in self._changing:
            log.info("control.command", command=name, uid=uid)
        try:
            return {"ok": await command(request)}
        except ControlError as error:
            return {"error": str(error)}


def _peer(writer: asyncio.StreamWriter) -> int | None:
    """The user id at the other end, None where the system does not tell."""
    connection = writer.get_extra_info("socket")
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except (OSError, AttributeError):
        return None
    uid: int = struct.unpack("3i", raw)[1]
    return uid


def ask(path: str, command: str, *, timeout_s: float = _ANSWER_TIMEOUT_S, **arguments: Any) -> Any:
    """Client side: the answer to one command.

    Raise ControlError, OSError when no agent listens there, TimeoutError when it does not answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        with _short(path) as address:
            connection.connect(address)
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line:
        raise ControlError("the agent hung up without an answer")
    answer = json.loads(line)
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["ok"]


@contextlib.contextmanager
def _short(path: str) -> Any:
    """A name for `path` that fits a socket address (108 bytes) however deep the directory is."""
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
