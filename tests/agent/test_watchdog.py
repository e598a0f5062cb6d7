from __future__ import annotations

import asyncio
import socket

from agent.watchdog import Watchdog


def fed(manager: socket.socket) -> int:
    """How often since the last look."""
    manager.setblocking(False)
    count = 0
    while True:
        try:
            assert manager.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return count
        count += 1


async def until(asked: list[None], times: int) -> None:
    while len(asked) < times:
        await asyncio.sleep(0.001)


async def test_it_is_fed_by_time_where_no_slot_ends(manager: socket.socket) -> None:
    asked: list[None] = []
    watchdog = Watchdog(0.005, lambda: asked.append(None) is None)
    await until(asked, 3)
    watchdog.close()
    assert fed(manager) == len(asked)


async def test_it_starves_when_nothing_is_alive(manager: socket.socket) -> None:
    asked: list[None] = []
    watchdog = Watchdog(0.005, lambda: asked.append(None) is not None)
    await until(asked, 3)
    watchdog.close()
    assert fed(manager) == 0


async def test_the_end_of_a_slot_feeds_it_when_half_the_time_is_over(manager: socket.socket) -> None:
    now = 0.0
    watchdog = Watchdog(1000.0, lambda: True, lambda: now)
    times = []
    for second in range(0, 2000, 100):
        now = float(second)
        watchdog.slot_ended()
        times += [second] * fed(manager)
    assert times == [500, 1000, 1500]
    watchdog.close()
    now = 5000.0
    watchdog.slot_ended()
    assert fed(manager) == 0
