"""The sinks that run: built from the configuration, swapped at a reload, stopped at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import structlog

from agent.config import Entry, Settings
from agent.core.clock import Clock
from sinks.carrier import DeliveryStats
from sinks.dead_letters import DeadLetters
from sinks.delivery import Delivery
from sinks.journal import Journal

log = structlog.get_logger("sink")

_AFTER_A_BUG_S = 10.0


class SinkSet:
    """One Delivery a configured sink, each in a task of its own."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._tags: dict[str, str] = {}
        self._running: dict[str, tuple[Delivery, asyncio.Task[None]]] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._running)

    def stats(self) -> Mapping[str, DeliveryStats]:
        return {name: delivery.stats for name, (delivery, _) in self._running.items()}

    def left_behind(self) -> list[str]:
        """Readers of sinks no longer configured: kept within the journal's limits, so a mistaken edit loses nothing."""
        return [name for name in self._journal.readers() if name.removesuffix(".backlog") not in self._entries]

    def changed_by(self, settings: Settings) -> dict[str, Entry]:
        """The sinks that are new or configured otherwise; each can be built (the configuration has tried)."""
        is_tagged_alike = _line_tags(settings) == self._tags
        return {
            name: entry
            for name, entry in settings.sinks.items()
            if not (is_tagged_alike and name in self._running and self._entries.get(name) == entry)
        }

    def take_over(self, settings: Settings, changed: Mapping[str, Entry]) -> None:
        """Stop what is gone or changed, start what is new or changed. A sink goes on where its reader stood."""
        for name in [name for name in self._running if name in changed or name not in settings.sinks]:
            delivery, running = self._running.pop(name)
            running.cancel()
            delivery.close()
        self._tags = _line_tags(settings)
        self._entries = dict(settings.sinks)
        for name, entry in changed.items():
            dead = DeadLetters(os.path.join(settings.state_dir, f"dead-letters-{name}.jsonl"))
            delivery = Delivery(name, entry.build(), self._journal, self._tags, dead, self._clock)
            self._running[name] = delivery, asyncio.create_task(_guarded(delivery), name=f"sink-{name}")

    async def stop(self, deadline_s: float) -> None:
        """Send what is left, within the deadline, and give everything back."""
        for _, running in self._running.values():
            running.cancel()
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.gather(*(delivery.flush() for delivery, _ in self._running.values()))
        except TimeoutError:
            log.warning("sink.flush_cut_short", after_s=deadline_s)
        for delivery, _ in self._running.values():
            delivery.close()


def _line_tags(settings: Settings) -> dict[str, str]:
    return {"host": settings.hostname, **settings.tags}


async def _guarded(delivery: Delivery) -> None:
    """A bug in one sink's way is logged and does not end it, nor the others."""
    while True:
        try:
            await delivery.run()
        except Exception as error:
            log.error("sink.broke_off", sink=delivery.name, again_in_s=_AFTER_A_BUG_S, exc_info=error)
        await asyncio.sleep(_AFTER_A_BUG_S)
