"""From a source's programs to the targets: compressed, encrypted, counted, checked on the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from backup.children import Group, Guard, Status, Step, check_statuses, close_all, pipe
from backup.coding import Coding, Compression, compress_steps, decode_steps, encrypt_steps, plain_io
from backup.errors import BackupError, Damaged, Refused, SourceFailed, Stopped, TargetFailed
from backup.relay import Digest, Lane, Meter, PipeTaker, Taker, relay
from backup.source import Stream, Work

T = TypeVar("T")
_REST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one stream. `failed`: takers that did not get all of it, with the reason."""

    raw_bytes: int
    digest: Digest
    statuses: tuple[Status, ...]
    warnings: tuple[str, ...]
    failed: Mapping[str, Exception]
    is_decoded: bool  # it was decoded on the way, and was right


@dataclass(frozen=True, slots=True)
class Settings:
    """How streams are recorded. `rate` in bytes a second after compression; None: as fast as it goes.

    `patience_s`: how long in sum one taker may hold up the others; None: for ever.
    """

    compression: Compression
    recipients: tuple[str, ...] = ()
    rate: int | None = None
    stall_s: float = 600.0
    patience_s: float | None = None

    @property
    def coding(self) -> Coding:
        return Coding(self.compression.program, self.recipients)


class Decoder(Generic[T]):
    """A taker that decodes what it gets and lets `consume` read the plain bytes from a pipe.

    `finish` gives back what `consume` returned, after the last byte was decoded and every program ended well; it raises
    what `consume` raised, or Damaged.
    """

    def __init__(self, steps: Sequence[Step], consume: Callable[[int], T], work: Work) -> None:
        self._consume = consume
        self._work = work
        self._result: list[T] = []
        self._error: Exception | None = None
        self._group = Group(work.guard, work.redact)
        self._group.__enter__()
        read_end, write_end = pipe()
        self._feed = PipeTaker(write_end)
        try:
            for step in steps:
                next_read, next_write = pipe()
                try:
                    self._group.start(step, read_end, next_write)
                except BaseException:
                    os.close(next_read)
                    raise
                finally:
                    close_all(next_write)
                os.close(read_end)
                read_end = next_read
        except BaseException:
            os.close(read_end)
            self.abort()
            raise
        self._thread = threading.Thread(target=self._read, args=(read_end,), name="decode", daemon=True)
        self._thread.start()

    def _read(self, plain: int) -> None:
        try:
            self._result.append(self._consume(plain))
            # A reader may know the end before it comes; the checksum at the very end counts too.
            while os.read(plain, _REST_BYTES):
                pass
        except Exception as error:  # noqa: BLE001 - raised again by finish(), where somebody waits
            self._error = error
        finally:
            os.close(plain)

    def write(self, chunk: bytes) -> None:
        """Raise what went wrong on the other side, where that is why it takes no more."""
        try:
            self._feed.write(chunk)
        except BrokenPipeError:
            self.finish()
            raise Damaged("the decoder ended before the archive did") from None

    def finish(self) -> None:
        """Wait for the end of it all. Raise what was found wrong."""
        self._feed.close()
        # The programs first: they end when they have written all, which the reader takes up.
        self._thread.join()
        statuses = self._group.wait()
        self._group.__exit__(None, None, None)
        self._work.guard.check()
        if isinstance(self._error, BackupError):
            # A damaged archive makes the reader complain of a short one; the decoder knows the cause.
            failed = [status for status in statuses if status.is_failure and status.code > 0]
            if failed and not isinstance(self._error, Stopped | Refused):
                raise Damaged(f"{failed[0]}; {self._error}") from self._error
            raise self._error
        if self._error is not None:
            raise self._error
        check_statuses(statuses, Damaged)

    @property
    def result(self) -> T:
        """What `consume` returned; there only after finish()."""
        return self._result[0]

    def kill(self) -> None:
        """End its programs; what waits for them goes on and fails."""
        self._group.kill()

    def abort(self) -> None:
        """Drop it, whatever its state. Not while another thread writes."""
        self._group.kill()
        self._feed.close()
        self._group.__exit__(None, None, None)


