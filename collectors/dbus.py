"""As much D-Bus as a collector needs: method calls to a bus over its unix socket, and their answers.

The protocol: dbus.freedesktop.org/doc/dbus-specification.html. Calls are sent together and their answers read
together, so that a hundred of them cost few system calls. No signals, no introspection, no descriptors.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import source_error

METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, _, SIGNATURE = range(1, 9)

_MOST_BYTES = 16 << 20  # of one message; a thousand units fit in 0.3 MB
_MOST_NESTING = 32
_AT_ONCE = 64  # calls on their way; the system bus refuses more than 128 unanswered ones
_ALIGNMENT = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "s": 4, "o": 4, "g": 1, "h": 4,
              "a": 4, "(": 8, "{": 8, "v": 1}  # fmt: skip
_NUMBERS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}


class DBusError(SourceError):
    """The bus or a service on it answered with an error, or with what is not D-Bus."""


class Call(NamedTuple):
    """A method call whose arguments are all strings, which is all that asking takes."""

    destination: str
    path: str
    interface: str
    member: str
    arguments: tuple[str, ...] = ()


class Connection:
    """One authenticated connection. Not thread-safe. Close it after any SourceError that is no DBusError answer.

    `has_bus` is False for a service's private socket, where nobody gives out names. Raise SourceMissing when there is
    no socket, SourceError when nobody answers within `timeout` seconds or access is denied.
    """

    def __init__(self, path: str, timeout: float, *, has_bus: bool = True) -> None:
        self._path = path
        self._timeout = timeout
        self._serial = 0
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._deadline = time.monotonic() + timeout
            self._guard(lambda: self._socket.connect(path))
            self._authenticate()
            if has_bus:
                hello = Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
                answer = self.calls([hello])[0]
                if isinstance(answer, DBusError):
                    raise answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self.close()

    def calls(self, calls: Sequence[Call]) -> list[list[Any] | DBusError]:
        """The answers' values, or the error each call was answered with, in the order of the calls.

        Raise SourceError when the connection is lost, or all answers do not come within the timeout.
        """
        self._deadline = time.monotonic() + self._timeout
        answers: list[list[Any] | DBusError] = []
        for at in range(0, len(calls), _AT_ONCE):
            answers += self._batch(calls[at : at + _AT_ONCE])
        return answers

    def _batch(self, calls: Sequence[Call]) -> list[list[Any] | DBusError]:
        places: dict[int, int] = {}
        message = bytearray()
        for at, call in enumerate(calls):
            self._serial += 1
            places[self._serial] = at
            message += encode_call(call, self._serial)
        answers: list[list[Any] | DBusError] = [DBusError("no answer")] * len(calls)
        self._guard(lambda: self._socket.sendall(message))
        while places:
            kind, fields, body, order = self._message()
            place = places.pop(fields.get(REPLY_SERIAL, 0), None)
            if place is None:  # a signal, such as NameAcquired
                continue
            if kind == METHOD_RETURN:
                answers[place] = decode_body(fields.get(SIGNATURE, ""), body, order)
            else:
                answers[place] = DBusError(_error_text(fields, body, order))
        return answers

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the kernel vouches for our user id."""
        user = str(os.geteuid()).encode().hex()
        self._guard(lambda: self._socket.sendall(b"\0AUTH EXTERNAL " + user.encode() + b"\r\n"))
        while b"\r\n" not in self._received:
            self._receive()
            if len(self._received) > 4096:
                raise DBusError(f"{self._path}: does not speak D-Bus")
        line, _, rest = bytes(self._received).partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise DBusError(f"{self._path}: access refused: {line[:80].decode(errors='replace')}")
        self._received = bytearray(rest)
        self._guard(lambda: self._socket.sendall(b"BEGIN\r\n"))

    def _message(self) -> tuple[int, dict[int, Any], bytes, str]:
        """Type, header fields, body and byte order of the next message."""
        head = self._peek(16)
        order = {0x6C: "<", 0x42: ">"}.get(head[0], "")
        if not order or head[3] != 1:
            raise DBusError(f"{self._path}: what came is not D-Bus")
        body_length, _, fields_length = struct.unpack_from(f"{order}III", head, 4)
        body_start = 16 + -(-fields_length // 8) * 8
        total = body_start + body_length
        if total > _MOST_BYTES:
            raise DBusError(f"{self._path}: a message of {total} bytes")
        message = self._peek(total)
        del self._received[:total]
        fields = decode_body("a(yv)", message[12 : 16 + fields_length], order, offset=12)[0]
        return message[1], dict(fields), message[body_start:], order

    def _peek(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        return bytes(self._received[:count])

    def _receive(self) -> None:
        chunk = self._guard(lambda: self._socket.recv(65536))
        if not chunk:
            raise SourceError(f"{self._path}: connection closed by the other side")
        self._received += chunk

    def _guard(self, call: Callable[[], Any]) -> Any:
        """A socket call within what is left of the deadline, its failure as a SourceError."""
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            return call()
        except TimeoutError as error:
            raise SourceError(f"{self._path}: no answer within {self._timeout:g} s") from error
        except OSError as error:
            error.filename = error.filename or self._path
            raise source_error(error) from error


def _error_text(fields: Mapping[int, Any], body: bytes, order: str) -> str:
    name = str(fields.get(ERROR_NAME, "an error without a name"))
    values = decode_body(fields.get(SIGNATURE, ""), body, order)
    return f"{name}: {values[0]}" if values and isinstance(values[0], str) else name


def encode_call(call: Call, serial: int) -> bytes:
    """The message, little-endian. On a private socket the destination may be empty."""
    body = bytearray()
    for argument in call.arguments:
        _put_string(body, argument)
    fields = bytearray()
    signature = "s" * len(call.arguments)
    for code, kind, value in (
        (PATH, "o", call.path),
        (INTERFACE, "s", call.interface),
        (MEMBER, "s", call.member),
        (DESTINATION, "s", call.destination),
        (SIGNATURE, "g", signature),
    ):
        if value:
            fields += b"\0" * (-len(fields) % 8)
            fields += bytes((code, 1, ord(kind), 0))
            if kind == "g":
                fields += bytes((len(value),)) + value.encode() + b"\0"
            else:
                _put_string(fields, value)
    head = struct.pack("<4BIII", 0x6C, METHOD_CALL, 0, 1, len(body), serial, len(fields))
    return head + fields + b"\0" * (-len(fields) % 8) + body


def _put_string(buffer: bytearray, text: str) -> None:
    """Append a string; `buffer` starts at an offset divisible by eight."""
    buffer += b"\0" * (-len(buffer) % 4)
    encoded = text.encode()
    buffer += struct.pack("<I", len(encoded)) + encoded + b"\0"


def decode_body(signature: str, body: bytes, order: str = "<", *, offset: int = 0) -> list[Any]:
    """Values of a message part: numbers, str, lists, tuples for structs, dicts, variants as their value.

    `offset` is where `body` stands in the message, modulo eight. Raise DBusError for what does not fit the signature.
    """
    try:
        return _Decoder(body, order, offset).values(signature)
    except (struct.error, IndexError, KeyError, ValueError, TypeError) as error:
        raise DBusError(f"a message that does not fit its signature {signature[:60]!r}") from error


class _Decoder:
    """Reads values one after another. Raise struct.error, IndexError, KeyError, ValueError or TypeError."""

    def __init__(self, data: bytes, order: str, offset: int) -> None:
        self._data = data
        self._order = order
        self._shift = offset % 8
        self._at = 0
        self._nesting = 0

    def values(self, signature: str) -> list[Any]:
        return [self._read(kind) for kind in split_signature(signature)]

    def _align(self, size: int) -> None:
        self._at += -(self._at + self._shift) % size

    def _number(self, code: str, size: int) -> Any:
        self._align(size)
        (value,) = struct.unpack_from(self._order + code, self._data, self._at)
        self._at += size
        return value

    def _text(self, length: int) -> str:
        end = self._at + length
        if end >= len(self._data):
            raise IndexError
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end + 1
        return text

    def _read(self, kind: str) -> Any:
        first = kind[0]
        if first in "so":
            return self._text(self._number("I", 4))
        if first in _NUMBERS:
            return self._number(_NUMBERS[first], _ALIGNMENT[first])
        if first == "b":
            return self._number("I", 4) != 0
        if first == "g":
            return self._text(self._number("B", 1))
        self._nesting += 1
        if self._nesting > _MOST_NESTING:
            raise ValueError
        value = self._container(first, kind)
        self._nesting -= 1
        return value

    def _container(self, first: str, kind: str) -> Any:
        if first == "v":
            (inner,) = split_signature(self._text(self._number("B", 1)))
            return self._read(inner)
        if first == "(":
            self._align(8)
            return tuple([self._read(part) for part in split_signature(kind[1:-1])])
        return self._array(kind[1:])

    def _array(self, kind: str) -> Any:
        end = self._number("I", 4)
        self._align(_ALIGNMENT[kind[0]])
        end += self._at
        if end > len(self._data):
            raise IndexError
        if kind[0] != "{":
            items = []
            while self._at < end:
                items.append(self._read(kind))
            return items
        key, value = split_signature(kind[1:-1])
        pairs = {}
        while self._at < end:
            self._align(8)
            name = self._read(key)
            pairs[name] = self._read(value)
        return pairs


_split: dict[str, tuple[str, ...]] = {}  # signatures come from few programs, and recur with each message


def split_signature(signature: str) -> tuple[str, ...]:
    """The complete types of a signature: `sa{sv}(ii)` is `s`, `a{sv}`, `(ii)`. Raise ValueError for a bad one."""
    if signature in _split:
        return _split[signature]
    parts, at = [], 0
    while at < len(signature):
        end = _end_of_type(signature, at, 0)
        parts.append(signature[at:end])
        at = end
    if len(_split) > 1000:
        _split.clear()
    _split[signature] = tuple(parts)
    return _split[signature]


def _end_of_type(signature: str, at: int, depth: int) -> int:
    if at >= len(signature) or depth > _MOST_NESTING:
        raise ValueError(signature)
    first = signature[at]
    if first == "a":
        return _end_of_type(signature, at + 1, depth + 1)
    if first in "({":
        close, start = {"(": ")", "{": "}"}[first], at
        at += 1
        while at < len(signature) and signature[at] != close:
            at = _end_of_type(signature, at, depth + 1)
        if at >= len(signature) or at == start + 1:
            raise ValueError(signature)
        return at + 1
    if first not in _ALIGNMENT:
        raise ValueError(signature)
    return at + 1
