"""Hands alerts to an Alertmanager as Prometheus does: all of them, at once when they change, and again while they fire.

It groups, silences and routes by itself, so this goes past our own routes and outbox; what it misses it gets at the
next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

import structlog

from agent.core.clock import NS, Clock
from agent.core.errors import Rejected, Retryable
from agent.core.isolation import Worker
from agent.core.waiting import sleep_unless
from agent.troubles import Troubles
from alerting.notify.message import Alert
from alerting.policy import Policy

log = structlog.get_logger("alerting")

_STOPPED: Final = "forward.stopped"


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
        self._due_at: float | None = clock.monotonic()  # None: while nothing fires
        self.error = ""  # of the last time

    def poke(self) -> None:
        """Alerts have changed."""
        self._changed.set()

    async def turn(self) -> None:
        """Wait until alerts have changed or those that fire are due again, and hand them over."""
        await self._wait()
        self._changed.clear()
        self._due_at = self._clock.monotonic()  # unless this turn comes to its end, the next one is due
        alerts = self._alerts()
        if alerts:
            await self._hand_over(alerts)
        self._due_at = self._clock.monotonic() + self._notifier.resend if alerts else None

    async def _wait(self) -> None:
        if self._due_at is None:
            await self._changed.wait()
            return
        await sleep_unless(self._changed, self._clock, self._due_at)

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


class Forwarders:
    """One for each receiver that routes by itself. Belongs to the event loop."""

    def __init__(self, alerts: Callable[[], Sequence[Alert]], clock: Clock, troubles: Troubles) -> None:
        self._alerts = alerts
        self._clock = clock
        self._troubles = troubles
        self._running: dict[str, tuple[Forwarder, asyncio.Task[None]]] = {}

    def take_over(self, policy: Policy, interval: float) -> None:
        """Hand everything to the receivers of this policy, and to no others any more."""
        for forwarder, task in self._running.values():
            task.cancel()
            forwarder.close()
        self._running = {}
        self._troubles.keep_only(_STOPPED, ())
        for name in policy.forwards:
            notifier = cast("TakesAll", policy.notifiers[name])
            forwarder = Forwarder(name, notifier, self._alerts, interval, self._clock)
            turns = self._troubles.keep_doing(_STOPPED, forwarder.turn, name)
            self._running[name] = forwarder, asyncio.create_task(turns, name=f"forward {name}")

    def poke(self) -> None:
        """Alerts have changed."""
        for forwarder, _ in self._running.values():
            forwarder.poke()

    def errors(self) -> list[str]:
        """What went wrong the last time, in sentences."""
        return [f"receiver {name}: {one.error}" for name, (one, _) in self._running.items() if one.error]
