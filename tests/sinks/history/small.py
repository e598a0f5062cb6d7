"""A small host for the tests of history: Ticks, a naive memory of them, and ways to compare."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Mapping

from agent.core.clock import NS, FakeClock
from agent.core.labels import Labels, Matcher
from agent.core.model import Failed, Group, Tick, Value, gauge
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from sinks.history.promql.engine import Engine
from sinks.history.promql.storage import SelectHints, SeriesColumns
from tests.sinks.history.promql.memory_storage import MemoryStorage

START_S = 1_700_006_400  # a midnight, and so the end of a bucket of every tier
START_MS = START_S * 1000
PLACE = Group("place", [gauge("x", "value", "What it is.", influx="x")], ["at"])
Rows = Mapping[str, Value]


def at(second: float, rows: Rows, *, failed: Iterable[str] = (), collector: str = "places") -> Tick:
    """A Tick `second` after the start with one series `place_x{at=...}` for each row."""
    readings = [PLACE.row((name,), (value,)) for name, value in rows.items()]
    return Tick(round((START_S + second) * NS), collector, readings, tuple(Failed(name, "no") for name in failed))


class Clock(FakeClock):
    """A clock that is where the newest Tick is."""

    def __init__(self) -> None:
        super().__init__(START_S)

    def be_at(self, second: float) -> None:
        self.step_wall(START_S + second - self.wall_ns() / NS)


def opened(directory: object, clock: FakeClock | None = None, **options: object) -> History:
    """A History in `directory`."""
    return History(HistoryOptions(**options), os.fspath(directory), clock or Clock(), "host")  # type: ignore[arg-type]


def bits(value: float) -> bytes:
    """The very bits, so that one NaN is told from another."""
    return struct.pack("=d", value)


def place(name: str) -> list[Matcher]:
    return [Matcher("__name__", "=", "place_x"), Matcher("at", "=", name)]


def samples(history: History, name: str, start_s: float = -1e9, end_s: float = 1e9) -> list[tuple[float, float]]:
    """Seconds since the start and values of `place_x{at=name}`, stale markers included."""
    hints = SelectHints(lookback_ms=300_000)
    start_ms, end_ms = START_MS + round(start_s * 1000), START_MS + round(end_s * 1000)
    found = history.select(place(name), start_ms, end_ms, hints)
    assert len(found) <= 1
    return [((t - START_MS) / 1000, v) for one in found for t, v in zip(one.t, one.v, strict=True)]


def picture(history: History, name: str, seconds: int) -> str:
    """One sign a second: x a sample, ! a stale marker, . nothing."""
    known = dict(samples(history, name))
    stale = bits(struct.unpack("=d", struct.pack("=Q", 0x7FF0000000000002))[0])
    return "".join("." if s not in known else "!" if bits(known[s]) == stale else "x" for s in range(seconds))


def everything(history: History) -> dict[Labels, dict[int, bytes]]:
    """Every sample of every series as bits, `up` left out."""
    found: Iterable[SeriesColumns] = history.select(
        [Matcher("__name__", "!=", "up")], -(2**62), 2**62, SelectHints(lookback_ms=300_000)
    )
    return {one.labels: {t: bits(v) for t, v in zip(one.t, one.v, strict=True)} for one in found}


def in_memory(series: Mapping[Labels, Mapping[int, float]]) -> Engine:
    """The engine over plain columns of the same samples: what every answer should be."""
    storage = MemoryStorage()
    for labels, known in series.items():
        storage.add(dict(labels), sorted(known.items()))
    return Engine(storage)


def as_array(values: Iterable[float]) -> array[float]:
    return array("d", values)
