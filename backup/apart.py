"""A restore drill in a process without rights: it gets an archive as an open descriptor, and answers what it found.

What an archive holds may be an enemy's work, and a drill unpacks it and has servers read it. So the process that does
is told no more than it needs: the kind of source with its plain options (never a secret), what the manifest says of the
archive, the assertions, and the private key where the archive is encrypted. Each side speaks one JSON line.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, BinaryIO, Literal

import msgspec

from agent.core.secrets import Secret
from backup.assertions import Assertion, Outcome
from backup.children import PATH, close_all, program
from backup.errors import BackupError, Damaged, Refused
from backup.job import Job
from backup.manifest import Archive
from backup.redact import secrets_in
from backup.source import Work

_MOST_LINE = 32 << 20  # bytes: a manifest's row estimates are the largest part
_LOOK_S = 0.2  # how often the run's own end is looked at while we wait
_CONNECT_S = 30.0
_MOST_DESCRIPTORS = 2  # the archive and the private key

Connect = Callable[[], AbstractContextManager[socket.socket]]


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be drilled. `options`: of the source, those that hold no secret, as plain values."""

    source: str
    options: Mapping[str, Any]
    job: str
    host: str
    archive: Archive
    assertions: list[Assertion]
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it. `error`: why nothing could be looked at. `took_s`: without the start of the process.

    `kind`: whether the error is the archive's (failed), or says nothing about it (refused).
    """

    outcomes: list[Outcome] = field(default_factory=list)
    took_s: float = 0.0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    kind: Literal["failed", "refused"] = "failed"


@dataclass(frozen=True, slots=True)
class Apart:
    """Drills archives of a job in another process, which `connect` reaches."""

    job: Job
    host: str
    connect: Connect
    unheard: str  # where to look when it says nothing

    def drill(self, archive: Archive, file: BinaryIO, work: Work, assertions: Sequence[Assertion],
              identity: str | None) -> tuple[Sequence[Outcome], float]:  # fmt: skip
        """Hand over a proved archive; what was found, and in how many seconds. Raise BackupError, Refused, Stopped."""
        ends_at = work.guard.ends_at
        task = Task(
            self.job.plugin.type, _plain(self.job.plugin.options), self.job.name, self.host, archive,
            list(assertions), 86400.0 if ends_at is None else max(1.0, ends_at - monotonic()),
        )  # fmt: skip
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self.connect())
            descriptors = [file.fileno()]
            if identity is not None and archive.recipients:
                descriptors.append(stack.enter_context(open(identity, "rb")).fileno())
            send(connection, task, descriptors)
            line = _wait_for_line(connection, work)
        if not line:
            raise BackupError(f"the drill's process ended without an answer; see {self.unheard}")
        found = msgspec.json.decode(line, type=Found)
        for warning in found.warnings:
            work.warn(warning)
        if found.error is not None:
            raise (Refused if found.kind == "refused" else BackupError)(found.error)
        return found.outcomes, found.took_s


# How the process is reached.


@contextlib.contextmanager
def behind(path: str) -> Iterator[socket.socket]:
    """A process that systemd starts behind the socket `path`. Raise Refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_S)
        try:
            connection.connect(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Refused(f"{path}: {reason}; systemctl start vigilhost-drill.socket") from error
        connection.settimeout(None)
        yield connection


@contextlib.contextmanager
def child(argv: Sequence[str], scratch: str, user: str | None) -> Iterator[socket.socket]:
    """A child that works in `scratch` and becomes `user` before it looks at anything. `argv`: its command."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    number = str(its.fileno())
    more = ["--connection", number, "--scratch", scratch, *(["--become", user] if user is not None else [])]
    with mine:
        with its:
            process = subprocess.Popen(
                [program("setpriv"), "--pdeathsig", "KILL", "--no-new-privs", "--inh-caps=-all", "--", *argv, *more],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(its.fileno(),), cwd="/",
                env={"PATH": PATH, "LANG": "C.UTF-8", **_only(os.environ, "PYTHONPATH")}, start_new_session=True,
            )  # fmt: skip
        try:
            yield mine
        finally:
            mine.close()  # it ends in good order, its programs first
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _only(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: environ[name] for name in names if name in environ}


def _wait_for_line(connection: socket.socket, work: Work) -> bytes:
    """Up to the line break or the other side's end. Raise Stopped."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    got = bytearray()
    while b"\n" not in got[-1:] and len(got) < _MOST_LINE:
        work.guard.check()
        if poll.poll(_LOOK_S * 1000):
            try:
                part = connection.recv(1 << 20)
            except OSError:
                return b""
            if not part:
                return b""
            got += part
    return bytes(got)


# What both sides say.


def send(connection: socket.socket, task: Task, descriptors: Sequence[int]) -> None:
    """The task with the archive's descriptor, and that of the private key where there is one. Raise Refused."""
    line = msgspec.json.encode(task) + b"\n"
    try:
        sent = socket.send_fds(connection, [line], descriptors)
        connection.sendall(line[sent:])
    except OSError as error:
        raise Refused(f"the drill's process takes no task: {error}") from error


def receive(connection: socket.socket) -> tuple[Task, BinaryIO, BinaryIO | None]:
    """The task, the archive, and the private key. Raise Damaged."""
    descriptors: list[int] = []
    try:
        task = _receive(connection, descriptors)
    except BaseException:
        close_all(*descriptors)
        raise
    files = [os.fdopen(descriptor, "rb", buffering=0) for descriptor in descriptors]
    return task, files[0], files[1] if len(files) > 1 else None


def _receive(connection: socket.socket, descriptors: list[int]) -> Task:
    got = bytearray()
    while b"\n" not in got[-1:]:
        part, came, _, _ = socket.recv_fds(connection, 1 << 20, _MOST_DESCRIPTORS)
        descriptors += came
        got += part
        if not part or len(got) > _MOST_LINE or len(descriptors) > _MOST_DESCRIPTORS:
            raise Damaged("the task broke off, or is too long")
    if not descriptors:
        raise Damaged("no archive came with the task")
    try:
        return msgspec.json.decode(got, type=Task)
    except msgspec.DecodeError as error:
        raise Damaged(f"is no task: {error}") from error


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that can be told, as plain values: those with a secret stay here."""
    told = {name: value for name, value in options.items() if next(secrets_in(value), None) is None}
    made: dict[str, Any] = msgspec.to_builtins(told, enc_hook=_as_text)
    return made


def _as_text(value: object) -> str:
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    raise NotImplementedError(type(value).__name__)


def options_from(told: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were before `_plain`, by the type of each. Raise Damaged."""
    try:
        return {name: msgspec.convert(value, kinds[name], dec_hook=_from_text) for name, value in told.items()}
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise Damaged(f"the source's options are not what they should be: {error}") from error


def _from_text(kind: type, value: object) -> object:
    if kind is re.Pattern:
        return re.compile(str(value))
    raise TypeError(f"{kind.__name__}: {'is never told' if kind is Secret else 'cannot be told'}")
