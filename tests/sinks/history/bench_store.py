"""What history costs on real readings: `record DIR SECONDS` takes them from this host, `measure DIR` stretches them.

A recording is a journal. To fill 24 hours it is repeated, counters going on from where they were; no block holds the
same stretch twice, so repetition does not flatter the compression.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from agent.config.loading import load
from agent.core.clock import NS, FakeClock, SystemClock
from agent.core.model import Reading, Tick, Value
from agent.scheduler import Scheduler
from agent.timetable import Task
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from sinks.journal import Journal

DAY_S = 86_400


async def record(directory: str, seconds: float) -> None:
    """Run every collector at its default interval and keep the Ticks."""
    journal = Journal(directory, SystemClock())
    settings = load(None, {"state_dir": directory}).settings
    scheduler = Scheduler(SystemClock(), lambda tick, _: journal.append(tick))
    entries = [entry for name, entry in settings.collectors.items() if name != "agent"]
    scheduler.set_tasks([Task(entry.build(host=settings.paths.host)) for entry in entries])
    running = asyncio.create_task(scheduler.run())
    await asyncio.sleep(seconds)
    running.cancel()
    journal.close()


def stretched(ticks: list[Tick], seconds: int) -> Iterator[Tick]:
    """The Ticks again and again, `seconds` long in all."""
    first = min(tick.time_ns for tick in ticks)
    length = (max(tick.time_ns for tick in ticks) - first) // (30 * NS) * 30 * NS  # every interval divides it
    once = [tick for tick in ticks if tick.time_ns < first + length]
    growth = _growth(once)
    for turn in range(seconds * NS // length + 1):
        for tick in once:
            if tick.time_ns + turn * length >= first + seconds * NS:
                return
            readings = [_grown(reading, growth, turn) for reading in tick.readings]
            yield Tick(tick.time_ns + turn * length, tick.collector, readings, tick.failed)


def _growth(ticks: list[Tick]) -> dict[tuple[object, ...], list[Value]]:
    """How much each counter grows in one turn, by series; None for what is no counter."""
    seen: dict[tuple[object, ...], list[tuple[Value, ...]]] = {}
    for tick in ticks:
        for group, tags, values in tick.readings:
            seen.setdefault((group, tags), []).append(values)
    found: dict[tuple[object, ...], list[Value]] = {}
    for (group, tags), rows in seen.items():
        columns = list(zip(*rows, strict=True))
        found[group, tags] = [
            column[-1] - column[0]  # type: ignore[operator]
            if field.kind in {"counter", "untyped"} and field.is_numeric and None not in column
            and all(a <= b for a, b in pairwise(column))  # type: ignore[operator]
            else None
            for field, column in zip(group.fields, columns, strict=True)  # type: ignore[attr-defined]
        ]  # fmt: skip
    return found


def _grown(reading: Reading, growth: dict[tuple[object, ...], list[Value]], turn: int) -> Reading:
    added = growth[reading.group, reading.tags]
    values = tuple([v if g is None or v is None else v + turn * g for v, g in zip(reading.values, added, strict=True)])  # type: ignore[operator]
    return Reading(reading.group, reading.tags, values)


def _timed(label: str, call: Callable[[], object], rounds: int = 5) -> None:
    """Wall time says what one waits here and now, CPU time what a busy machine does not change."""
    wall, cpu = [], []
    for _ in range(rounds):
        started, used = time.perf_counter(), time.thread_time()
        call()
        wall.append((time.perf_counter() - started) * 1000)
        cpu.append((time.thread_time() - used) * 1000)
    print(f"{label}: median {statistics.median(wall):.1f} ms, of CPU {statistics.median(cpu):.1f} ms")


def measure(directory: str, hours: int) -> None:
    """Fill `hours`, then print sizes and times."""
    journal = Journal(directory, SystemClock())
    ticks = sorted(journal.ticks_since(0), key=lambda tick: tick.time_ns)
    journal.close()
    clock = FakeClock(ticks[0].time_ns / NS)
    began_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as where:
        history = History(HistoryOptions(), where, clock, "bench")
        appending = writing = 0.0
        count = 0
        next_write = ticks[0].time_ns + 600 * NS
        for tick in stretched(ticks, hours * 3600):
            if tick.time_ns >= next_write:
                clock.step_wall(tick.time_ns / NS - clock.wall_ns() / NS)
                started = time.process_time()
                assert history.write(), history.status().trouble
                writing += time.process_time() - started
                next_write += 600 * NS
            started = time.thread_time()
            history.append(tick)
            appending += time.thread_time() - started
            count += 1
        print(history.status())
        print(f"{count} ticks; append {appending / count * 1e6:.1f} us each, {appending / hours / 60:.4f} CPU s/min; "
              f"write {writing / hours / 60:.4f} CPU s/min")  # fmt: skip
        assert history.write()
        status = history.status()
        raw = status.tiers[0]
        tiers = sum(tier.bytes for tier in status.tiers[1:])
        print(f"RSS grew {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began_rss} KiB at its most")
        print(f"{raw.samples} samples, {status.used_bytes} bytes in pages: {status.used_bytes / raw.samples:.3f} "
              f"bytes a sample with {tiers} bytes of tiers; raw blobs alone {raw.bytes / raw.samples:.3f}")  # fmt: skip
        _ask(history)
        history.close()
        _timed("open", lambda: History(HistoryOptions(), where, clock, "bench")._store.close())


def _ask(history: History) -> None:
    newest = history.status().head_newest_ms
    assert newest is not None
    querier = history.querier()
    day = DAY_S * 1000
    name = "node_memory_MemAvailable_bytes"
    cpu = 'node_cpu_seconds_total{mode="idle",cpu="0"}'
    _timed("24 h of one 1 s series, samples", lambda: querier.instant(f"{name}[1d]", newest))
    _timed("24 h, 500 steps", lambda: querier.range(name, newest - day, newest, day // 500))
    _timed("24 h rate[5m], 500 steps", lambda: querier.range(f"rate({cpu}[5m])", newest - day, newest, day // 500))
    _timed("rate[1d]", lambda: querier.instant(f"rate({cpu}[1d])", newest))
    _timed("max_over_time[1d]", lambda: querier.instant(f"max_over_time({name}[1d])", newest))
    _timed("rate[5m], newest", lambda: querier.instant(f"rate({cpu}[5m])", newest))
    _timed("30 d at 1 h", lambda: querier.range(name, newest - 30 * day, newest, 3_600_000))
    _timed(
        "30 d max_over_time[1h] at 1 h",
        lambda: querier.range(f"max_over_time({name}[1h])", newest - 30 * day, newest, 3_600_000),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("record", "measure"))
    parser.add_argument("directory")
    parser.add_argument("amount", type=int, help="seconds to record, hours to fill")
    chosen = parser.parse_args()
    if chosen.what == "record":
        asyncio.run(record(chosen.directory, chosen.amount))
    else:
        measure(chosen.directory, chosen.amount)
    return 0


if __name__ == "__main__":
    sys.exit(main())
