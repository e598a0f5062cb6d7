"""statvfs of mounts that may never answer, asked by a process that can be thrown away.

A call on a dead network or FUSE file system can sleep in the kernel where not even SIGKILL ends it, and a process with
one such thread does not end either: it keeps its memory, its descriptors, its port. So those calls are made by a helper
process that shares nothing with the agent but two pipes. One helper serves all mounts that answer; where one does not,
its helper is killed and left behind, and the other mounts get a new one.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from time import monotonic

from agent.core.errors import SourceError

START_S = 3.0  # a helper is up in 10 ms; from a cold and busy disk it takes longer
IDLE_S = 300.0  # a helper that nobody asks for as long ends itself
KILL_S = 0.1  # what SIGKILL ends at all it ends by then
REST_S = 45.0  # a mount whose helper could be killed would cost the whole deadline again at each try
PARDON_S = 30.0  # after this the deadlines that went by count no more against the next ones

# An errno, 0 for none, and the fields of os.statvfs_result. A pipe passes on as little as this in one piece.
_ANSWER = struct.Struct("=i10Q")
_READY = b"\n"
_LENGTH = struct.Struct("=I")

# What the helper runs, in an interpreter without `site`: 8.5 MB resident, 2.8 MB of them its own. It leaves when the
# agent closes its pipe, however the agent ended. `os._exit` because there is nothing to tidy up and nobody to tell.
HELPER = f"""
import os, select, struct
answer = struct.Struct({_ANSWER.format!r})
def take(size):
    taken = b""
    while len(taken) < size:
        piece = os.read(0, size - len(taken))
        if not piece:
            os._exit(0)
        taken += piece
    return taken
os.write(1, {_READY!r})
while select.select([0], [], [], {IDLE_S})[0]:
    path = take(*struct.unpack({_LENGTH.format!r}, take({_LENGTH.size})))
    try:
        os.write(1, answer.pack(0, *os.statvfs(path)[:10]))
    except OSError as error:
        os.write(1, answer.pack(error.errno or 5, *[0] * 10))
