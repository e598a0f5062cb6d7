"""Keeps the journal: writes it each second, syncs it each five, tidies it each ten, on a thread that may wait.

Ticks come each second, at about the same moment of it. The thread sleeps until a little after that moment and finds
them there: woken by the first of them it would fight the others for the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue

import structlog

from agent.config import Settings
from agent.core.clock import Clock
from agent.core.model import Tick
from sinks.journal import Journal, JournalError, Limits
from sinks.journal.files import NoFiles

log = structlog.get_logger("journal")

FLUSH_S, SYNC_S, TIDY_S = 1.0, 5.0, 10.0
_LINGER_S = 0.1  # after the first Tick of a second the others come
_SLACK_S = 0.05  # Ticks come at about the same moment of each second, never exactly
_AFTER_A_BUG_S = 10.0
_HISTORY_WRITES_S = 300.0  # at most, in one write


def limits_for(settings: Settings) -> Limits:
    """The journal's limits. It keeps what history may still lack on disk: one write of it may fail."""
    limits, history = settings.journal, settings.history
    if not history.enabled:
        return limits
    return replace(limits, keep=max(limits.keep, 2 * history.flush + _HISTORY_WRITES_S))


def open_journal(state_dir: str, limits: Limits, clock: Clock) -> Journal:
    """The journal in the state directory; where that takes none (read-only), a small one elsewhere, loudly.

    Where no directory takes one, it is all in memory.
    """
    try:
        return Journal(os.path.join(state_dir, "journal"), clock, limits, tell=log.warning)
    except JournalError as error:
        reason = str(error)
    # What is elsewhere is often memory, which the agent's own limit counts.
    limits = replace(limits, max_bytes=min(limits.max_bytes, limits.memory_bytes), min_free_bytes=0)
    for place in _elsewhere():
        try:
            directory = tempfile.mkdtemp(prefix="vigilhost-journal-", dir=place)
            journal = Journal(directory, clock, limits, tell=log.warning, is_temporary=True)
        except (OSError, JournalError):
            continue
        log.error("journal.temporary", reason=reason, directory=directory,
                  consequence="a restart loses what no sink has taken")  # fmt: skip
        return journal
    log.error("journal.in_memory", reason=reason, consequence="a restart loses what no sink has taken")
    return Journal("/", clock, limits, files=NoFiles(), tell=log.warning)


def _elsewhere() -> Iterator[str]:
    """Directories that are often writable on a host that is otherwise read-only."""
    yield from filter(None, os.environ.get("RUNTIME_DIRECTORY", "").split(":")[:1])
    with contextlib.suppress(FileNotFoundError):  # none is writable
        yield tempfile.gettempdir()
    yield "/dev/shm"


class JournalKeeper:
    """`append` takes Ticks on the event loop; everything that touches the disk happens on the keeper's thread."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self._clock = clock
        self._pokes: SimpleQueue[bool] = SimpleQueue()  # False: end
        self._first_at: float | None = None  # when the oldest Tick that is not written came, monotonic
        self._expected_at = 0.0  # when the next flush would be due if Ticks go on as they do
        self._is_idle = False  # the thread sleeps until it is poked
        self._is_wanted = False  # a reader waits for what was appended
        self._flush_at = self._sync_at = self._tidy_at = 0.0
        self._was_failing = False
        journal.want_written = self._write_now
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def append(self, tick: Tick) -> None:
        """Take a Tick; it is on its way to the disk within the second."""
        self.journal.append(tick)
        if self._first_at is None:
            self._first_at = self._clock.monotonic()
            if self._is_idle:
                self._pokes.put(True)

    def _write_now(self) -> None:
        """On a reader's thread."""
        self._is_wanted = True
        self._pokes.put(True)

    def _work(self) -> None:
        while self._wait():
            if not self._tried(self._turn) and not self._rest():
                break
        self._tried(self.journal.sync)

    def _tried(self, call: Callable[[], object]) -> bool:
        """False after a bug; it is logged and shown, and ends neither the thread nor the readers' wait for ever."""
        try:
            call()
        except Exception as error:
            log.error("journal.broke_off", again_in_s=_AFTER_A_BUG_S, exc_info=error)
            self.journal.is_broken = True
            return False
        return True

    def _turn(self) -> None:
        now = self._clock.monotonic()
        first_at, self._first_at = self._first_at, None
        is_wanted, self._is_wanted = self._is_wanted, False
        if is_wanted and now < self._flush_at:  # beside the turns, which keep to the moment after the Ticks
            is_written = self.journal.flush()
        else:
            self._flush_at = now + FLUSH_S - _SLACK_S
            self._expected_at = (first_at or now) + FLUSH_S + _LINGER_S
            is_written = self._write(now)
        if not is_written and self._first_at is None:
            self._first_at = now  # the next try needs no new Tick
        self._tell(is_written)

    def _write(self, now: float) -> bool:
        if now >= self._sync_at:
            self._sync_at = now + SYNC_S - _SLACK_S
            is_written = self.journal.sync()
        else:
            is_written = self.journal.flush()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_S - _SLACK_S
            self.journal.tidy()
            self.journal.is_broken = False
        return is_written

    def _wait(self) -> bool:
        """Until something is to be written and it is time to; False: end."""
        while True:
            first_at, now = self._first_at, self._clock.monotonic()
            due_at = self._expected_at if first_at is None else max(first_at + _LINGER_S, self._flush_at)
            if self._is_wanted or (first_at is not None and now >= due_at - _SLACK_S):
                return True
            self._is_idle = first_at is None and now >= due_at
            try:
                # What came between the look and the flag has seen no idle thread, so look once more.
                is_left_alone = self._is_idle and self._first_at is None
                if not self._pokes.get(timeout=None if is_left_alone else max(0.0, due_at - now)):
                    return False
            except Empty:
                pass
            self._is_idle = False

    def _rest(self) -> bool:
        """After a bug; False: end."""
        until = self._clock.monotonic() + _AFTER_A_BUG_S
        while (left := until - self._clock.monotonic()) > 0:
            with contextlib.suppress(Empty):
                if not self._pokes.get(timeout=left):
                    return False
        if self._first_at is None:
            self._first_at = until  # what the bug left unwritten needs no new Tick
        return True

    def _tell(self, is_written: bool) -> None:
        if is_written != self._was_failing:
            return
        self._was_failing = not is_written
        if is_written:
            log.info("journal.recovered")
        else:
            log.error("journal.cannot_write", consequence="readings are kept in memory, the oldest go first")

    def stop(self, timeout: float) -> bool:
        """Write what is left and end; False when the disk did not answer in time, or not as it should."""
        self._pokes.put(False)
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        return self._tried(self.journal.close)
