"""Feeds systemd's watchdog while slots come; what is merely failing is an alert, not a kill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent import sdnotify


class Watchdog:
    """Feeds on the event loop, at the end of slots: a timer alone would wake it a third as often as measuring does.

    `interval`: seconds from one feeding to the next at most; `is_alive`: whether there is anything to feed it for.
    """

    def __init__(
        self, interval: float, is_alive: Callable[[], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._is_alive = is_alive
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._fed_at = now()
        self._timer = self._loop.call_later(interval, self._feed)

    def slot_ended(self, _: object = None) -> None:
        """The loop is awake: feed now, so that it need not be woken for it."""
        if self._now() - self._fed_at >= self._interval / 2 and not self._timer.cancelled():
            self._feed()

    def _feed(self) -> None:
        if self._is_alive():
            sdnotify.notify("WATCHDOG=1")
        self._fed_at = self._now()
        self._timer.cancel()
        self._timer = self._loop.call_later(self._interval, self._feed)

    def close(self) -> None:
        """Feed no more."""
        self._timer.cancel()
