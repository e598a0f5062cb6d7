"""Where Ticks meet: collectors publish, everything that wants readings subscribes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.core.model import Tick


@dataclass(slots=True)
class Latest:
    """The newest Tick of a collector and until when it may be shown as the present (monotonic seconds)."""

    tick: Tick
    fresh_until: float


class Hub:
    """Hands each Tick to every subscriber, in order of subscription, on the event loop's thread.

    `latest` is the snapshot /metrics shows. A Tick that its collector has not renewed for three intervals is the past.
    """

    def __init__(self) -> None:
        self._latest: dict[str, Latest] = {}
        self._subscribers: list[Callable[[Tick], None]] = []
        self._mourners: list[Callable[[str], None]] = []
        self.published = 0

    def subscribe(self, subscriber: Callable[[Tick], None], at_end: Callable[[str], None] | None = None) -> None:
        """`subscriber` gets every Tick; `at_end` the name of a collector that was taken away."""
        self._subscribers.append(subscriber)
        if at_end is not None:
            self._mourners.append(at_end)

    def publish(self, tick: Tick, fresh_until: float) -> None:
        self._latest[tick.collector] = Latest(tick, fresh_until)
        self.published += 1
        for subscriber in self._subscribers:
            subscriber(tick)

    def forget(self, collector: str) -> None:
        """The collector is gone (a reload took it away)."""
        self._latest.pop(collector, None)
        for at_end in self._mourners:
            at_end(collector)

    def snapshot(self, now: float) -> list[Tick]:
        """The newest Tick of every collector that is still fresh at `now` (monotonic)."""
        return [latest.tick for latest in self._latest.values() if latest.fresh_until > now]
