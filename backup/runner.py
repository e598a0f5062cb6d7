"""Who runs the worker for the daemon: a Protocol, and the runner that starts it as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backup.children import PATH, TAIL_BYTES, one_line, program, signal_name
from backup.errors import BackupError

MOST_LINE_BYTES = 1 << 20
GRACE_S = 30.0  # between asking to stop and SIGKILL: hooks after a run may need some of it

OnEvent = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `result`: the worker's last word; empty when it died before."""

    status: str  # ok, warn, fail, busy
    error: str | None
    exit_code: int | None  # minus the signal that ended it; None when it could not be started
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_slot_done(self) -> bool:
        """A whole backup is kept somewhere, so the slot is not tried again."""
        return self.exit_code is not None and self.result.get("is_slot_done") is True


class Runner(Protocol):
    """Runs a job somewhere. Only its name goes there: what it does is read where it runs."""

    async def run(self, job: str, on_event: OnEvent, deadline_s: float) -> Outcome:
        """Run it to its end; never raises but when cancelled, and then the job has ended too."""
        ...


class ChildRunner:
    """Starts `argv` and the job's name as a child in a session of its own, and reads its JSON lines."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None,
                 grace_s: float = GRACE_S) -> None:  # fmt: skip
        self._argv = tuple(argv)
        self._environment = {"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})}
        self._grace_s = grace_s

    async def run(self, job: str, on_event: OnEvent, deadline_s: float) -> Outcome:
        # It ends when we die, in good order; TERM goes to the worker alone, which ends its programs.
        try:
            argv = (program("setpriv"), "--pdeathsig", "TERM", "--", *self._argv, job)
            child = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=MOST_LINE_BYTES,
                stderr=asyncio.subprocess.PIPE, start_new_session=True, env=self._environment, cwd="/",
            )  # fmt: skip
        except (OSError, BackupError) as error:
            text = f"{self._argv[0]}: {(error.strerror or str(error)).lower()}" if isinstance(error, OSError) else error
            return Outcome("fail", f"{job}: the worker cannot be started: {text}", None)
        assert child.stdout is not None
        assert child.stderr is not None
        talk = asyncio.gather(hear(child.stdout, on_event), _tail(child.stderr))
        is_late = False
        try:
            try:
                async with asyncio.timeout(deadline_s):
                    await child.wait()
            except TimeoutError:
                is_late = True
        finally:
            # Cancelled or late or done: nothing of it is left running.
            await asyncio.shield(self._end(child))
        said, stderr = await talk
        return outcome(job, child.returncode, said.result, one_line(stderr), deadline_s if is_late else None)

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_s):
                    await child.wait()
        for pid in session(child.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await child.wait()


@dataclass(slots=True)
class Said:
    """What a worker said until its end. `exit_code`: where it tells, because nobody else sees it."""

    result: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def outcome(job: str, code: int | None, result: Mapping[str, Any], words: str, late_s: float | None) -> Outcome:
    """A run is well only when the worker said so and exited so; anything else is a failure.

    `code` None: it went without a word about how it ended. `words`: what else is known, for the error.
    """
    status = str(result.get("status", "fail"))
    error = result.get("error")
    if late_s is not None:
        return Outcome("fail", f"{job}: the worker did not end within {late_s:g} s; {error or words}", code, result)
    if not result or code is None or code < 0:
        return Outcome("fail", f"{job}: the worker {_how(code)}: {words or 'it said nothing'}", code, result)
    if status in ("ok", "warn") and code != 0:
        return Outcome("fail", f"{job}: the worker said {status} but exited {code}: {words}", code, result)
    return Outcome(status, None if error is None else str(error), code, result)


def _how(code: int | None) -> str:
    if code is None:
        return "went away in the middle"
    return f"was ended by {signal_name(-code)}" if code < 0 else f"exited {code}"


async def hear(stream: asyncio.StreamReader, on_event: OnEvent) -> Said:
    """Hand on every event until the stream ends; what is kept of them."""
    said = Said()
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # a line beyond the limit was dropped; no event is that long
        except OSError:
            return said  # a connection that broke: what came before it counts
        if not line:
            return said
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a kill, or printed by something else
        if not isinstance(event, dict):
            continue
        match event.get("event"):
            case "exit":
                said.exit_code = int(event.get("code", 1))
                continue
            case "result":
                said.result = event
        on_event(event)


async def _tail(stream: asyncio.StreamReader) -> str:
    tail = b""
    while part := await stream.read(1 << 14):
        tail = (tail + part)[-TAIL_BYTES:]
    return tail.decode("utf-8", "replace")


def session(leader: int) -> list[int]:
    """Every process of the session that `leader` began, itself included; others may have ended since."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[3]) == leader and fields[0] != b"Z":
                found.append(int(name))
    return found
