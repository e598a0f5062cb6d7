"""The dead man's switch: a ping as long as measuring, judging and telling work; its absence is the alarm.

The addresses are those of healthchecks: the ping itself, `/start` after a start, `/fail` with the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from agent.core.clock import Clock
from agent.core.errors import Rejected, Retryable
from agent.core.isolation import Worker
from agent.core.waiting import sleep_unless
from agent.healthchecks import address
from alerting.notify.http import check, request
from alerting.options import HeartbeatOptions

log = structlog.get_logger("heartbeat")

_MOST_REASON_BYTES = 2000


class Heartbeat:
    """Asks `troubles` (sentences; none when all is well) at each interval, and pings."""

    def __init__(self, options: HeartbeatOptions, troubles: Callable[[], Sequence[str]], clock: Clock) -> None:
        self._options = options
        self._troubles = troubles
        self._clock = clock
        self._worker = Worker("heartbeat")
        self._has_started = False
        self._has_changed = asyncio.Event()
        self.error = ""  # of the last ping
        self.last_success_at: float | None = None  # Unix seconds

    def take_over(self, options: HeartbeatOptions) -> None:
        """Go on with these; a new interval counts from now."""
        if options != self._options:
            self._options = options
            self._has_changed.set()

    async def turn(self) -> None:
        """Wait for an interval and ping. The first ping comes one interval after the start, when there is a verdict."""
        if self._options.suffixes and not self._has_started:
            await self._ping("start", b"")
        self._has_started = True
        if await self._is_changed_within(self._options.interval):
            return
        troubles = self._troubles()
        if not troubles:
            await self._ping("", b"")
        elif self._options.suffixes:
            await self._ping("fail", "\n".join(troubles).encode("utf-8", "replace")[:_MOST_REASON_BYTES])

    async def _is_changed_within(self, seconds: float) -> bool:
        """Wait so long, or until there are other options."""
        await sleep_unless(self._has_changed, self._clock, self._clock.monotonic() + seconds)
        is_changed = self._has_changed.is_set()
        self._has_changed.clear()
        return is_changed

    async def _ping(self, suffix: str, body: bytes) -> None:
        secret, deadline = self._options.url, self._options.deadline
        if secret is None:
            return
        url = address(secret.reveal(), suffix)

        def ping() -> None:
            check("heartbeat", request("POST", url, body, {"User-Agent": "vigilhost"}, deadline), (secret,))

        try:
            await self._worker.call(ping, deadline * 2 + 5)
        except (Retryable, Rejected, TimeoutError) as error:
            if not self.error:
                log.warning("heartbeat.failed", reason=str(error), again_in_s=self._options.interval)
            self.error = str(error)
        else:
            if self.error:
                log.info("heartbeat.recovered")
            self.error, self.last_success_at = "", time.time()

    def close(self) -> None:
        self._worker.close()
