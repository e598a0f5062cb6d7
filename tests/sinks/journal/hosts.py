"""Ticks as a host gives them, and the clock of a test."""

from __future__ import annotations

import random
from collections.abc import Iterator

from agent.core.clock import NS, FakeClock
from agent.core.model import Group, Reading, Tick, counter, gauge
from sinks.journal import Journal, Reader

CPU = Group(
    "cpu", [gauge(f"usage_{n}", "percent", "x", influx=f"usage_{n}") for n in ("user", "system", "idle")], ["cpu"]
)
START_NS = 1_700_000_000 * NS


class HandClock(FakeClock):
    """A clock that moves when told to, for code that does not sleep."""

    def pass_time(self, seconds: float) -> None:
        self._move_to(self._monotonic + seconds)


def tick(number: int, *, collector: str = "cpu", rows: int = 3) -> Tick:
    """A Tick that tells which one it is: `number` seconds after START_NS, and in each of its values."""
    readings = [CPU.row((f"cpu{row}",), (number + row / 7, float(number), 100.0 - row)) for row in range(rows)]
    return Tick(START_NS + number * NS, collector, readings)


def told(tick: Tick) -> object:
    """What a Tick says, comparable across processes: Groups are the same only within one."""
    rows = [(r.group.measurement, r.group.tags, r.group.fields, r.tags, r.values) for r in tick.readings]
    return tick.time_ns, tick.collector, rows, tick.failed


def number_of(tick: Tick) -> int:
    return (tick.time_ns - START_NS) // NS


def drain(reader: Reader, *, commit: bool = True, most: int = 50) -> list[Tick]:
    """Everything a reader can have now."""
    got: list[Tick] = []
    after = reader.position
    while (batch := reader.read(most, 64 * 1024, after=after)) is not None:
        got += batch.ticks
        after = batch.next_position
        if commit:
            reader.commit(after)
    return got


def numbers(ticks: list[Tick]) -> list[int]:
    return [number_of(tick) for tick in ticks]


def fill(journal: Journal, first: int, end: int) -> None:
    for number in range(first, end):
        journal.append(tick(number))


class _Walk:
    """A value that moves as a host's do: most change a little, some rarely, some never."""

    def __init__(self, rng: random.Random, kind: str) -> None:
        self._rng = rng
        self._kind = kind
        self._value = rng.randrange(10**6, 10**10) if kind in ("counter", "bytes") else rng.random() * 100
        self._rate = rng.choice((0, 0, 0, 3, 80, 5000, 300_000))

    def next(self) -> int | float:
        if self._kind == "counter" and self._rate:
            self._value += self._rng.randrange(self._rate)
        elif self._kind == "bytes" and self._rate:
            self._value += self._rng.randrange(-64, 65) * 4096
        elif self._kind == "percent":
            self._value = round(self._rng.random() * 400) / 399 * 100  # jiffies in, an endless fraction out
        return self._value


_HOST = (  # measurement, rows, fields a row, kind, seconds between Ticks
    ("cpu", 5, 10, "percent", 1),
    ("mem", 1, 36, "bytes", 1),
    ("meminfo", 1, 50, "bytes", 1),
    ("diskio", 6, 11, "counter", 1),
    ("net", 4, 17, "counter", 1),
    ("kernel", 1, 12, "counter", 1),
    ("netstat", 1, 120, "counter", 5),
    ("processes", 1, 12, "bytes", 5),
    ("procstat", 10, 8, "percent", 5),
    ("disk", 8, 7, "bytes", 30),
    ("systemd_units", 80, 1, "constant", 30),
    ("temp", 6, 1, "constant", 30),
)


def host_seconds(seconds: int, seed: int = 1) -> Iterator[list[Tick]]:
    """The Ticks of each second of a host of 634 series at the default intervals."""
    rng = random.Random(seed)
    sources = []
    for measurement, rows, fields, kind, every_s in _HOST:
        declare = counter if kind == "counter" else gauge
        group = Group(
            measurement,
            [
                declare(f"{measurement}_field_{n}", "value" if kind == "percent" else "count",
                        "What this is, in a sentence.",
                        influx=f"field_{n}", prom=f"node_{measurement}_field_{n}_total")
                for n in range(fields)
            ],
            ["device"],
        )  # fmt: skip
        walks = [((f"device-{row}",), [_Walk(rng, kind) for _ in range(fields)]) for row in range(rows)]
        sources.append((measurement, group, walks, every_s))
    for second in range(seconds):
        yield [
            Tick(
                START_NS + second * NS,
                name,
                [Reading(group, tags, tuple([walk.next() for walk in row])) for tags, row in walks],
            )
            for name, group, walks, every_s in sources
            if second % every_s == 0
        ]
