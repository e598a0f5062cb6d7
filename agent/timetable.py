"""One collector's timetable: which slot is next, which are skipped, and what is known of its runs.

A slot is the moment a collector is due (a 5 s collector: :00, :05, ...); its readings carry the slot's time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from time import perf_counter, thread_time

from agent.core.clock import NS
from agent.core.collector import Collector
from agent.core.model import Failed, Reading

SHARED = ""  # the lane of every collector that has none of its own
# So long after a slot those with a lane of their own begin: beside the shared lane they would only take turns with it
# at the interpreter, some 15 switches a run.
_AFTER_SHARED_NS = NS // 50
DEFAULT_TIMEOUT_S = 5.0  # one collect on the shared lane; local files answer within milliseconds


@dataclass(slots=True)
class Stats:
    """What is known of one collector's runs."""

    runs: int = 0
    failures: int = 0
    skipped: int = 0
    timeouts: int = 0
    dropped: int = 0  # readings beyond the collector's cap
    duration_s: float = 0.0  # of the last run
    cpu_s: float = 0.0  # of all runs together, on the lane's thread
    lateness_s: float = 0.0  # how long after its slot the last run began
    last_success_ns: int = 0  # slot of the last run that gave readings; 0 = never
    readings: int = 0  # of the last successful run
    error: str = ""  # of the last run; empty when it succeeded
    is_missing: bool = False  # the host has no such source
    failed: tuple[Failed, ...] = ()  # targets of the last successful run that could not be read


@dataclass(slots=True, eq=False)
class Task:
    """A collector and its timetable, in nanoseconds."""

    collector: Collector
    offset_ns: int = 0
    jitter_ns: int = 0
    max_readings: int = 10_000  # beyond this the rest of a Tick is dropped and counted
    stats: Stats = field(default_factory=Stats)
    next_ns: int = 0  # the next slot
    delay_ns: int = 0  # how long after the slot it is to begin: a share of the jitter, and the way of its lane
    is_running: bool = False  # on a lane, or promised to one
    pause_until: float = 0.0  # monotonic; a missing source rests
    outcome: list[Reading | Failed] | BaseException | None = None
    name: str = field(init=False)
    interval_ns: int = field(init=False)
    timeout_s: float = field(init=False)
    has_own_lane: bool = field(init=False)
    lane: str = field(init=False)  # the name of the lane it runs on
    due_ns: int = 0  # the next slot and its delay
    asleep_from_ns: int = 0  # before this the wall clock must have gone back; until due_ns there is nothing to do

    def __post_init__(self) -> None:
        self.name = self.collector.name
        self.interval_ns = round(self.collector.interval * NS)
        self.timeout_s = float(getattr(self.collector, "timeout", DEFAULT_TIMEOUT_S))
        self.has_own_lane = bool(getattr(self.collector, "own_lane", False))
        self.lane = self.name if self.has_own_lane else SHARED

    def slot_at(self, now_ns: int) -> int:
        """The last slot at or before `now_ns`."""
        return (now_ns - self.offset_ns) // self.interval_ns * self.interval_ns + self.offset_ns

    def aim(self, slot_ns: int) -> None:
        """Make `slot_ns` the next slot."""
        self.next_ns = slot_ns
        self.delay_ns = random.randrange(self.jitter_ns) if self.jitter_ns else 0
        if self.has_own_lane:
            self.delay_ns += _AFTER_SHARED_NS
        self.due_ns = slot_ns + self.delay_ns
        self.asleep_from_ns = self.due_ns - self.interval_ns - self.jitter_ns - NS

    def close(self) -> None:
        """Give back what the collector holds, unless a thread is still in it."""
        close = getattr(self.collector, "close", None)
        if close is not None and not self.is_running:
            close()

    def collect(self) -> None:
        """Run on a lane: keep readings or the exception in `outcome`, and what it cost."""
        begun, cpu = perf_counter(), thread_time()
        try:
            self.outcome = items = list(self.collector.collect())
            for item in items:
                if isinstance(item, Reading):
                    item.group.check(item)
        except Exception as error:  # noqa: BLE001 - one broken collector leaves the others running
            self.outcome = error
        self.stats.duration_s = perf_counter() - begun
        self.stats.cpu_s += thread_time() - cpu
