"""When rules are evaluated: groups at the slots of their interval, the same moments before and after a restart.

A slot that was missed is counted, never made up for. The wall clock may be set: what lies ahead of it is forgotten.
Groups of one interval are evaluated together, one after another in one go: a host has one processor's worth of rules,
and each wake-up costs more than a rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from agent.core.clock import NS, Clock
from alerting.engine import COLLECTORS_KEY, Engine, Evaluation
from alerting.state import EPOCH_S

T = TypeVar("T")

_LONGEST_SLEEP_S: Final = 60.0  # the wall clock may be set meanwhile
_MS: Final = 1_000_000
_AFTER_MS: Final = 250  # from a slot to its evaluation: by then the readings of that second are there


class Call(Protocol):
    """Runs something that blocks, away from the event loop; one after another, before what people ask."""

    def __call__(self, blocking: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(slots=True)
class Slots:
    """The moments of one interval in ms: `offset_ms` after each multiple of `interval_ms`."""

    interval_ms: int
    offset_ms: int

    @classmethod
    def of(cls, interval: float) -> Slots:
        """Different intervals have different offsets, in whole seconds, so that they seldom meet."""
        seconds = max(1, int(interval))
        offset = zlib.crc32(f"{interval:g}".encode()) % seconds if interval >= 2 else 0
        return cls(max(1, round(interval * 1000)), offset * 1000)

    def newest(self, now_ms: int) -> int:
        """The slot that began last."""
        return (now_ms - self.offset_ms) // self.interval_ms * self.interval_ms + self.offset_ms

    def missed(self, before_ms: int, slot_ms: int) -> int:
        """Slots between two that were evaluated."""
        return max(0, (slot_ms - before_ms) // self.interval_ms - 1)


class RuleScheduler:
    """Evaluates every group at its slots. `deliver` gets each evaluation, on the same thread as the evaluation.

    `fail` is told when an evaluation or its delivery raises: group, exception. What was not delivered is told anew.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        call: Call,
        deliver: Callable[[Evaluation], None],
        fail: Callable[[str, Exception], None],
        interval: float,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._call = call
        self._deliver = deliver
        self._fail = fail
        self._interval = interval
        self._done: dict[str, int] = {}  # the last slot of each group, ms
        self._next_ms: int | None = None  # the slot that comes next; None before the first look
        self._ahead_ns: int | None = None  # wall clock minus monotonic clock, as of the last look

    async def turn(self) -> None:
        """Wait for the next slot and evaluate what is due."""
        if self._next_ms is not None:
            wait = min((self._next_ms - self._now_ms()) / 1000, _LONGEST_SLEEP_S)
            await self._clock.sleep_until(self._clock.monotonic() + max(wait, 0.001))
        self._look_at_the_clock()
        while due := self._due():  # again, for evaluations take their time
            await self._evaluate(due)
        now_ms = self._now_ms()
        ahead = (slots.newest(now_ms) + slots.interval_ms for slots in self._slots().values())
        self._next_ms = min(ahead, default=now_ms)

    def _now_ms(self) -> int:
        """The moment whose readings are there."""
        return self._clock.wall_ns() // _MS - _AFTER_MS

    def _slots(self) -> dict[str, Slots]:
        found = {COLLECTORS_KEY: Slots.of(self._interval)}
        for key, group in self._engine.groups.items():
            found[key] = Slots.of(group.interval)
        return found

    def _due(self) -> dict[str, int]:
        """Groups whose newest slot, in ms, has not been evaluated; a group that is new waits for its next slot."""
        now_ms = self._now_ms()
        due = {}
        slots = self._slots()
        self._done = {key: slot for key, slot in self._done.items() if key in slots}
        for key, one in slots.items():
            newest = one.newest(now_ms)
            done = self._done.setdefault(key, newest - (1 if newest == now_ms else 0))
            if newest > done:
                due[key] = newest
                if (group := self._engine.groups.get(key)) is not None:
                    group.missed += one.missed(done, newest)
                self._done[key] = newest
        return due

    async def _evaluate(self, due: Mapping[str, int]) -> None:
        """Evaluate the groups in turn; one that fails, or whose outcome is not taken, leaves the others be."""
        failed: dict[str, Exception] = {}

        def work() -> None:
            for key, slot_ms in due.items():
                try:
                    self._evaluate_one(key, slot_ms / 1000)
                except Exception as error:  # noqa: BLE001  # `fail` logs it
                    failed[key] = error

        try:
            await self._call(work)
        except Exception as error:  # noqa: BLE001  # no answer in time: nobody knows how far it came
            failed = dict.fromkeys(due, error)
        if failed:
            self._engine.tell_again()
        for key, reason in failed.items():
            self._fail(key, reason)

    def _evaluate_one(self, key: str, at: float) -> None:
        """On the thread of the rules."""
        if key == COLLECTORS_KEY:
            self._deliver(self._engine.evaluate_collectors(at))
        elif key in self._engine.groups:  # else a reload has taken it away meanwhile
            self._deliver(self._engine.evaluate(key, at))

    def _look_at_the_clock(self) -> None:
        ahead_ns = self._clock.wall_ns() - round(self._clock.monotonic() * NS)
        before, self._ahead_ns = self._ahead_ns, ahead_ns
        if before is None or abs(ahead_ns - before) <= EPOCH_S * NS:
            return
        seconds = (ahead_ns - before) / NS
        self._engine.clock_was_set(seconds)
        if seconds < 0:
            self._done = {}
