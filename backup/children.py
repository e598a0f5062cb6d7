"""Programs that do the work: started without a shell, watched, ended whole, and every exit status looked at.

Each pipeline is a process group of its own. A program dies with us even when we are killed (`setpriv --pdeathsig`);
the kernel ties that to the thread that started it, so a thread that starts a program stays until it has ended.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Self

from backup.errors import BackupError, SourceFailed, Stopped
from backup.redact import Redactor

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAIL_BYTES = 4 << 10  # of what a program says, kept for the error
MOST_LINE_BYTES = 4 << 10
MOST_OUTPUT_BYTES = 4 << 20  # of a program whose output is an answer
PIPE_BYTES = 1 << 20  # the most that the kernel gives to anybody by default
_F_SETPIPE_SZ = 1031
_LAST_WORDS_S = 2.0  # for reading stderr after the programs have ended


@dataclass(frozen=True, slots=True)
class Step:
    """One program of a pipeline.

    `user`: who it runs as; None is who we are. `warning_statuses`: exit statuses that are worth a warning, not an
    error (tar's 1). `on_line` gets each line of its stderr. `is_wordy`: it writes much by way of C's stdio, which hands
    4 KiB at a time to a pipe.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    warning_statuses: frozenset[int] = frozenset()
    on_line: Callable[[str], None] | None = None
    is_wordy: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """How a program ended: its exit status, or minus the signal that ended it."""

    argv: tuple[str, ...]
    code: int
    stderr: str  # its end, without secrets
    is_warning: bool

    @property
    def is_failure(self) -> bool:
        return self.code != 0 and not self.is_warning

    def __str__(self) -> str:
        how = f"exited {self.code}" if self.code >= 0 else f"was ended by {signal_name(-self.code)}"
        return f"{os.path.basename(self.argv[0])} {how}{': ' if self.stderr else ''}{one_line(self.stderr)}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def one_line(text: str, most: int = 500) -> str:
    """The end of a text on one line, which is where programs say what went wrong."""
    joined = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    printable = "".join(char if char.isprintable() else "?" for char in joined)
    return printable if len(printable) <= most else "..." + printable[-most:]


class Guard:
    """Ends everything that runs, once: at the deadline, when asked, or with `parent`.

    What was ended so raises Stopped. Any thread may ask; a signal handler may not, for it may have interrupted us.
    """

    def __init__(self, deadline_s: float | None = None, what: str = "it", parent: Guard | None = None) -> None:
        ends = [] if deadline_s is None else [monotonic() + deadline_s]
        if parent is not None and parent.ends_at is not None:
            ends.append(parent.ends_at)
        self.ends_at: float | None = min(ends, default=None)
        self.reason: str | None = None
        self._lock = threading.Lock()
        self._members: set[Group | Guard] = set()
        self._is_over = threading.Event()
        self._timer: threading.Timer | None = None
        self._parent = parent
        if deadline_s is not None:
            said = f"{what} did not end within {deadline_s:g} s; raise limits.deadline, or see what it waited for"
            self._timer = threading.Timer(deadline_s, self.stop, (said,))
            self._timer.daemon = True
            self._timer.start()
        if parent is not None:
            parent.add(self)

    def stop(self, reason: str) -> None:
        """Kill what runs now and whatever is started later; only the first reason counts."""
        with self._lock:
            self.reason = self.reason or reason
            members = list(self._members)
        self._is_over.set()
        for member in members:  # not under our lock: who starts a program holds the group's, and may ask us
            member.kill()

    def kill(self) -> None:
        """Stop for the parent's reason."""
        assert self._parent is not None
        self.stop(self._parent.reason or "it was stopped")

    def check(self) -> None:
        """Raise Stopped once stop() was called."""
        if self.reason is not None:
            raise Stopped(self.reason)

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until the stop. Raise Stopped."""
        self._is_over.wait(min(max(0.0, seconds), threading.TIMEOUT_MAX))
        self.check()

    def add(self, member: Group | Guard) -> None:
        with self._lock:
            self._members.add(member)
            is_over = self.reason is not None
        if is_over:
            member.kill()

    def remove(self, member: Group | Guard) -> None:
        with self._lock:
            self._members.discard(member)

    def close(self) -> None:
        """It is not needed any more: its deadline does not come."""
        if self._timer is not None:
            self._timer.cancel()
        if self._parent is not None:
            self._parent.remove(self)


class Group:
    """Programs in one process group. Leaving the `with` block ends and reaps all of them."""

    def __init__(self, guard: Guard, redact: Redactor) -> None:
        self._guard = guard
        self._redact = redact
        self._children: list[_Child] = []
        self._is_over = False
        self._lock = threading.Lock()
        self._waiting = threading.Lock()

    def __enter__(self) -> Self:
        self._guard.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:  # fmt: skip
        self.kill()
        self.wait()
        self._guard.remove(self)

    def start(self, step: Step, stdin: int, stdout: int) -> None:
        """Start one program; the descriptors stay the caller's to close. Raise BackupError when it cannot be had."""
        argv = [program("setpriv"), "--pdeathsig", "KILL", *identity(step.user), "--",
                *(_larger_writes() if step.is_wordy else ()), program(step.argv[0]), *step.argv[1:]]  # fmt: skip
        with self._lock:
            self._guard.check()
            leader = self._children[0].process.pid if self._children else 0
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=_environment(step), cwd="/",
                process_group=leader,
            )  # fmt: skip
            self._children.append(_Child(step, process, self._redact))

    def kill(self) -> None:
        """SIGKILL to the group, grandchildren included."""
        with self._lock:
            if self._children and not self._is_over:
                try:
                    os.killpg(self._children[0].process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass  # all of it has ended; or what is left runs as another user, whom only root can kill
                for child in self._children:
                    child.kill()

    def wait(self) -> list[Status]:
        """Every program's end, in the order they were started; then nothing of the group is left running.

        Any thread may call it, and again.
        """
        with self._waiting:
            if not self._is_over:
                for child in self._children:
                    # Not reaped yet: until then nobody else can get the group's number.
                    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
                self.kill()  # what they left behind in the background would hold the pipes open
                with self._lock:
                    self._is_over = True
                    for child in self._children:
                        child.process.wait()
                for child in self._children:
                    child.hear_out()
        return [child.status() for child in self._children]

    def wait_aside(self) -> threading.Thread:
        """Wait on a thread, so that pipes held open by what was left in the background end too."""
        thread = threading.Thread(target=self.wait, name="waiting", daemon=True)
        thread.start()
        return thread


class _Child:
    """A program that was started, and the thread that reads what it says."""

    def __init__(self, step: Step, process: subprocess.Popen[bytes], redact: Redactor) -> None:
        self.step = step
        self.process = process
        self._redact = redact
        self._tail = b""
        self._reader = threading.Thread(target=self._read, name=f"stderr of {step.argv[0]}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            while line := stream.readline(MOST_LINE_BYTES):
                self._tail = (self._tail + line)[-TAIL_BYTES:]
                if self.step.on_line is not None:
                    self.step.on_line(self._redact(line.decode("utf-8", "replace").rstrip("\n")))

    def kill(self) -> None:
        # Not Popen.send_signal, which would reap it: until wait() has, the number is still its own.
        try:
            os.kill(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # it runs as a user over whom we have no power; pdeathsig has

    def hear_out(self) -> None:
        self._reader.join(_LAST_WORDS_S)

    def status(self) -> Status:
        code = self.process.returncode
        text = self._redact(self._tail.decode("utf-8", "replace")).strip()
        argv = tuple(map(self._redact, self.step.argv))
        return Status(argv, code, text, code in self.step.warning_statuses)


def check_statuses(statuses: Iterable[Status], kind: type[BackupError] = SourceFailed) -> list[str]:
    """The warnings. Raise `kind` naming the program that failed first in fact, not the ones that its end took along."""
    statuses = list(statuses)
    failed = [status for status in statuses if status.is_failure]
    if failed:
        # Who was cut off by a broken pipe is a victim, unless there is no other.
        culprit = next((status for status in failed if status.code != -signal.SIGPIPE), failed[0])
        raise kind(str(culprit))
    return [str(status) for status in statuses if status.is_warning]


def run(step: Step, guard: Guard, redact: Redactor, *, stdin: int | None = None, stdout: int | None = None,
        kind: type[BackupError] = SourceFailed) -> bytes:  # fmt: skip
    """Run one program to its end. Its output, empty where `stdout` takes it. Raise `kind` when it fails."""
    read_end, write_end = pipe() if stdout is None else (-1, stdout)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else stdin
    try:
        with Group(guard, redact) as group:
            group.start(step, null, write_end)
            if stdout is None:
                os.close(write_end)
                write_end = -1
            if stdout is None:
                group.wait_aside()
            output = _read_all(read_end, step) if stdout is None else b""
            statuses = group.wait()
        guard.check()
        check_statuses(statuses, kind)
        return output
    finally:
        close_all(read_end, write_end if stdout is None else -1, null if stdin is None else -1)


def _read_all(descriptor: int, step: Step) -> bytes:
    parts, size = [], 0
    while part := os.read(descriptor, 1 << 16):
        size += len(part)
        if size > MOST_OUTPUT_BYTES:
            raise SourceFailed(f"{step.argv[0]}: answered with more than {MOST_OUTPUT_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def pipe() -> tuple[int, int]:
    """Both ends of an anonymous pipe, as large as the kernel lets us make it."""
    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # users with many pipes get small ones, which are slower and no less right
    return read_end, write_end


def close_all(*descriptors: int) -> None:
    """Close each that is one (-1 is none)."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _larger_writes() -> tuple[str, ...]:
    """What has a program write half a pipe at once: half as many switches between it and who reads. Only speed."""
    found = shutil.which("stdbuf", path=PATH)
    return () if found is None else (found, f"--output={PIPE_BYTES // 2}")


def program(name: str) -> str:
    """Absolute path of a program. Raise SourceFailed when it is not installed."""
    if os.path.isabs(name):
        return name
    found = shutil.which(name, path=PATH)
    if found is None:
        raise SourceFailed(f"{name}: no such program in {PATH}; install it")
    return found


def user_ids(user: str) -> tuple[int, int]:
    """Number of a user and of its group. Raise SourceFailed."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise SourceFailed(f"user: {user!r}: no such user on this host") from None
    return found.pw_uid, found.pw_gid


def identity(user: str | None) -> Sequence[str]:
    """The words with which setpriv becomes a user; none where that is who we are. Raise SourceFailed."""
    if user is None or user_ids(user)[0] == os.geteuid():
        return ()
    uid, gid = user_ids(user)
    return ("--reuid", str(uid), "--regid", str(gid), "--init-groups")


def _environment(step: Step) -> dict[str, str]:
    try:
        found = pwd.getpwnam(step.user) if step.user else pwd.getpwuid(os.geteuid())
        owner = {"HOME": found.pw_dir, "USER": found.pw_name, "LOGNAME": found.pw_name}
    except KeyError:
        owner = {"HOME": "/"}  # a user without an entry, as in containers
    return {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **owner, **step.environment}
