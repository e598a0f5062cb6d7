"""`vigilhost run --once`: collect and send one time."""

from __future__ import annotations

import asyncio
import os
import sys

from agent import statedir
from agent.config import Settings
from agent.core.clock import NS, SystemClock
from agent.core.errors import SinkError
from agent.core.model import Tick
from agent.core.stat_helper import StatHelper
from agent.scheduler import Scheduler
from agent.timetable import Task
from sinks.line_protocol import Encoder

_MOST_WAIT_S = 30.0


async def once(settings: Settings) -> int:
    """Run every collector one time and hand the lines to every sink; 1 when one did not take them."""
    lock = statedir.claim(settings.state_dir)
    try:
        ticks = await _collect(settings)
    finally:
        os.close(lock)
    lines = Encoder({"host": settings.hostname, **settings.tags}).encode(ticks)
    body = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    status = 0
    for name, entry in settings.sinks.items():
        try:
            await asyncio.to_thread(entry.build().write, body)
        except SinkError as error:
            print(f"vigilhost: sinks.{name}: {error}", file=sys.stderr)
            status = 1
    return status


async def _collect(settings: Settings) -> list[Tick]:
    ticks: list[Tick] = []
    clock = SystemClock()
    scheduler = Scheduler(clock, lambda tick, _: ticks.append(tick))
    stat_remote = StatHelper()
    tasks = [
        Task(entry.build(host=settings.paths.host, stat_remote=stat_remote)) for entry in settings.collectors.values()
    ]
    scheduler.set_tasks(tasks)
    running = asyncio.create_task(scheduler.run())
    until = clock.monotonic() + _MOST_WAIT_S
    while clock.monotonic() < until and any(not task.stats.runs and not task.stats.timeouts for task in tasks):
        await asyncio.sleep(0.02)
    running.cancel()
    stat_remote.close()
    first = min((tick.time_ns for tick in ticks), default=0)
    return [tick for tick in ticks if tick.time_ns < first + NS]
