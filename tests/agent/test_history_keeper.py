from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent import history_keeper
from agent.core.clock import FakeClock
from agent.core.model import Tick
from agent.history_keeper import HistoryKeeper
from sinks.history.history import History
from sinks.history.options import HistoryOptions
from sinks.journal import Journal, Limits
from tests.agent.test_scheduler import eventually
from tests.sinks.history.small import START_S, at, samples


@asynccontextmanager
async def keeping(directory: Path, clock: FakeClock, *ticks: Tick) -> AsyncIterator[HistoryKeeper]:
    """A keeper beside a journal that knows these Ticks from another life."""
    journal = Journal(str(directory / "journal"), clock, Limits(min_free_bytes=0))
    for tick in ticks:
        journal.append(tick)
    keeper = HistoryKeeper(HistoryOptions(flush=60.0), str(directory), clock, "host")
    running = asyncio.create_task(keeper.run(journal))
    yield keeper
    running.cancel()
    await keeper.close()
    await asyncio.gather(running, return_exceptions=True)
    journal.close()


def a_bug(*_: object) -> bool:
    raise RuntimeError("a bug")


def events(logs: Iterable[object]) -> list[object]:
    return [entry["event"] for entry in logs]  # type: ignore[index]


async def test_a_rebuild_that_meets_a_bug_keeps_neither_history_nor_rules_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(START_S)
    monkeypatch.setattr(History, "rebuild", a_bug)
    with capture_logs() as logs:
        async with keeping(tmp_path, clock, at(-10, {"a": 1.0})) as keeper:
            keeper.append(at(0, {"a": 2.0}))  # while it rebuilds
            await asyncio.wait_for(keeper.is_rebuilt.wait(), 30)
            keeper.append(at(1, {"a": 3.0}))
            assert samples(keeper.history, "a") == [(0, 2.0), (1, 3.0)]
    (told,) = [entry for entry in logs if entry["event"] == "history.broke_off"]
    assert isinstance(told["exc_info"], RuntimeError)


async def test_a_bug_in_a_write_is_shown_and_the_next_write_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(START_S)
    async with keeping(tmp_path, clock) as keeper:
        keeper.append(at(0, {"a": 1.0}))
        assert await eventually(lambda: keeper.summary()["state"] == "ok")
        monkeypatch.setattr(keeper.history, "write", a_bug)
        await clock.advance(61)
        assert await eventually(lambda: keeper.summary()["state"] == "failing")
        assert keeper.summary()["error"] == "RuntimeError: a bug"
        assert [reading.values[3] for reading in keeper.readings()] == [True]
        monkeypatch.undo()
        await clock.advance(history_keeper._AFTER_A_BUG_S + 1)
        assert await eventually(lambda: keeper.summary()["state"] == "ok")
        assert keeper.summary()["tiers"]["raw"]["samples"]


async def test_a_disk_that_does_not_answer_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(START_S)

    async def hang(*_: object) -> None:
        raise TimeoutError

    async with keeping(tmp_path, clock) as keeper:
        assert await eventually(lambda: keeper.summary()["state"] == "ok")
        monkeypatch.setattr(keeper._worker, "call", hang)
        await keeper.write()
        assert keeper.summary()["state"] == "failing"
        assert "no answer within" in keeper.summary()["error"]
        monkeypatch.undo()
        await keeper.write()
        assert keeper.summary()["state"] == "ok"


async def test_a_bug_at_the_end_is_told_and_the_end_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(START_S)
    with capture_logs() as logs:
        async with keeping(tmp_path, clock) as keeper:
            await keeper.is_rebuilt.wait()
            monkeypatch.setattr(keeper.history, "close", a_bug)
    assert "history.broke_off" in events(logs)