def record(stream: Stream, takers: Mapping[str, Taker], settings: Settings, work: Work, *,
           decode: Callable[[int], None] | None = None,
           on_progress: Callable[[int, int], None] | None = None) -> Recorded:  # fmt: skip
    """Run a stream's programs and give what comes out, coded, to every taker. Takers that failed are in the result.

    `decode`: reads the plain bytes on the way and raises Damaged. `on_progress(raw, stored)`: bytes so far.
    Raise SourceFailed when a program fails, Damaged when the decoded bytes are wrong, Stopped.
    """
    lanes: list[Lane] = []
    checker: _Checker | None = None
    is_whole = False
    with ExitStack() as stack:
        coders = stack.enter_context(Group(work.guard, work.redact))
        # A group of its own: it is over, background processes included, when its programs are.
        producers = stack.enter_context(Group(work.guard, work.redact))
        plumbing = stack.enter_context(_Plumbing())
        try:
            meter, end = None, plumbing.chain(producers, stream.steps, None)
            producers.wait_aside()
            # What writes through stdio is slower than zstd, which had better read ahead.
            asks = settings.compression.program == "zstd" and not stream.steps[-1].is_wordy
            more = plain_io(work.guard, work.redact) if asks else ()
            packing = compress_steps(settings.compression, stream.level, more)
            locking = encrypt_steps(settings.recipients)
            if packing or locking:
                end, meter = plumbing.metered(end)
            end = plumbing.chain(coders, packing, end)
            if decode is not None:
                checker = _Checker(settings, decode, work)
            aside = [checker.lane] if checker is not None else []
            if locking:
                end, aside = plumbing.forked(coders, locking[0], end, aside, work, settings.stall_s), []
            lanes = [Lane(name, taker, settings.patience_s) for name, taker in takers.items()]
            digest = relay(end, [*lanes, *aside], work.guard, rate=settings.rate, stall_s=settings.stall_s,
                           on_progress=_teller(on_progress, meter))  # fmt: skip
            if all(lane.error is not None for lane in lanes):
                raise TargetFailed("; ".join(f"{lane.name}: {lane.error}" for lane in lanes))
            raw_bytes = meter.wait() if meter is not None else digest.size
            statuses = producers.wait() + coders.wait()
            work.guard.check()
            warnings = check_statuses(statuses)
            plumbing.check()
            _check_size(stream, raw_bytes)
            warnings += stream.after()
            is_whole = True
        except (SourceFailed, TargetFailed) as error:
            producers.kill()
            coders.kill()
            work.guard.check()
            _blame_program(producers.wait() + coders.wait(), error)
            raise
        finally:
            if not is_whole:
                producers.kill()
                coders.kill()
            for lane in lanes:
                lane.end(settings.stall_s, work.guard, is_whole=is_whole)
            if checker is not None:
                checker.end(settings.stall_s, work.guard, is_whole=is_whole)
        if checker is not None and checker.lane.error is not None:
            raise _as_damage(checker.lane.error)
        failed = {lane.name: lane.error for lane in lanes if lane.error is not None}
        return Recorded(raw_bytes, digest, tuple(statuses), tuple(warnings), failed, decode is not None)


def _check_size(stream: Stream, raw_bytes: int) -> None:
    if raw_bytes == 0:
        raise SourceFailed(f"{stream.name}: the programs ended well but gave nothing")
    if raw_bytes < stream.least_bytes:
        raise SourceFailed(f"{stream.name}: {raw_bytes} bytes are too few; at least {stream.least_bytes} were expected")


def _blame_program(statuses: Sequence[Status], error: Exception) -> None:
    """Raise SourceFailed naming the program whose own failure led to `error`, if one had failed before the kill."""
    for status in statuses:
        if status.is_failure and status.code > 0:
            raise SourceFailed(f"{status}") from error


def _as_damage(error: Exception) -> BackupError:
    return error if isinstance(error, BackupError) else Damaged(f"cannot be decoded: {error}")


def _teller(on_progress: Callable[[int, int], None] | None, meter: Meter | None) -> Callable[[int], None] | None:
    if on_progress is None:
        return None
    return lambda stored: on_progress(stored if meter is None else meter.size, stored)


class _Checker:
    """The decoder as one more lane of a relay."""

    def __init__(self, settings: Settings, decode: Callable[[int], None], work: Work) -> None:
        self._decoder = Decoder(decode_steps(Coding(settings.compression.program), None), decode, work)
        self.lane = Lane("decode", self._decoder)

    def end(self, stall_s: float, guard: Guard, *, is_whole: bool) -> None:
        if not is_whole:
            self._decoder.kill()  # wakes the lane where it waits to write
        self.lane.end(stall_s, guard, is_whole=is_whole)
        self._decoder.abort()


class _Plumbing:
    """The pipes of one recording, closed at its end, and the thread that feeds encryption."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._fork: threading.Thread | None = None
        self._fork_error: Exception | None = None

    def __enter__(self) -> _Plumbing:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        if self._fork is not None:
            self._fork.join()

    def chain(self, group: Group, steps: Sequence[Step], source: int | None) -> int:
        """Start programs joined by pipes, reading from `source` (None: nothing); where the last one's output is."""
        end = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if source is None else source
        self._open.add(end)
        for step in steps:
            read_end, write_end = pipe()
            self._open.add(read_end)
            try:
                group.start(step, end, write_end)
            finally:
                os.close(write_end)
            self._close(end)
            end = read_end
        return end

    def metered(self, source: int) -> tuple[int, Meter]:
        """The same bytes from another pipe, and who counts them."""
        read_end, write_end = pipe()
        self._open.add(read_end)
        self._open.discard(source)  # the meter's now
        return read_end, Meter(source, write_end)

    def forked(self, group: Group, step: Step, source: int, aside: Sequence[Lane], work: Work, stall_s: float) -> int:
        """Give `source` to a program and to the lanes `aside`; where the program's output is."""
        feed_read, feed_write = pipe()
        self._open.add(feed_read)
        try:
            end = self.chain(group, [step], feed_read)
        except BaseException:
            os.close(feed_write)
            raise
        self._open.discard(source)
        taker = PipeTaker(feed_write)
        program = Lane(step.argv[0], taker)

        def feed() -> None:
            try:
                relay(source, [program, *aside], work.guard, stall_s=stall_s)
                if program.error is not None:
                    raise program.error
            except Exception as error:  # noqa: BLE001 - raised again by check()
                self._fork_error = error
            finally:
                program.end(stall_s, work.guard, is_whole=True)
                taker.close()
                os.close(source)

        self._fork = threading.Thread(target=feed, name="fork", daemon=True)
        self._fork.start()
        return end

    def check(self) -> None:
        """Raise what kept the bytes from reaching encryption."""
        if self._fork is not None:
            self._fork.join()
        if self._fork_error is not None:
            raise SourceFailed(f"encryption did not get all: {self._fork_error}") from self._fork_error

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)