os._exit(0)
"""


class _Ended(Exception):
    """The helper closed its pipe: it was idle for too long, or was ended from outside."""


class _Helper:
    """One process that answers one path after another. Raise OSError where it cannot be started."""

    def __init__(self, argv: list[str]) -> None:
        # Popen starts it without copying the agent's threads (vfork), with signals reset and all descriptors closed.
        self._child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._questions, self._answers = self._child.stdin, self._child.stdout
        # A sleeping thread reaps it the moment it ends, be that in days: no zombie, and nobody has to look after it.
        self._reaper = threading.Thread(target=self._reap, name="stat-helper-reaper", daemon=True)
        self._signalling = threading.Lock()
        self._reaper.start()

    def _reap(self) -> None:
        try:
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # `kill` found it dead and was first
        with self._signalling:  # else its id might be another process's by the time `kill` uses it
            self._child.wait()

    @property
    def is_alive(self) -> bool:
        return self._reaper.is_alive()

    def is_ready(self) -> bool:
        """Wait for its first sign of life; False when it does not come in time. Raise _Ended."""
        return self._read(len(_READY), START_S) is not None

    def ask(self, path: bytes, patience: float) -> bytes | None:
        """The answer, None when there is none within `patience` seconds. Raise _Ended."""
        try:
            self._questions.write(_LENGTH.pack(len(path)) + path)
        except BrokenPipeError as error:
            raise _Ended from error
        return self._read(_ANSWER.size, patience)

    def _read(self, size: int, patience: float) -> bytes | None:
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if not poll.poll(patience * 1000):
            return None
        found = self._answers.read(size)
        if len(found) < size:
            raise _Ended
        return found

    def kill(self) -> None:
        """End it. May be called from any thread; whoever waits for its answer meets the end of the pipe."""
        with self._signalling:
            self._child.kill()

    def abandon(self) -> bool:
        """Kill it and take back the pipes; True when that ended it, False when the kernel does not let it go."""
        self.kill()
        self._questions.close()
        self._answers.close()
        self._reaper.join(KILL_S)
        return not self.is_alive


class StatHelper:
    """`stat_helper(path)` is os.statvfs(path) with a deadline. One caller at a time; others wait that long at most.

    `deadline`: seconds a mount may take to answer. Mounts that do not answer share an allowance of two deadlines, so
    that a dead server with twenty exports costs no more than that and a moment for each.
    `most`: processes at most, the one that answers included. `program`: what a helper runs.
    """

    def __init__(
        self, deadline: float = 2.0, most: int = 8, now: Callable[[], float] = monotonic, program: str = HELPER
    ) -> None:
        self.abandoned = 0  # helpers killed because their mount did not answer, ever
        self._deadline = deadline
        self._most = most
        self._now = now
        self._argv = [sys.executable, "-I", "-S", "-c", program]
        self._lock = threading.Lock()
        self._helper: _Helper | None = None  # the one that answers
        self._stuck: dict[str, _Helper] = {}  # killed, but still in the kernel, by the path they asked for
        self._resting: dict[str, float] = {}  # when to ask again a path whose helper could be killed
        self._lost_s = 0.0  # waited in vain, less what has been pardoned
        self._lost_at = 0.0
        self._is_closed = False

    @property
    def stuck(self) -> list[str]:
        """The paths whose helpers cannot be killed now."""
        return [path for path, helper in self._stuck.copy().items() if helper.is_alive]

    @property
    def processes(self) -> int:
        """Helpers alive now, stuck ones included."""
        helper = self._helper
        return len(self.stuck) + (helper is not None and helper.is_alive)

    def __call__(self, path: str) -> os.statvfs_result:
        """Raise OSError as os.statvfs does, TimeoutError without an answer, SourceError without a helper to ask."""
        if not self._lock.acquire(timeout=self._deadline):
            raise TimeoutError(f"{path}: another mount is still being asked")
        try:
            self._refuse_dead(path)
            answer = self._answer_to(path)
        finally:
            self._lock.release()
        code, *fields = _ANSWER.unpack(answer)
        if code:
            raise OSError(code, os.strerror(code), path)
        return os.statvfs_result(fields)

    def _refuse_dead(self, path: str) -> None:
        """Raise TimeoutError where the path, or a mount on the way to it, has an ask that did not come back."""
        now = self._now()
        self._stuck = {other: helper for other, helper in self._stuck.items() if helper.is_alive}
        self._resting = {other: until for other, until in self._resting.items() if now < until}
        for other in (*self._stuck, *self._resting):
            if path == other or path.startswith(other.rstrip("/") + "/"):
                raise TimeoutError(f"{other}: no answer to an earlier call")

    def _answer_to(self, path: str) -> bytes:
        name = os.fsencode(path)
        for _ in range(2):  # one that was idle may end the very moment it is asked
            helper = self._running(path)
            patience = self._patience()
            try:
                answer = helper.ask(name, patience)
            except _Ended:
                self._drop(helper)
                continue
            if answer is not None:
                return answer
            self._leave_behind(helper, path, patience)
            raise TimeoutError(f"{path}: no answer within {patience:g} s")
        raise SourceError(f"{path}: the process that asks remote mounts was ended")

    def _running(self, path: str) -> _Helper:
        """The helper that answers, started when there is none."""
        if self._is_closed:
            raise SourceError(f"{path}: not asked, the agent is stopping")
        if self._helper is not None:
            if self._helper.is_alive:
                return self._helper
            self._drop(self._helper)
        if len(self._stuck) >= self._most:
            raise TimeoutError(f"{path}: not asked, too many others do not answer: {len(self._stuck)}")
        try:
            helper = self._helper = _Helper(self._argv)
            is_ready = helper.is_ready()
        except OSError as error:
            raise SourceError(
                f"{sys.executable}: cannot be started: {os.strerror(error.errno or 0).lower()}"
            ) from error
        except _Ended:
            is_ready = False
        if not is_ready:
            self._drop(helper)
            raise SourceError(f"{sys.executable}: the process that asks remote mounts did not start")
        return helper

    def _drop(self, helper: _Helper) -> None:
        helper.abandon()
        self._helper = None

    def _leave_behind(self, helper: _Helper, path: str, waited: float) -> None:
        self._lost_s += waited
        self.abandoned += 1
        self._helper = None
        if helper.abandon():
            self._resting[path] = self._now() + REST_S
        else:
            self._stuck[path] = helper  # its end will tell that the mount answers again

    def _patience(self) -> float:
        """Seconds the next ask may take: what is left of the allowance, and always long enough for a healthy mount."""
        now, allowance = self._now(), 2 * self._deadline
        self._lost_s = max(0.0, self._lost_s - (now - self._lost_at) * allowance / PARDON_S)
        self._lost_at = now
        return max(min(self._deadline, allowance - self._lost_s), self._deadline / 20)

    def close(self) -> None:
        """End the helper; what cannot be killed stays behind. Does not wait for a call under way, which fails."""
        self._is_closed = True
        if self._helper is not None:
            self._helper.kill()
        if self._lock.acquire(timeout=KILL_S):
            try:
                if self._helper is not None:
                    self._drop(self._helper)
            finally:
                self._lock.release()
