"""Waiting for a moment or for news, whichever comes first."""

from __future__ import annotations

import asyncio

from agent.core.clock import Clock


async def sleep_unless(news: asyncio.Event, clock: Clock, until: float) -> None:
    """Return when `news` is set, or when the monotonic clock has reached `until`."""
    waiting = {asyncio.ensure_future(clock.sleep_until(until)), asyncio.ensure_future(_heard(news))}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _heard(news: asyncio.Event) -> None:
    await news.wait()
