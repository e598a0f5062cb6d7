"""Carries Ticks from the journal to one sink: one write a flush interval.

After an outage there are two streams: what is new goes out on time, and the backlog drains beside it.
"""

from __future__ import annotations

import asyncio
from zlib import crc32

import structlog

from agent.core.clock import NS, Clock
from agent.core.errors import SinkError
from sinks.carrier import Carrier, DeliveryStats
from sinks.dead_letters import DeadLetters
from sinks.journal import Journal, Reader
from sinks.line_protocol import Encoder
from sinks.sink import Sink

log = structlog.get_logger("sink")

BACKLOG_AGE_S = 60.0  # older than this (and than six intervals) is a backlog, which must not hold up what is new
_MOST_RECORDS = 500  # ticks of one write; about 30 readings each
_MOST_BYTES = 2**20
_READ_TIMEOUT_S = 30.0
_WRITING_S = 0.5  # waited for the journal to write; with a disk that hangs, readings go out all the same
_BACKLOG_SUFFIX = ".backlog"


class Delivery:
    """One sink's loops. `run` never ends by itself; `flush` delivers what is left when the agent stops.

    Its reader in the journal has its name, so that a restart or a reload goes on where the last one stopped.
    """

    def __init__(self, name: str, sink: Sink, journal: Journal, tags: dict[str, str], dead: DeadLetters,
                 clock: Clock) -> None:  # fmt: skip
        self.name = name
        self.stats = DeliveryStats()
        self._sink = sink
        self._journal = journal
        self._clock = clock
        self._live = _Stream(journal.reader(name), Carrier(name, sink, dead, self.stats, clock), Encoder(tags))
        self._backlog_name = name + _BACKLOG_SUFFIX
        self._drain = _Stream(None, Carrier(self._backlog_name, sink, dead, self.stats, clock), Encoder(tags))
        if self._backlog_name in journal.readers():
            self._drain.reader = journal.reader(self._backlog_name)
        # Hosts that start together must not write together: each has its own place within the interval.
        self._phase = crc32(repr(sorted(tags.items())).encode() + name.encode()) % 1000 / 1000

    async def run(self) -> None:
        """Deliver at each flush interval; a backlog drains beside it without pause."""
        draining = asyncio.create_task(self._drain_backlog(), name=f"sink-{self._backlog_name}")
        try:
            while True:
                await self._clock.sleep_until(self._next_flush())
                await self._deliver_new()
                if self._drain.reader is not None and draining.done():
                    draining = asyncio.create_task(self._drain_backlog(), name=f"sink-{self._backlog_name}")
        finally:
            draining.cancel()

    def _next_flush(self) -> float:
        interval = self._sink.flush_interval
        wall = self._clock.wall_ns() / NS
        wait = interval - (wall - self._phase * interval) % interval
        return self._clock.monotonic() + max(wait, 0.05)

    async def _deliver_new(self) -> None:
        """Everything since the last flush; after an outage the rest is handed to the backlog's stream."""
        reader = self._live.must_reader
        end = reader.position + reader.lag().records  # what comes meanwhile goes out the next time
        while reader.position < end and (newest_ns := await self._live.deliver()) is not None:
            self.stats.dropped_values = self._live.encoder.dropped_values + self._drain.encoder.dropped_values
            self.stats.latency_s = max(0.0, (self._clock.wall_ns() - newest_ns) / NS)
            age_s = reader.lag().oldest_age_s
            if age_s > max(BACKLOG_AGE_S, 6 * self._sink.flush_interval) and self._drain.reader is None:
                log.info("sink.backlog", sink=self.name, age_s=round(age_s))
                self._drain.reader = reader.fork(self._backlog_name)

    async def _drain_backlog(self) -> None:
        reader = self._drain.reader
        if reader is None:
            return
        while await self._drain.deliver() is not None:
            await asyncio.sleep(0)  # let what is new go first
        if reader.is_done:
            self._drain.reader = None
            self._journal.remove(self._backlog_name)
            log.info("sink.backlog_delivered", sink=self.name)

    async def flush(self) -> None:
        """Send what is new, one try each: the agent is about to end. A backlog goes on at the next start."""
        try:
            while await self._live.deliver(patiently=False) is not None:
                pass
        except (SinkError, TimeoutError) as error:
            log.info("sink.left_for_next_start", sink=self.name, reason=str(error))

    def close(self) -> None:
        """Give threads and connections back; the reader's place stays in the journal."""
        self._live.carrier.close()
        self._drain.carrier.close()
        self._sink.close()


class _Stream:
    """A reader of the journal and a way into the sink."""

    def __init__(self, reader: Reader | None, carrier: Carrier, encoder: Encoder) -> None:
        self.reader = reader
        self.carrier = carrier
        self.encoder = encoder

    @property
    def must_reader(self) -> Reader:
        if self.reader is None:
            raise RuntimeError("this stream has no reader")
        return self.reader

    async def deliver(self, *, patiently: bool = True) -> int | None:
        """One batch; the time of its newest Tick (ns), None when there was none. Raise SinkError unless `patiently`."""
        reader = self.must_reader
        read = await self.carrier.worker.call(lambda: self._read(reader), _READ_TIMEOUT_S)
        if read is None:
            return None
        lines, position, newest_ns = read
        await (self.carrier.until_taken(lines) if patiently else self.carrier.once(lines))
        reader.commit(position)
        return newest_ns

    def _read(self, reader: Reader) -> tuple[list[str], int, int] | None:
        """On the worker's thread: encoding a backlog must not stall the event loop."""
        batch = reader.read_written(_MOST_RECORDS, _MOST_BYTES, _WRITING_S)
        if batch is None:
            return None
        newest_ns = max((tick.time_ns for tick in batch.ticks), default=0)
        return self.encoder.encode(batch.ticks), batch.next_position, newest_ns
