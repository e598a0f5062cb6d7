"""The daemon's loop: runs come when they are due, one at a time, and are remembered when they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.core.clock import FakeClock
from backup import histories
from backup.errors import BackupError
from backup.job import Hooks, Job, Limits
from backup.runner import Outcome
from backup.schedule import History
from backup.scheduler import Scheduler

START = datetime(2024, 1, 1, 2, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0
GOOD = Outcome("ok", None, 0, {"is_slot_done": True})
BAD = Outcome("fail", "it broke", 1)
BUSY = Outcome("busy", "runs already", 75)


class Scripted:
    """A runner whose runs take an hour and end as scripted, by default well; notes when each began."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.began: list[tuple[str, str]] = []
        self.outcomes: list[Outcome | Exception] = []
        self.at_once = 0

    async def run(self, job: str, on_event: Any, deadline_s: float) -> Outcome:
        self.at_once += 1
        assert self.at_once == 1
        self.began.append((datetime.fromtimestamp(self.clock.wall_ns() / 1e9, UTC).strftime("%d %H:%M"), job))
        try:
            await self.clock.sleep_until(self.clock.monotonic() + HOUR)
        finally:
            self.at_once -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else GOOD
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Target:
    """Stands for a target's entry: the scheduler looks into no job."""

    common = None


def job(schedule: str, **more: Any) -> Job:
    return Job(source={"x": Target()}, targets={"x": Target()}, schedule=schedule, **more)


Scene = Callable[[Scheduler, Scripted, FakeClock], Awaitable[None]]


def play(directory: Path, jobs: dict[str, Job], scene: Scene, start: float = START) -> list[tuple[str, str]]:
    async def act() -> list[tuple[str, str]]:
        clock = FakeClock(start)
        runner = Scripted(clock)
        scheduler = Scheduler(jobs, runner, str(directory / "runs.json"), clock, on_event=lambda _: None,
                              on_outcome=lambda name, outcome: None)  # fmt: skip
        task = asyncio.create_task(scheduler.run())
        try:
            await scene(scheduler, runner, clock)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert runner.at_once == 0
        return runner.began

    return asyncio.run(act())


async def two_days(_: Scheduler, __: Scripted, clock: FakeClock) -> None:
    await clock.advance(48 * HOUR)


def test_jobs_run_in_their_slots_one_at_a_time(tmp_path: Path) -> None:
    jobs = {"a": job("daily 03:00"), "b": job("daily 03:00"), "off": job("hourly", enabled=False), "n": job("never")}
    assert play(tmp_path, jobs, two_days) == [
        ("01 03:00", "a"),
        ("01 04:00", "b"),
        ("02 03:00", "a"),
        ("02 04:00", "b"),
    ]


def test_after_a_restart_what_was_missed_is_made_up_for_once(tmp_path: Path) -> None:
    play(tmp_path, {"a": job("daily 03:00")}, two_days)
    later = START + 10 * 24 * HOUR + 5 * HOUR
    assert play(tmp_path, {"a": job("daily 03:00")}, two_days, later) == [
        ("11 07:00", "a"),
        ("12 03:00", "a"),
        ("13 03:00", "a"),
    ]


def test_a_run_that_was_cut_off_by_a_restart_is_run_again(tmp_path: Path) -> None:
    async def half_an_hour_into_it(_: Scheduler, __: Scripted, clock: FakeClock) -> None:
        await clock.advance(1.5 * HOUR)

    jobs = {"a": job("daily 03:00")}
    assert play(tmp_path, jobs, half_an_hour_into_it) == [("01 03:00", "a")]
    assert play(tmp_path, jobs, half_an_hour_into_it, START + 2 * HOUR) == [("01 04:00", "a")]


def test_a_failed_run_is_retried(tmp_path: Path) -> None:
    async def two_failures(_: Scheduler, runner: Scripted, clock: FakeClock) -> None:
        runner.outcomes = [BAD, BAD]
        await clock.advance(12 * HOUR)

    began = play(tmp_path, {"a": job("daily 03:00")}, two_failures)
    assert began == [("01 03:00", "a"), ("01 04:05", "a"), ("01 05:15", "a")]


def test_while_somebody_else_works_on_the_job_its_slot_loses_no_try(tmp_path: Path) -> None:
    async def long_drill(_: Scheduler, runner: Scripted, clock: FakeClock) -> None:
        runner.outcomes = [BUSY] * 5 + [BAD] * 3
        await clock.advance(18 * HOUR)

    began = play(tmp_path, {"a": job("daily 03:00")}, long_drill)
    assert began == [(at, "a") for at in (
        "01 03:00", "01 04:05", "01 05:10", "01 06:15", "01 07:20", "01 08:25", "01 09:30", "01 10:40", "01 12:00",
    )]  # fmt: skip


