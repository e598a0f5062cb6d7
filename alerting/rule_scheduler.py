"""When rules are evaluated: each group at slots of its own, the same wall-clock moments before and after a restart.

A slot that was missed is counted, never made up for. The wall clock may be set: what lies ahead of it is forgotten.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from agent.core.clock import NS, Clock
from alerting.engine import COLLECTORS_KEY, EPOCH_S, Engine, Evaluation

T = TypeVar("T")

_LONGEST_SLEEP_S: Final = 60.0  # the wall clock may be set meanwhile
_MS: Final = 1_000_000


class Call(Protocol):
    """Runs something that blocks, away from the event loop; one after another, before what people ask."""

    def __call__(self, blocking: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(slots=True)
class Slots:
    """The moments of one group in ms: `offset_ms` after each multiple of `interval_ms`."""

    interval_ms: int
    offset_ms: int

    @classmethod
    def of(cls, key: str, interval: float) -> Slots:
        """Offsets are whole seconds, so that groups share their wake-ups with one another and with collectors."""
        seconds = max(1, int(interval))
        offset = zlib.crc32(key.encode("utf-8", "surrogateescape")) % seconds if interval >= 2 else 0
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
        self._ahead_ns: int | None = None  # wall clock minus monotonic clock, as of the last look

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._look_at_the_clock()
            while due := self._due():  # again, for evaluations take their time
                for key in due:
                    await self._evaluate(key)
            now_ms = self._clock.wall_ns() // _MS
            ahead = min((slots.newest(now_ms) + slots.interval_ms for slots in self._slots().values()), default=now_ms)
            wait = min((ahead - now_ms) / 1000, _LONGEST_SLEEP_S)
            await self._clock.sleep_until(self._clock.monotonic() + max(wait, 0.001))

    def _slots(self) -> dict[str, Slots]:
        found = {COLLECTORS_KEY: Slots.of(COLLECTORS_KEY, self._interval)}
        for key, group in self._engine.groups.items():
            found[key] = Slots.of(key, group.interval)
        return found

    def _due(self) -> list[str]:
        """Groups whose newest slot has not been evaluated; a group that is new waits for its next slot."""
        now_ms = self._clock.wall_ns() // _MS
        due = []
        slots = self._slots()
        self._done = {key: slot for key, slot in self._done.items() if key in slots}
        for key, one in slots.items():
            newest = one.newest(now_ms)
            if newest > self._done.setdefault(key, newest - (1 if newest == now_ms else 0)):
                due.append(key)
        return due

    async def _evaluate(self, key: str) -> None:
        slots = self._slots().get(key)
        if slots is None:  # taken away by a reload while the groups before it were evaluated
            return
        slot = slots.newest(self._clock.wall_ns() // _MS)
        missed = slots.missed(self._done[key], slot)
        self._done[key] = slot
        group = self._engine.groups.get(key)
        if group is not None:
            group.missed += missed

        def work() -> None:
            at = slot / 1000
            done = self._engine.evaluate_collectors(at) if key == COLLECTORS_KEY else self._engine.evaluate(key, at)
            self._deliver(done)

        try:
            await self._call(work)
        except Exception as error:  # noqa: BLE001  # one broken group leaves the others running; `fail` logs it
            self._engine.tell_again()
            self._fail(key, error)

    def _look_at_the_clock(self) -> None:
        ahead_ns = self._clock.wall_ns() - round(self._clock.monotonic() * NS)
        before, self._ahead_ns = self._ahead_ns, ahead_ns
        if before is None or abs(ahead_ns - before) <= EPOCH_S * NS:
            return
        seconds = (ahead_ns - before) / NS
        self._engine.clock_was_set(seconds)
        if seconds < 0:
            self._done = {}
