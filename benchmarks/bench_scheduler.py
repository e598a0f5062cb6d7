"""What a slot costs before any collector does its work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pytest_benchmark.fixture import BenchmarkFixture

from agent.core.clock import FakeClock
from agent.core.model import Group, Reading
from agent.hub import Hub
from agent.scheduler import Scheduler
from agent.timetable import Task
from benchmarks.each import note_each

COLLECTORS = 40
SLOTS = 20


@dataclass(slots=True)
class Nothing:
    """Reads nothing, each second."""

    name: ClassVar[str] = "nothing"
    groups: ClassVar[tuple[Group, ...]] = ()
    interval: float = 1.0

    def collect(self) -> Iterator[Reading]:
        return iter(())


def collectors() -> list[Nothing]:
    """Collectors of different names: a name is of the class, and the scheduler knows one collector a name."""
    return [type(f"Nothing{number}", (Nothing,), {"name": f"nothing-{number}"})() for number in range(COLLECTORS)]


def test_a_slot_with_forty_collectors(benchmark: BenchmarkFixture) -> None:
    """Wake-up, hop to the lane and back, and publishing; `us_per_slot` tells it for one slot."""
    with asyncio.Runner() as runner:

        async def start() -> tuple[FakeClock, Hub, asyncio.Task[None]]:
            clock, hub = FakeClock(), Hub()
            scheduler = Scheduler(clock, hub.publish)
            scheduler.set_tasks([Task(collector) for collector in collectors()])
            return clock, hub, asyncio.create_task(scheduler.run())

        async def slots(clock: FakeClock, hub: Hub) -> None:
            for _ in range(SLOTS):
                wanted = hub.published + COLLECTORS
                await clock.advance(1.0)
                while hub.published < wanted:
                    await asyncio.sleep(0)

        async def stop(running: asyncio.Task[None]) -> None:
            running.cancel()
            await asyncio.wait([running])

        clock, hub, running = runner.run(start())
        benchmark(lambda: runner.run(slots(clock, hub)))
        runner.run(stop(running))
    note_each(benchmark, "slot", SLOTS)