def test_a_run_that_breaks_in_our_own_hands_is_a_failed_one_and_the_schedule_goes_on(tmp_path: Path) -> None:
    async def two_bugs(_: Scheduler, runner: Scripted, clock: FakeClock) -> None:
        runner.outcomes = [KeyError("targets"), RuntimeError("it broke")]
        await clock.advance(12 * HOUR)

    with structlog.testing.capture_logs() as logs:
        began = play(tmp_path, {"a": job("daily 03:00"), "b": job("daily 05:30")}, two_bugs)
    assert began == [("01 03:00", "a"), ("01 04:05", "a"), ("01 05:15", "a"), ("01 06:15", "b")]
    assert [(one["event"], one["exc_info"]) for one in logs] == [("backup.run_broke", True)] * 2


def test_a_result_that_we_do_not_understand_is_said_and_its_slot_is_done(tmp_path: Path) -> None:
    async def newer(scheduler: Scheduler, _: Scripted, clock: FakeClock) -> None:
        def take(name: str, outcome: Outcome) -> None:
            raise KeyError("last_success_at")

        scheduler._on_outcome = take
        await clock.advance(12 * HOUR)
        assert scheduler.problem == ("a: the result of its last run is not understood (KeyError('last_success_at')); "
                                     "restart the agent")  # fmt: skip

    with structlog.testing.capture_logs() as logs:
        assert play(tmp_path, {"a": job("daily 03:00")}, newer) == [("01 03:00", "a")]
    assert [one["event"] for one in logs] == ["backup.outcome_lost"]


def test_a_run_is_waited_for_until_its_hooks_have_had_their_time() -> None:
    hooks = Hooks(before=[["/a"]], after=[["/b"], ["/c"]], on_error=[["/d"]], deadline=600.0)
    plain = job("daily 03:00", limits=Limits(deadline=3600.0))
    assert plain.patience_s >= 3600.0 + 300.0
    assert job("daily 03:00", limits=plain.limits, hooks=hooks).patience_s == plain.patience_s + 4 * 600.0


def test_who_asks_gets_a_run_at_once_and_the_schedule_stays(tmp_path: Path) -> None:
    async def ask(scheduler: Scheduler, _: Scripted, clock: FakeClock) -> None:
        await clock.advance(1)
        scheduler.request("a")
        scheduler.request("a")
        await clock.advance(1)
        assert scheduler.running == "a"
        with pytest.raises(BackupError, match="no such job; there are: a"):
            scheduler.request("b")
        await clock.advance(3 * HOUR)
        assert scheduler.running is None

    assert play(tmp_path, {"a": job("daily 03:30")}, ask) == [("01 02:00", "a"), ("01 03:30", "a")]


def test_a_reload_counts_at_once(tmp_path: Path) -> None:
    async def reload(scheduler: Scheduler, _: Scripted, clock: FakeClock) -> None:
        await clock.advance(10)
        scheduler.reload({"b": job("hourly :10")})
        await clock.advance(HOUR)

    assert play(tmp_path, {"a": job("daily 02:05")}, reload) == [("01 02:10", "b")]


def test_a_clock_that_is_set_while_we_wait_is_noticed(tmp_path: Path) -> None:
    async def step(_: Scheduler, __: Scripted, clock: FakeClock) -> None:
        await clock.advance(10)
        clock.step_wall(10 * HOUR)
        await clock.advance(120)

    assert play(tmp_path, {"a": job("daily 11:00")}, step) == [("01 12:01", "a")]  # looked again after a minute


def test_histories_survive_and_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.json")
    kept = {"a": History(1.0, 2.0, 3.0, 4, 5.0), "b": History(1.5)}
    histories.save(path, kept)
    assert histories.load(path) == (kept, None)
    newer = b'{"version": 2, "jobs": {"a": {"known_since": 1.0}}}'
    for content in (b"", b"{}", b'{"version": 1, "jobs": {"a": 7}}', b"\xff" * 100, newer):
        Path(path).write_bytes(content)
        found, said = histories.load(path)
        assert found == {}
        assert "set aside" in (said or "")
        assert Path(f"{path}.corrupt").read_bytes() == content
    assert histories.load(path) == ({}, None)


def test_a_state_directory_that_cannot_be_written_stops_no_backup(tmp_path: Path) -> None:
    async def look(scheduler: Scheduler, _: Scripted, clock: FakeClock) -> None:
        await clock.advance(24 * HOUR)
        assert "no such file" in (scheduler.problem or "")

    assert play(tmp_path / "gone", {"a": job("daily 03:00")}, look) == [("01 03:00", "a")]
