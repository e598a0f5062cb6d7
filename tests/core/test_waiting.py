from __future__ import annotations

import asyncio

import pytest

from agent.core.clock import FakeClock
from agent.core.waiting import sleep_unless


@pytest.mark.parametrize("has_news", [True, False])
async def test_it_ends_with_the_news_or_at_the_moment(has_news: bool) -> None:
    clock, news, others = FakeClock(), asyncio.Event(), asyncio.all_tasks()
    waiting = asyncio.create_task(sleep_unless(news, clock, clock.monotonic() + 60))
    await clock.advance(59)
    assert not waiting.done()
    if has_news:
        news.set()
    else:
        await clock.advance(1)
    await asyncio.wait_for(waiting, 10)
    assert news.is_set() is has_news
    for _ in range(3):
        await asyncio.sleep(0)  # what was cancelled ends at its next turn
    assert asyncio.all_tasks() == others, "nothing goes on waiting"
