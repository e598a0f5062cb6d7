"""Carries Ticks from the journal to one sink: one write a flush interval, retried until it is taken.

Answers decide (docs/delivery.md): Retryable waits and sends the same again; TooLarge halves; Rejected quarantines
exactly the bad lines, found by bisection where the answer does not name them. Sending twice is safe: every store this
agent writes to keeps one value per series and time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol
from zlib import crc32

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from agent.core.backoff import Backoff
from agent.core.clock import NS, Clock
from agent.core.errors import Rejected, Retryable, SinkError, TooLarge
from agent.core.isolation import Worker
from agent.core.model import Tick
from sinks.dead_letters import DeadLetters
from sinks.line_protocol import Encoder
from sinks.sink import Sink

log = structlog.get_logger("sink")

MOST_RECORDS = 1000  # ticks of one write; about 30 readings each
MOST_BYTES = 4 * 2**20
_READ_TIMEOUT_S = 30.0
_MARGIN_S = 1.0  # a sink keeps its own deadline; the worker's is for one that does not


class Batch(Protocol):
    """Ticks read from the journal and the position behind them."""

    @property
    def ticks(self) -> list[Tick]: ...
    @property
    def next_position(self) -> Any: ...


class Reader(Protocol):
    """One durable cursor into the journal."""

    def read(self, max_records: int, max_bytes: int) -> Batch | None: ...
    def commit(self, position: Any) -> None: ...


@dataclass(slots=True)
class DeliveryStats:
    """What became of what one sink was given."""

    lines: int = 0  # taken by the sink
    writes: int = 0
    bytes: int = 0  # before compression
    dead_letters: int = 0
    retries: int = 0
    errors: dict[str, int] = field(default_factory=dict)  # by kind
    write_s: float = 0.0  # duration of the last write
    latency_s: float = 0.0  # age of the newest reading when it was taken
    last_success_ns: int = 0
    failing_since_ns: int = 0  # 0 while writes succeed
    retry_at_ns: int = 0
    error: str = ""
    is_lasting: bool = False  # a person must act (token, bucket)


class Delivery:
    """One sink's loop. `run` never ends by itself; `flush` delivers what is left when the agent stops."""

    def __init__(
        self, name: str, sink: Sink, reader: Reader, encoder: Encoder, dead: DeadLetters, clock: Clock
    ) -> None:
        self.name = name
        self.stats = DeliveryStats()
        self._sink = sink
        self._reader = reader
        self._encoder = encoder
        self._dead = dead
        self._clock = clock
        self._worker = Worker(f"sink-{name}")
        # Hosts that start together must not write together: each has its own place within the interval.
        self._phase = crc32(repr(sorted(encoder.tags.items())).encode() + name.encode()) % 1000 / 1000

    async def run(self) -> None:
        """Deliver at each flush interval, and without pause while there is a backlog."""
        while True:
            await self._clock.sleep_until(self._next_flush())
            while await self._deliver_one():
                pass

    def _next_flush(self) -> float:
        interval = self._sink.flush_interval
        wall = self._clock.wall_ns() / NS
        wait = interval - (wall - self._phase * interval) % interval
        return self._clock.monotonic() + max(wait, 0.05)

    async def flush(self) -> None:
        """Send all the journal holds for this sink, one try each: the agent is about to end."""
        try:
            while (batch := await self._read()) is not None:
                await self._send(self._encode(batch))
                self._reader.commit(batch.next_position)
        except (SinkError, TimeoutError) as error:
            log.info("sink.left_for_next_start", sink=self.name, reason=str(error))

    def close(self) -> None:
        self._worker.close()
        self._sink.close()

    # -- one write ---------------------------------------------------------------------------------------------------

    async def _deliver_one(self) -> bool:
        """Deliver one batch; True when there may be more."""
        batch = await self._read()
        if batch is None:
            return False
        lines = self._encode(batch)
        await self._until_taken(lines)
        self._reader.commit(batch.next_position)
        newest = max((tick.time_ns for tick in batch.ticks), default=0)
        self.stats.latency_s = max(0.0, (self._clock.wall_ns() - newest) / NS)
        return len(batch.ticks) >= MOST_RECORDS

    async def _read(self) -> Batch | None:
        return await self._worker.call(lambda: self._reader.read(MOST_RECORDS, MOST_BYTES), _READ_TIMEOUT_S)

    def _encode(self, batch: Batch) -> list[str]:
        return self._encoder.encode(batch.ticks)

    async def _until_taken(self, lines: list[str]) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable), wait=Backoff(), sleep=self._sleep, before_sleep=self._note_failure
        )
        await retrying(self._send, lines)
        self._note_success()

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.monotonic() + seconds)

    async def _send(self, lines: list[str]) -> None:
        """Have every line taken or quarantined. Raise Retryable."""
        if not lines:
            return
        try:
            await self._write("\n".join(lines).encode("utf-8", "replace") + b"\n")
        except TooLarge as error:
            self._count(error)
            await self._send_halves(lines, error)
        except Rejected as error:
            self._count(error)
            await self._send_without_bad(lines, error)
        else:
            self.stats.lines += len(lines)

    async def _send_halves(self, lines: list[str], error: SinkError) -> None:
        if len(lines) == 1:
            self._quarantine(lines, error)
            return
        middle = len(lines) // 2
        await self._send(lines[:middle])
        await self._send(lines[middle:])

    async def _send_without_bad(self, lines: list[str], error: Rejected) -> None:
        """Some lines are bad. Where the answer names them, only those go; else halve until each stands alone."""
        named = {at for at in error.bad_lines or () if 0 <= at < len(lines)}
        if not named or (error.dropped is not None and error.dropped > len(named)):
            await self._send_halves(lines, error)
            return
        self._quarantine([lines[at] for at in sorted(named)], error)
        rest = [line for at, line in enumerate(lines) if at not in named]
        if error.stored:
            self.stats.lines += len(rest)
        else:
            await self._send(rest)

    async def _write(self, body: bytes) -> None:
        begun = self._clock.monotonic()
        try:
            await self._worker.call(lambda: self._sink.write(body), self._sink.timeout + _MARGIN_S)
        except TimeoutError as error:
            raise Retryable(f"{self.name}: no answer within {self._sink.timeout:g} s", kind="timeout") from error
        finally:
            self.stats.write_s = self._clock.monotonic() - begun
        self.stats.writes += 1
        self.stats.bytes += len(body)

    # -- what is told ------------------------------------------------------------------------------------------------

    def _count(self, error: SinkError) -> None:
        self.stats.errors[error.kind] = self.stats.errors.get(error.kind, 0) + 1

    def _quarantine(self, lines: list[str], error: SinkError) -> None:
        if not self.stats.dead_letters:
            log.warning(
                "sink.dead_letters", sink=self.name, reason=str(error), first=lines[0][:200], path=self._dead.path
            )
        self.stats.dead_letters += len(lines)
        self._dead.add(lines, str(error), self._clock.wall_ns())

    def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        wait = state.next_action.sleep if state.next_action is not None else 0.0
        stats = self.stats
        stats.retries += 1
        if isinstance(error, SinkError):
            self._count(error)
        if not stats.failing_since_ns or str(error) != stats.error:
            log.warning("sink.write_failed", sink=self.name, reason=str(error), retry_in_s=round(wait, 1))
        stats.failing_since_ns = stats.failing_since_ns or self._clock.wall_ns()
        stats.retry_at_ns = self._clock.wall_ns() + round(wait * NS)
        stats.error, stats.is_lasting = str(error), isinstance(error, Retryable) and error.is_lasting

    def _note_success(self) -> None:
        stats = self.stats
        if stats.failing_since_ns:
            down_s = round((self._clock.wall_ns() - stats.failing_since_ns) / NS)
            log.info("sink.recovered", sink=self.name, after_s=down_s)
        stats.failing_since_ns = stats.retry_at_ns = 0
        stats.error, stats.is_lasting = "", False
        stats.last_success_ns = self._clock.wall_ns()
