"""The journal's long proofs. Each line printed is a figure for docs/reliability.md.

    python -m tests.sinks.journal.campaign [--flips 10000] [--kills 10000] [--hours 24] [--seed 1]

Every truncation offset of a 64 KiB segment is always tried. Exits with an AssertionError where a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time

from sinks.journal import Journal, Limits
from tests.sinks.journal import killed
from tests.sinks.journal.damage import flip, make_sample, truncate
from tests.sinks.journal.disk import Disk
from tests.sinks.journal.hosts import START_NS, HandClock, host_seconds

SINK = "influx"


def flips(count: int, seed: int) -> str:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        sample, disk = make_sample(directory), Disk(directory)
        for _ in range(count):
            flip(sample, disk, rng)
    return f"bit flips: {count} of {count} opened, exactly the damaged records missing"


def cuts() -> str:
    with tempfile.TemporaryDirectory() as directory:
        sample = make_sample(directory, 60, rows=40, limits=Limits(min_free_bytes=0, recent_bytes=0))
        disk = Disk(directory)
        name = max(name for name in sample.files if name.endswith(".seg"))
        size = len(sample.files[name])
        assert size >= 64 * 1024
        for at in range(size - 64 * 1024, size):
            truncate(sample, disk, name, at)
    return f"truncations: all {64 * 1024} offsets opened, every whole record delivered"


def outage(hours: float) -> str:
    """A sink that is down for `hours` at the default intervals, then drained."""
    seconds = round(hours * 3600)
    with tempfile.TemporaryDirectory() as directory:
        clock = HandClock(START_NS / 1e9)
        journal = Journal(directory, clock, Limits(min_free_bytes=0))
        reader = journal.reader(SINK)
        points, spent_s = 0, 0.0
        for second, ticks in enumerate(host_seconds(seconds)):
            started = time.process_time()
            for tick in ticks:
                journal.append(tick)
            journal.flush()
            spent_s += time.process_time() - started
            points += sum(len(tick.readings) for tick in ticks)
            if second % 10 == 0:
                journal.tidy()
            clock.pass_time(1)
        journal.sync()
        disk_mb = sum(entry.stat().st_size for entry in os.scandir(directory)) / 1e6
        written_mb = (journal.tally.written_bytes + journal.tally.packed_bytes) / 1e6
        started, drained = time.process_time(), 0
        while (batch := reader.read(500)) is not None:
            drained += sum(len(tick.readings) for tick in batch.ticks)
            reader.commit(batch.next_position)
        drain_s = time.process_time() - started
        journal.close()
    assert drained == points, f"{drained} of {points} points came back"
    return (
        f"outage of {hours:g} h: {disk_mb:.1f} MB on disk, {written_mb:.1f} MB written, "
        f"{spent_s / seconds * 1e6:.0f} us CPU a second, {points} points read back in {drain_s:.1f} s"
    )


def kills(rounds: int, seed: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        return killed.run(directory, rounds, seed)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--flips", type=int, default=10_000)
    options.add_argument("--kills", type=int, default=10_000)
    options.add_argument("--hours", type=float, default=24.0)
    options.add_argument("--seed", type=int, default=1)
    wanted = options.parse_args()
    print(flips(wanted.flips, wanted.seed), flush=True)
    print(cuts(), flush=True)
    print(outage(wanted.hours), flush=True)
    print(kills(wanted.kills, wanted.seed), flush=True)


if __name__ == "__main__":
    main()
