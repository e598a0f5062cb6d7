"""The other side of the socket: one request on a connection that systemd accepted, from somebody who may ask.

What is asked for is a verb and the name of a job, `run etc`; what the job does stands in a file of root's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
import socket
import struct
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from backup.errors import Refused
from backup.job import check_job_name

VERBS = ("run", "drill")
REQUEST_S = 10.0  # for the one line
_FIRST = 3  # the descriptor that systemd hands over
_MOST_REQUEST = max(map(len, VERBS)) + 1 + 32 + 1  # bytes: verb, space, name, line break
_FORM = f"write one line, like 'run etc'; the verbs are {', '.join(VERBS)}"


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for. `uid`: who, as the kernel says."""

    verb: str
    job: str
    uid: int


def handed_over(environ: Mapping[str, str] = os.environ) -> socket.socket:
    """The connection that systemd accepted for us. Raise Refused where there is none."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or environ.get("LISTEN_FDS") != "1":
        raise Refused("no connection was handed over; systemd starts this through vigilhost-backup.socket")
    try:
        connection = socket.socket(fileno=_FIRST)
        is_right = connection.family == socket.AF_UNIX and connection.type == socket.SOCK_STREAM
    except OSError as error:
        raise Refused(f"descriptor {_FIRST} is no socket: {error}") from error
    if not is_right or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise Refused(f"descriptor {_FIRST} is no accepted unix connection; the socket unit needs Accept=yes")
    connection.set_inheritable(False)
    return connection


def peer(connection: socket.socket) -> int:
    """The user id of the process that connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def users(names: Collection[str]) -> frozenset[int]:
    """Numbers of the users that may ask: root, and those of these names that there are."""
    found = {0}
    for name in names:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return frozenset(found)


def read_request(connection: socket.socket, allowed: Collection[int], wait_s: float = REQUEST_S) -> Request:
    """The request. Raise Refused, with the words for who asked."""
    uid = peer(connection)
    if uid not in allowed:
        raise Refused(f"user {uid} may not have jobs run; only root and the agent may")
    line, newline, rest = _read_line(connection, wait_s).partition(b"\n")
    if not newline:
        raise Refused(f"the request is longer than {_MOST_REQUEST} bytes or has no line break; {_FORM}")
    if rest:
        raise Refused(f"more than one request came; {_FORM}, on each connection")
    verb, _, job = line.decode("ascii", "replace").partition(" ")
    if verb not in VERBS:
        raise Refused(f"{verb[:32]!r} is no request; {_FORM}")
    try:
        check_job_name(job)
    except ValueError as error:
        raise Refused(f"{job!r} {error}") from error
    return Request(verb, job, uid)


def _read_line(connection: socket.socket, wait_s: float) -> bytes:
    """All that came until a line was whole, the other side was done, or it was too much. Raise Refused."""
    ends_at = monotonic() + wait_s
    got = b""
    while b"\n" not in got and len(got) <= _MOST_REQUEST:
        connection.settimeout(max(0.001, ends_at - monotonic()))
        try:
            part = connection.recv(_MOST_REQUEST + 1)
        except TimeoutError:
            raise Refused(f"no request came within {wait_s:g} s; {_FORM}") from None
        except OSError as error:
            raise Refused(f"the connection broke: {error}") from error
        if not part:
            break
        got += part
    connection.settimeout(None)
    return got


def answer(connection: socket.socket, event: Mapping[str, Any]) -> None:
    """One JSON line; somebody who has gone gets none."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(event, default=str).encode() + b"\n")


def hang_up(connection: socket.socket) -> None:
    """Close it so that the other side gets all that was said: bytes that were never read would reset it instead."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16, socket.MSG_DONTWAIT):
            pass
    connection.close()


def end_with(connection: socket.socket) -> None:
    """From now on SIGTERM comes to us as soon as the other side goes away, or sends anything more.

    A worker ends in good order then. Somebody who only closes the half that we read from is still there.
    """
    threading.Thread(target=_watch, args=(connection,), name="the other side", daemon=True).start()


def _watch(connection: socket.socket) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        ((_, flags),) = poll.poll()
        with contextlib.suppress(OSError):
            if not flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL) and not connection.recv(1):
                poll.modify(connection, 0)
                continue
        os.kill(os.getpid(), signal.SIGTERM)
        return
