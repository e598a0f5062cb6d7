"""The dead man's switch: a ping as long as measuring, judging and telling work; its absence is the alarm.

The addresses are those of healthchecks: the ping itself, `/start` after a start, `/fail` with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from agent.core.clock import Clock
from agent.core.errors import Rejected, Retryable
from agent.core.isolation import Worker
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
        self.error = ""  # of the last ping
        self.last_success_at: float | None = None  # Unix seconds

    async def run(self) -> None:
        """Until cancelled; the first ping comes one interval after the start, when there is something to say."""
        if self._options.suffixes:
            await self._ping("start", b"")
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + self._options.interval)
            troubles = self._troubles()
            if not troubles:
                await self._ping("", b"")
            elif self._options.suffixes:
                await self._ping("fail", "\n".join(troubles).encode("utf-8", "replace")[:_MOST_REASON_BYTES])

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
