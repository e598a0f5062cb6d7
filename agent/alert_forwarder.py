"""Hands alerts to an Alertmanager as Prometheus does: all of them, at once when they change, and again while they fire.

It groups, silences and routes by itself, so this goes past our own routes and outbox; what it misses it gets at the
next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from agent.core.clock import NS, Clock
from agent.core.errors import Rejected, Retryable
from agent.core.isolation import Worker
from alerting.notify.message import Alert

log = structlog.get_logger("alerting")


class TakesAll(Protocol):
    """An Alertmanager, or several of one cluster."""

    resend: float
    deadline: float

    def forward(self, alerts: Sequence[Alert], now: float, interval: float) -> Any:
        """Blocking. Raise Retryable or Rejected."""
        ...


class Forwarder:
    """`alerts` gives what fires and what was lately resolved; `interval` is the one of the rules, in seconds."""

    def __init__(
        self, name: str, notifier: TakesAll, alerts: Callable[[], Sequence[Alert]], interval: float, clock: Clock
    ) -> None:
        self._name = name
        self._notifier = notifier
        self._alerts = alerts
        self._interval = interval
        self._clock = clock
        self._worker = Worker(f"forward {name}")
        self._changed = asyncio.Event()
        self.error = ""  # of the last time

    def poke(self) -> None:
        """Alerts have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            alerts = self._alerts()
            if not alerts:
                await self._changed.wait()
                continue
            await self._hand_over(alerts)
            waiting = {
                asyncio.ensure_future(self._until_the_next_time()),
                asyncio.ensure_future(self._until_changed()),
            }
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()

    async def _until_the_next_time(self) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + self._notifier.resend)

    async def _until_changed(self) -> None:
        await self._changed.wait()

    async def _hand_over(self, alerts: Sequence[Alert]) -> None:
        now, patience = self._clock.wall_ns() / NS, 10 * self._notifier.deadline + 30.0
        try:
            await self._worker.call(lambda: self._notifier.forward(alerts, now, self._interval), patience)
        except (Retryable, Rejected, TimeoutError) as error:
            if not self.error:
                log.warning("forward.failed", receiver=self._name, reason=str(error), again_in_s=self._notifier.resend)
            self.error = str(error) or "it has not come back"
        else:
            if self.error:
                log.info("forward.recovered", receiver=self._name)
            self.error = ""

    def close(self) -> None:
        self._worker.close()
