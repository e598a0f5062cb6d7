"""Keeps history: hands it every Tick, rebuilds its newest part after a start, writes it to disk now and then.

Rebuilding reads minutes of the journal; that happens beside everything else, and Ticks that come meanwhile wait for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from itertools import takewhile
from typing import Any

import structlog

from agent.core.clock import Clock
from agent.core.isolation import Worker
from agent.core.model import Reading, Tick
from agent.history_metrics import HISTORY
from sinks.history.history import DIRECTORY, History
from sinks.history.options import HistoryOptions
from sinks.journal import Journal

log = structlog.get_logger("history")

_REBUILD_TIMEOUT_S = 300.0
_WRITE_TIMEOUT_S = 300.0
_CLOSE_TIMEOUT_S = 4.0
_AFTER_A_BUG_S = 10.0


class HistoryKeeper:
    """History and the threads it needs. `append` and `end` belong to the event loop."""

    def __init__(self, options: HistoryOptions, state_dir: str, clock: Clock, instance: str) -> None:
        directory = os.path.join(state_dir, DIRECTORY)
        self.history = History(options, directory, clock, instance, tell=log.warning)
        self._clock = clock
        self._worker = Worker("history")
        self._waiting: list[Tick] | None = []  # Ticks that came while the newest part was being rebuilt
        self._summary: dict[str, Any] = {"state": "starting"}
        self.is_rebuilt = asyncio.Event()
        self._in_flight: asyncio.Future[Any] | None = None
        self._is_closing = False

    def append(self, tick: Tick) -> None:
        """Remember a Tick."""
        if self._waiting is None:
            self.history.append(tick)
        else:
            self._waiting.append(tick)

    async def run(self, journal: Journal) -> None:
        """Rebuild, then write each `history.flush` until cancelled; a bug in either is logged and ends neither."""
        await self._tried(self._rebuild(journal))
        self._take_waiting()
        if await self._tried(self._call(self._look, _WRITE_TIMEOUT_S)):
            await self._sleep(self.history.options.flush)
        while True:
            is_done = await self._tried(self._call(self._write, _WRITE_TIMEOUT_S))
            await self._sleep(self.history.options.flush if is_done else _AFTER_A_BUG_S)

    async def _tried(self, work: Awaitable[object]) -> bool:
        """False after a bug."""
        try:
            await work
        except Exception as error:
            log.error("history.broke_off", again_in_s=_AFTER_A_BUG_S, exc_info=error)
            self._failed(f"{type(error).__name__}: {error}")
            return False
        return True

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + seconds)

    async def _rebuild(self, journal: Journal) -> None:
        since = self.history.rebuild_since_ns
        ticks = takewhile(lambda _: not self._is_closing, journal.ticks_since(since))
        count = await self._call(lambda: self.history.rebuild(ticks), _REBUILD_TIMEOUT_S)
        if count:
            log.info("history.rebuilt", ticks=count)

    def _take_waiting(self) -> None:
        """Rebuilt or not, what comes from now on is remembered, and rules may ask."""
        waiting, self._waiting = self._waiting or [], None
        # The journal may have given some of these already; history drops what is not newer than what it knows.
        for tick in waiting:
            self.history.append(tick)
        self.is_rebuilt.set()

    def _write(self) -> None:
        self.history.write()
        self._look()

    def _look(self) -> None:
        status = self.history.status()
        self._summary = {
            "state": "failing" if status.trouble else "ok",
            "error": status.trouble,
            "series": status.series,
            "head_samples": status.head_samples,
            "disk_bytes": status.file_bytes,
            "max_bytes": status.max_bytes,
            "lost_rows": status.lost_rows,
            "refused_series": status.refused_series,
            "damaged_blocks": status.damaged_blocks,
            "set_aside": list(status.set_aside),
            "tiers": {
                tier.name: {"samples": tier.samples, "bytes": tier.bytes, "oldest_ms": tier.oldest_ms,
                            "newest_ms": tier.newest_ms}
                for tier in status.tiers
            },
        }  # fmt: skip

    async def _call(self, work: Any, timeout_s: float) -> Any:
        """Blocking work on history's thread; one that hangs is said, and tried again at the next turn.

        Shielded: the end of the agent does not tear it off in the middle, `close` lets it finish.
        """
        self._in_flight = asyncio.ensure_future(self._worker.call(work, timeout_s))
        try:
            return await asyncio.shield(self._in_flight)
        except TimeoutError as error:
            reason = str(error) or f"no answer within {timeout_s:g} s"
            log.error("history.disk_hangs", reason=reason)
            self._failed(reason)
            return None

    def _failed(self, reason: str) -> None:
        """Shown until a later write comes to its end."""
        self._summary = {**self._summary, "state": "failing", "error": reason}

    async def look(self) -> dict[str, Any]:
        """The state as it is now, for `vigilhost history status`."""
        await self._call(self._look, _WRITE_TIMEOUT_S)
        return self._summary

    async def write(self) -> dict[str, Any]:
        """Put everything new on disk now, for a command that reads the file."""
        await self._call(self._write, _WRITE_TIMEOUT_S)
        return self._summary

    def summary(self) -> dict[str, Any]:
        """The state as of the last write, for /health: costs nothing."""
        return self._summary

    def readings(self) -> Iterator[Reading]:
        """The state as of the last write, as a reading."""
        known = self._summary
        if "series" in known:
            yield HISTORY.row((), (
                known["series"], known["head_samples"], known["disk_bytes"], known["state"] == "failing",
                known["lost_rows"], known["refused_series"],
            ))  # fmt: skip

    async def close(self) -> None:
        """Write what is new; a disk that does not answer is not waited for, the journal has it. Raises nothing."""
        self._is_closing = True
        if self._in_flight is not None:
            await asyncio.wait([self._in_flight], timeout=_CLOSE_TIMEOUT_S)
        await self._tried(self._call(self.history.close, _CLOSE_TIMEOUT_S))
        self._worker.close()
