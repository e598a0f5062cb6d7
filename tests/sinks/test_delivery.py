from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.core.clock import NS, FakeClock, SystemClock
from agent.core.errors import Rejected, Retryable, SinkError, TooLarge
from agent.core.model import Group, Tick, gauge
from agent.journal_keeper import JournalKeeper
from sinks import carrier
from sinks.dead_letters import DeadLetters
from sinks.delivery import Delivery
from sinks.journal import Journal
from sinks.journal.files import Files, OsFiles
from tests.agent.test_scheduler import eventually

G = Group("m", (gauge("n", "count", "A number.", influx="n"),))


@dataclass
class Taker:
    """A sink that answers as a test tells it and keeps what it took."""

    answer: Callable[[list[str]], SinkError | None] = lambda lines: None
    flush_interval: float = 10.0
    timeout: float = 5.0
    asked: list[list[str]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    def write(self, lines: bytes) -> None:
        texts = [line.split(" ")[1] for line in lines.decode().splitlines()]
        self.asked.append(texts)
        error = self.answer(texts)
        if error is not None:
            raise error
        self.taken += texts

    def close(self) -> None: ...


@dataclass
class Setting:
    clock: FakeClock
    log: Journal
    sink: Taker
    delivery: Delivery
    dead: DeadLetters

    def emit(self, *numbers: int) -> None:
        for number in numbers:
            self.log.append(Tick(self.clock.wall_ns(), "test", [G.row((), (number,))]))

    async def advance(self, seconds: float) -> None:
        """Let time pass in small steps, so that the worker's thread keeps up."""
        for _ in range(round(seconds / 0.5)):
            await self.clock.advance(0.5)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def delivering(sink: Taker, at: Path, files: Files | None = None) -> AsyncIterator[Setting]:
    clock, dead = FakeClock(), DeadLetters(str(at / "dead.jsonl"))
    log = Journal(str(at / "journal"), clock, files=files)
    keeper = JournalKeeper(log, SystemClock())  # it is not given the Ticks, so it writes when it is asked to
    delivery = Delivery("test", sink, log, {}, dead, clock)
    running = asyncio.create_task(delivery.run())
    yield Setting(clock, log, sink, delivery, dead)
    running.cancel()
    delivery.close()
    assert await asyncio.to_thread(keeper.stop, 30)


async def test_one_write_a_flush_interval(tmp_path: Path) -> None:
    async with delivering(Taker(), tmp_path) as setting:
        for interval in range(1, 4):
            setting.emit(*range(10 * interval - 10, 10 * interval))
            await setting.advance(10)
            assert await eventually(lambda wanted=interval: len(setting.sink.asked) == wanted)  # type: ignore[misc]
        assert setting.sink.taken == [f"n={number}i" for number in range(30)]


async def test_what_comes_while_a_write_is_under_way_waits_for_the_next(tmp_path: Path) -> None:
    def answer(_: list[str]) -> None:
        if len(sink.asked) < 10:
            setting.emit(len(sink.asked))

    sink = Taker(answer)
    async with delivering(sink, tmp_path) as setting:
        setting.emit(0)
        for interval in range(1, 4):
            await setting.advance(10)
            assert await eventually(lambda wanted=interval: len(sink.asked) >= wanted)  # type: ignore[misc]
        assert sink.asked == [["n=0i"], ["n=1i"], ["n=2i"]]


async def test_a_failing_sink_is_tried_again_with_growing_pauses_and_loses_nothing(tmp_path: Path) -> None:
    sink = Taker(lambda lines: Retryable("HTTP 503", kind="http_503") if len(sink.asked) < 5 else None)
    async with delivering(sink, tmp_path) as setting:
        setting.emit(1, 2)
        await setting.advance(60)
        assert await eventually(lambda: sink.taken == ["n=1i", "n=2i"])
        assert sink.asked == [["n=1i", "n=2i"]] * 5, "the same lines each time"
        stats = setting.delivery.stats
        assert stats.errors == {"http_503": 4}
        assert (stats.retries, stats.error, stats.lines) == (4, "", 2)


async def test_retry_after_wins_over_the_backoff(tmp_path: Path) -> None:
    sink = Taker(lambda lines: Retryable("HTTP 429", kind="http_429", after=120) if len(sink.asked) < 2 else None)
    async with delivering(sink, tmp_path) as setting:
        setting.emit(1)
        await setting.advance(12)
        assert await eventually(lambda: len(sink.asked) == 1)
        await setting.advance(107)
        assert len(sink.asked) == 1
        await setting.advance(20)
        assert await eventually(lambda: len(sink.asked) == 2)


async def test_what_a_person_must_mend_is_said_and_tried_slowly(tmp_path: Path) -> None:
    sink = Taker(lambda lines: Retryable("HTTP 401: unauthorized", kind="http_401", is_lasting=True))
    async with delivering(sink, tmp_path) as setting:
        setting.emit(1)
        await setting.advance(130)
        assert 2 <= len(sink.asked) <= 3
        assert setting.delivery.stats.is_lasting
        assert setting.delivery.stats.error == "HTTP 401: unauthorized"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("stored", [True, False])
async def test_exactly_the_bad_lines_go_to_the_dead_letters(tmp_path: Path, named: bool, stored: bool) -> None:
    bad = {"n=13i", "n=700i"}
    kept: set[str] = set()

    def answer(lines: list[str]) -> SinkError | None:
        places = [at for at, line in enumerate(lines) if line in bad]
        if stored or not places:
            kept.update(line for line in lines if line not in bad)
        if not places:
            return None
        return Rejected("HTTP 400: bad", kind="http_400", bad_lines=places if named else None, stored=stored)

    async with delivering(Taker(answer), tmp_path) as setting:
        setting.emit(*range(1000))
        await setting.advance(12)
        assert await eventually(lambda: setting.delivery.stats.lines == 998)
        assert [letter["line"].split(" ")[1] for letter in setting.dead.read()] == ["n=13i", "n=700i"]
        assert kept == {f"n={number}i" for number in range(1000)} - bad
        assert setting.delivery.stats.dead_letters == 2
        if named:
            assert len(setting.sink.asked) <= 4, "two batches, each sent once more at most"
        else:
            assert len(setting.sink.asked) < 60, "bisection, not one by one"


async def test_a_request_that_is_too_large_is_halved_until_it_fits(tmp_path: Path) -> None:
    sink = Taker(lambda lines: TooLarge("HTTP 413", kind="http_413") if len(lines) > 300 else None)
    async with delivering(sink, tmp_path) as setting:
        setting.emit(*range(1000))
        await setting.advance(12)
        assert await eventually(lambda: len(sink.taken) == 1000)
        assert sink.taken == [f"n={number}i" for number in range(1000)]


async def test_a_line_too_large_on_its_own_is_a_dead_letter(tmp_path: Path) -> None:
    sink = Taker(lambda lines: TooLarge("HTTP 413", kind="http_413") if "n=1i" in lines else None)
    async with delivering(sink, tmp_path) as setting:
        setting.emit(0, 1, 2)
        await setting.advance(12)
        assert await eventually(lambda: setting.delivery.stats.last_success_ns > 0)
        assert sink.taken == ["n=0i", "n=2i"]
        assert setting.delivery.stats.dead_letters == 1


async def test_a_write_that_hangs_is_given_up_and_tried_again_when_it_is_back(tmp_path: Path) -> None:
    gate = threading.Event()

    def hang(lines: list[str]) -> None:
        if len(sink.asked) == 1:
            gate.wait()

    sink = Taker(hang, timeout=-0.99)  # with the worker's second of margin: a hundredth
    async with delivering(sink, tmp_path) as setting:
        setting.emit(1)
        await setting.advance(12)
        assert await eventually(lambda: setting.delivery.stats.errors.get("timeout", 0) > 0)
        gate.set()
        await setting.advance(200)
        assert await eventually(lambda: len(sink.asked) >= 2)


async def test_after_an_outage_new_readings_do_not_wait_for_the_backlog(tmp_path: Path) -> None:
    is_down = True
    gate = threading.Event()

    def answer(lines: list[str]) -> SinkError | None:
        if is_down:
            return Retryable("down", kind="network")
        if lines[0] != "n=0i" and int(lines[0][2:-1]) < 3000:
            gate.wait(10)  # the backlog is slow
        return None

    async with delivering(Taker(answer), tmp_path) as setting:
        for number in range(3000):
            setting.emit(number)
            await setting.clock.advance(0.1)
        is_down = False
        await setting.advance(130)
        setting.emit(9999)
        await setting.advance(12)
        assert await eventually(lambda: "n=9999i" in setting.sink.taken), "what is new arrives while the backlog hangs"
        assert len(setting.sink.taken) < 3001
        gate.set()
        await setting.advance(12)
        assert await eventually(lambda: len(setting.sink.taken) == 3001)
        assert sorted(setting.sink.taken) == sorted([f"n={number}i" for number in [*range(3000), 9999]])
        assert await eventually(lambda: setting.log.readers() == ["test"]), (
            "the backlog's reader is gone when it is done"
        )


async def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    first, second = Taker(), Taker()
    async with delivering(first, tmp_path) as setting:
        setting.emit(1, 2)
        await setting.advance(12)
        assert await eventually(lambda: first.taken == ["n=1i", "n=2i"])
        setting.emit(3)
    async with delivering(second, tmp_path) as setting:
        setting.emit(4)
        await setting.advance(12)
        assert await eventually(lambda: second.taken == ["n=3i", "n=4i"])


async def test_what_is_left_at_the_end_is_sent_without_waiting(tmp_path: Path) -> None:
    async with delivering(Taker(), tmp_path) as setting:
        setting.emit(1, 2, 3)
        await setting.delivery.flush()
        assert setting.sink.taken == ["n=1i", "n=2i", "n=3i"]


async def test_a_sink_that_is_down_at_the_end_does_not_hold_it_up(tmp_path: Path) -> None:
    async with delivering(Taker(lambda lines: Retryable("down", kind="network")), tmp_path) as setting:
        setting.emit(1)
        await setting.delivery.flush()
        assert len(setting.sink.asked) == 1


def test_dead_letters_are_capped_and_readable(tmp_path: Path) -> None:
    dead = DeadLetters(str(tmp_path / "dead.jsonl"), max_bytes=10_000)
    for number in range(1000):
        dead.add([f"m n={number}"], "HTTP 400", number * NS)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 10_000
    letters = list(dead.read())
    assert letters[-1] == {"time": 999, "reason": "HTTP 400", "line": "m n=999"}
    assert [letter["time"] for letter in letters] == list(range(1000 - len(letters), 1000))


def test_many_letters_at_once_keep_the_cap_and_the_newest(tmp_path: Path) -> None:
    dead = DeadLetters(str(tmp_path / "dead.jsonl"), max_bytes=100_000)
    dead.add(["m n=-1"], "HTTP 400", NS)
    dead.add([f"m n={number}" for number in range(10_000)], "HTTP 400", NS)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000
    kept = [letter["line"] for letter in dead.read()]
    assert len(kept) > 500
    assert kept == [f"m n={number}" for number in range(10_000 - len(kept), 10_000)]


def test_a_letter_larger_than_the_cap_leaves_the_others(tmp_path: Path) -> None:
    dead = DeadLetters(str(tmp_path / "dead.jsonl"), max_bytes=10_000)
    dead.add(["m n=1", "m n=" + "9" * 20_000, "m n=2"], "HTTP 413", NS)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    assert [letter["line"] for letter in dead.read()] == ["m n=1", "m n=2"]


def test_a_disk_that_takes_a_part_of_the_letters_has_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a nearly full one does: less than asked for, and then an error; later letters follow whole ones."""
    room = [1000]

    def write(handle: int, letters: bytes) -> int:
        taken = real_write(handle, letters[: min(100, room[0])])
        room[0] -= taken
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken

    real_write = os.write
    monkeypatch.setattr(os, "write", write)
    dead = DeadLetters(str(tmp_path / "dead.jsonl"))
    dead.add([f"m n={number}" for number in range(100)], "HTTP 400", NS)
    monkeypatch.undo()
    dead.add(["m n=100"], "HTTP 400", NS)
    lines = (tmp_path / "dead.jsonl").read_text().splitlines()
    letters = [json.loads(line)["line"] for line in lines]
    assert len(letters) > 10
    assert letters == [*(f"m n={number}" for number in range(len(letters) - 1)), "m n=100"]


async def test_what_a_sink_is_given_the_journal_has_written(tmp_path: Path) -> None:
    waiting: list[int] = []
    sink = Taker(lambda lines: waiting.append(setting.log.stats.waiting_records))
    async with delivering(sink, tmp_path) as setting:
        setting.emit(1, 2)
        await setting.advance(12)
        assert await eventually(lambda: sink.taken == ["n=1i", "n=2i"])
        assert waiting == [0]


async def test_what_comes_while_the_journal_is_written_goes_out_the_next_time(tmp_path: Path) -> None:
    async with delivering(Taker(), tmp_path) as setting:

        def write_and_append() -> None:
            setting.log.flush()
            if not setting.sink.asked:
                setting.emit(3)

        setting.log.want_written = write_and_append
        setting.emit(1, 2)
        await setting.delivery.flush()
        assert setting.sink.asked[0] == ["n=1i", "n=2i"], "3 was there when they were read, and not yet written"


async def test_the_event_loop_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where a sink is new, nor where a backlog is handed over and done, nor for a dead letter."""
    callers: dict[str, set[str]] = {}

    class Watched(OsFiles):
        def __getattribute__(self, name: str) -> object:
            callers.setdefault(name, set()).add(threading.current_thread().name)
            return super().__getattribute__(name)

    write_letters = DeadLetters.add

    def add(dead: DeadLetters, *letter: Any) -> None:
        callers.setdefault("dead letter", set()).add(threading.current_thread().name)
        write_letters(dead, *letter)

    monkeypatch.setattr(DeadLetters, "add", add)
    is_down = True

    def answer(lines: list[str]) -> SinkError | None:
        if is_down:
            return Retryable("down", kind="network")
        return Rejected("HTTP 400", kind="http_400", bad_lines=[0], stored=True) if lines[0] == "n=0i" else None

    files = Watched()
    async with delivering(Taker(answer), tmp_path, files) as setting:
        callers.clear()  # opening the journal is another matter
        Delivery("late", Taker(), setting.log, {}, setting.dead, setting.clock).close()
        for number in range(1000):
            setting.emit(number)
            await setting.clock.advance(0.1)
        is_down = False
        await setting.advance(80)
        assert await eventually(lambda: setting.delivery.stats.lines == 999)
        assert await eventually(lambda: setting.log.readers() == ["late", "test"]), "the backlog was one, and is done"
        setting.emit(1000)
        await setting.advance(12)
    assert {"open", "write", "write_at", "sync", "unlink", "dead letter"} <= callers.keys()
    assert threading.current_thread().name not in set().union(*callers.values())


async def test_a_disk_that_takes_no_dead_letters_holds_up_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(DeadLetters, "add", lambda *_: goes_on.wait(30))
    monkeypatch.setattr(carrier, "_LETTERS_S", 0.05)
    bad = {"n=3i", "n=7i"}
    sink = Taker(lambda lines: Rejected("HTTP 400", kind="http_400") if bad & set(lines) else None)
    try:
        async with delivering(sink, tmp_path) as setting:
            setting.emit(*range(10))
            await setting.advance(12)
            assert await eventually(lambda: setting.delivery.stats.lines == 8)
            assert setting.delivery.stats.dead_letters == 2
    finally:
        goes_on.set()


async def test_a_disk_that_hangs_does_not_hold_up_what_goes_out(tmp_path: Path) -> None:
    """Not even where the sink is the first to want something written."""
    goes_on = threading.Event()
    writers = []

    class Hanging(OsFiles):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            writers.append(threading.current_thread().name)
            goes_on.wait(30)
            return super().write(fd, data)

    async with delivering(Taker(), tmp_path, Hanging()) as setting:
        try:
            setting.emit(1, 2)
            await setting.advance(12)
            assert await eventually(lambda: setting.sink.taken == ["n=1i", "n=2i"])
            assert setting.log.stats.waiting_records == 2
            assert writers == ["journal"]
        finally:
            goes_on.set()
