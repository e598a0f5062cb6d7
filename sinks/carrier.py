"""Gets lines into one sink, whatever it answers (docs/delivery.md has the table).

Retryable waits and sends the same again; TooLarge halves; Rejected quarantines exactly the bad lines, found by
bisection where the answer does not name them. Sending twice is safe: every store this agent writes to keeps one value
per series and time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from agent.core.backoff import Backoff
from agent.core.clock import NS, Clock
from agent.core.errors import Rejected, Retryable, SinkError, TooLarge
from agent.core.isolation import Worker
from sinks.dead_letters import DeadLetters
from sinks.sink import Sink

log = structlog.get_logger("sink")

_MARGIN_S = 1.0  # a sink keeps its own deadline; the worker's is for one that does not
_LETTERS_S = 5.0  # a disk that does not answer loses the letters, as one that refuses does: they are counted


@dataclass(slots=True)
class DeliveryStats:
    """What became of what one sink was given."""

    lines: int = 0  # taken by the sink
    writes: int = 0
    bytes: int = 0  # before compression
    dead_letters: int = 0
    dropped_values: int = 0  # NaN and infinities, which line protocol cannot carry
    retries: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # by kind
    write_s: float = 0.0  # duration of the last write
    latency_s: float = 0.0  # age of the newest reading when it was taken
    last_success_ns: int = 0
    failing_since_ns: int = 0  # 0 while writes succeed
    retry_at_ns: int = 0
    error: str = ""
    is_lasting: bool = False  # a person must act (token, bucket)


class Carrier:
    """One way into a sink: its own thread, its own retries; counts into `stats`.

    Dead letters have a thread of their own, which most sinks never need: a disk that hangs is not the sink's trouble.
    """

    def __init__(self, name: str, sink: Sink, dead: DeadLetters, stats: DeliveryStats, clock: Clock) -> None:
        self.worker = Worker(f"sink-{name}")
        self._clerk = Worker(f"dead-letters-{name}")
        self._name = name
        self._sink = sink
        self._dead = dead
        self._stats = stats
        self._clock = clock

    async def until_taken(self, lines: list[str]) -> None:
        """Return when every line is stored or quarantined, however long that takes."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable), wait=Backoff(), sleep=self._sleep, before_sleep=self._note_failure
        )
        await retrying(self.once, lines)
        self._note_success()

    async def once(self, lines: list[str]) -> None:
        """Have every line stored or quarantined, without waiting for better times. Raise Retryable."""
        if not lines:
            return
        try:
            await self._write("\n".join(lines).encode("utf-8", "replace") + b"\n")
        except TooLarge as error:
            self._count(error)
            await self._halves(lines, error)
        except Rejected as error:
            self._count(error)
            await self._without_bad(lines, error)
        else:
            self._stats.lines += len(lines)

    async def _halves(self, lines: list[str], error: SinkError) -> None:
        if len(lines) == 1:
            await self._quarantine(lines, error)
            return
        middle = len(lines) // 2
        await self.once(lines[:middle])
        await self.once(lines[middle:])

    async def _without_bad(self, lines: list[str], error: Rejected) -> None:
        """Some lines are bad. Where the answer names them, only those go; else halve until each stands alone."""
        named = {at for at in error.bad_lines or () if 0 <= at < len(lines)}
        if not named or (error.dropped is not None and error.dropped > len(named)):
            await self._halves(lines, error)
            return
        await self._quarantine([lines[at] for at in sorted(named)], error)
        rest = [line for at, line in enumerate(lines) if at not in named]
        if error.stored:
            self._stats.lines += len(rest)
        else:
            await self.once(rest)

    async def _write(self, body: bytes) -> None:
        begun = self._clock.monotonic()
        try:
            await self.worker.call(lambda: self._sink.write(body), self._sink.timeout + _MARGIN_S)
        except TimeoutError as error:
            raise Retryable(f"{self._name}: no answer within {self._sink.timeout:g} s", kind="timeout") from error
        finally:
            self._stats.write_s = self._clock.monotonic() - begun
        self._stats.writes += 1
        self._stats.bytes += len(body)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + seconds)

    def _count(self, error: SinkError) -> None:
        self._stats.errors[error.kind] = self._stats.errors.get(error.kind, 0) + 1

    async def _quarantine(self, lines: list[str], error: SinkError) -> None:
        if not self._stats.dead_letters:
            log.warning(
                "sink.dead_letters", sink=self._name, reason=str(error), first=lines[0][:200], path=self._dead.path
            )
        self._stats.dead_letters += len(lines)
        now_ns = self._clock.wall_ns()
        with contextlib.suppress(TimeoutError):
            await self._clerk.call(lambda: self._dead.add(lines, str(error), now_ns), _LETTERS_S)

    def close(self) -> None:
        """Let the threads go."""
        self.worker.close()
        self._clerk.close()

    def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        wait = state.next_action.sleep if state.next_action is not None else 0.0
        stats = self._stats
        stats.retries += 1
        if isinstance(error, SinkError):
            self._count(error)
        if not stats.failing_since_ns or str(error) != stats.error:
            log.warning("sink.write_failed", sink=self._name, reason=str(error), retry_in_s=round(wait, 1))
        stats.failing_since_ns = stats.failing_since_ns or self._clock.wall_ns()
        stats.retry_at_ns = self._clock.wall_ns() + round(wait * NS)
        stats.error, stats.is_lasting = str(error), isinstance(error, Retryable) and error.is_lasting

    def _note_success(self) -> None:
        stats = self._stats
        if stats.failing_since_ns:
            down_s = round((self._clock.wall_ns() - stats.failing_since_ns) / NS)
            log.info("sink.recovered", sink=self._name, after_s=down_s)
        stats.failing_since_ns = stats.retry_at_ns = 0
        stats.error, stats.is_lasting = "", False
        stats.last_success_ns = self._clock.wall_ns()
