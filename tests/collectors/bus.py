"""A stand-in for systemd behind a D-Bus socket: it answers ListUnits and Get from a table, as a bus would pass it on.

It encodes its messages with code of its own, so that the client's reading is tested against a second opinion.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Answer = tuple[str, bytes]  # signature, body
ERROR = "!"  # as a signature: the answer is an error of that name


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded + b"\0"


def padded(data: bytes, size: int) -> bytes:
    return data + b"\0" * (-len(data) % size)


def units(rows: list[tuple[str, str, str, str]]) -> Answer:
    """ListUnits' answer for (name, load, active, sub)."""
    array = b""
    for name, load, active, sub in rows:
        array = padded(array, 8)
        for word in (name, f"About {name}", load, active, sub, "", path_of(name)):
            array = padded(array, 4) + text(word)
        array = padded(array, 4) + struct.pack("<I", 0)
        array += text("")
        array = padded(array, 4) + text("/")
    return "a(ssssssouso)", struct.pack("<II", len(array), 0) + array


def path_of(name: str) -> str:
    return "/org/freedesktop/systemd1/unit/" + name.encode().hex()


def variant(kind: str, value: int | str) -> Answer:
    body = bytes((1,)) + kind.encode() + b"\0"
    if isinstance(value, str):
        return "v", padded(body, 4) + text(value)
    size = {"u": 4, "t": 8}[kind]
    return "v", padded(body, size) + value.to_bytes(size, "little")


def message(kind: int, reply_to: int, answer: Answer) -> bytes:
    signature, body = answer
    fields = bytes((5, 1)) + b"u\0" + struct.pack("<I", reply_to)
    if signature == ERROR:
        kind, name, signature, body = 3, body.decode(), "s", text("the stand-in says no")
        fields = padded(fields, 8) + bytes((4, 1)) + b"s\0" + text(name)
    fields = padded(fields, 8) + bytes((8, 1)) + b"g\0" + bytes((len(signature),)) + signature.encode() + b"\0"
    return padded(struct.pack("<4BIII", ord("l"), kind, 0, 1, len(body), 1, len(fields)) + fields, 8) + body


class StandInBus:
    """Serves `answers`, by (path, member, arguments); what is not there is an UnknownProperty error."""

    def __init__(self, path: Path, answers: dict[tuple[str, ...], Answer]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, ...]] = []
        self.greeting = b"OK 0123456789abcdef0123456789abcdef\r\n"
        self.raw: Callable[[], bytes] | None = None  # what it sends instead of an answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            try:
                stream.readline()
                stream.write(self.greeting)
                stream.flush()
                if stream.readline() != b"BEGIN\r\n":
                    return
                while head := stream.read(16):
                    self._answer(stream.write, *self._call(head, stream.read))
                    stream.flush()
            except OSError:  # the client hung up in the middle
                pass

    def _call(self, head: bytes, read: Callable[[int], bytes]) -> tuple[int, tuple[str, ...]]:
        body_length, serial, fields_length = struct.unpack("<III", head[4:])
        fields = read(-(-fields_length // 8) * 8)
        body = read(body_length)
        words = {}
        at = 0
        while at < fields_length:
            at += -at % 8
            code, kind = fields[at], chr(fields[at + 2])
            size = fields[at + 4] if kind == "g" else struct.unpack_from("<I", fields, at + 4)[0]
            start = at + (5 if kind == "g" else 8)
            words[code] = fields[start : start + size].decode()
            at = start + size + 1
        arguments = []
        at = 0
        for _ in words.get(8, ""):
            at += -at % 4
            (size,) = struct.unpack_from("<I", body, at)
            arguments.append(body[at + 4 : at + 4 + size].decode())
            at += 5 + size
        return serial, (words[1], words[3], *arguments)

    def _answer(self, write: Callable[[bytes], object], serial: int, call: tuple[str, ...]) -> None:
        self.calls.append(call)
        if call[1] == "Hello":
            write(message(2, serial, ("s", text(":1.7"))))
            write(message(4, 0, ("s", text(":1.7"))))  # the NameAcquired signal that a bus sends unasked
        elif self.raw is not None:
            write(self.raw())
        else:
            unknown = (ERROR, b"org.freedesktop.DBus.Error.UnknownProperty")
            write(message(2, serial, self.answers.get(call, unknown)))

    def hang_up(self) -> None:
        """Close every connection, as a bus does that is restarted."""
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was first
                pass
        self._open.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def stand_in_bus(path: Path, answers: dict[tuple[str, ...], Answer]) -> Iterator[StandInBus]:
    bus = StandInBus(path, answers)
    try:
        yield bus
    finally:
        bus.close()
