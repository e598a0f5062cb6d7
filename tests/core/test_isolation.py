from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

import pytest

from agent.core.isolation import Batch, Job, Lane, Worker


async def test_a_result_comes_back() -> None:
    worker = Worker("test")
    assert await worker.call(lambda: 41 + 1, 5) == 42
    worker.close()


async def test_an_exception_is_raised_where_the_call_was_made() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0, 5)
    worker.close()


async def test_a_stuck_call_costs_one_thread_and_refuses_others_until_it_is_back() -> None:
    worker, gate, before = Worker("stuck"), threading.Event(), threading.active_count()
    with pytest.raises(TimeoutError):
        await worker.call(gate.wait, 0.5)
    for _ in range(20):
        with pytest.raises(TimeoutError, match="an earlier call has not come back"):
            await worker.call(lambda: 1, 5)
    assert threading.active_count() <= before + 1
    gate.set()
    assert await eventually(lambda: not worker._is_stuck)
    assert await worker.call(lambda: "again", 5) == "again"
    worker.close()


async def test_a_cancelled_call_is_not_waited_for() -> None:
    worker, gate = Worker("cancelled"), threading.Event()
    call = asyncio.create_task(worker.call(gate.wait, 60))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    worker.close()


async def test_a_call_whose_end_comes_with_its_cancelling_is_cancelled() -> None:
    worker, ended = Worker("cancelled"), threading.Event()

    async def calling() -> None:
        await worker.call(ended.set, 60)
        pytest.fail("went on")

    call = asyncio.create_task(calling())
    await asyncio.sleep(0)
    assert ended.wait(5)  # the loop is busy: it has not heard of the end when it is told to cancel
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await worker.call(lambda: "again", 5) == "again"
    worker.close()


async def test_where_no_thread_can_be_had_a_call_fails_and_a_later_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker("crowded")
    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(TimeoutError, match="crowded: can't start new thread"):
            await worker.call(lambda: 1, 5)
    assert await worker.call(lambda: "again", 5) == "again"
    worker.close()


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_has_not_begun_is_taken_back_and_never_done() -> None:
    done: list[str] = []
    batch = Batch(deque([Job(lambda: done.append("job"), 5)]), lambda: done.append("batch"))
    assert batch.withdraw()
    assert not batch.withdraw()
    assert batch.work()
    assert done == ["batch"]


def test_a_job_that_ends_at_its_deadline_is_no_stuck_one() -> None:
    job = Job(lambda: None, 0)
    batch = Batch(deque([job]), lambda: None)
    job.run = lambda: setattr(job, "finished_at", 1.0) or answers.append(batch.abandon(job))
    answers: list[object] = []
    assert batch.work()
    assert answers == [None]


def test_jobs_behind_a_stuck_one_are_given_back_in_order() -> None:
    gate, began, done = threading.Event(), threading.Event(), []

    def hang() -> None:
        began.set()
        gate.wait()

    first, stuck = Job(lambda: done.append("first"), 5), Job(hang, 0)
    behind = [Job(lambda: done.append("third"), 5), Job(lambda: done.append("fourth"), 5)]
    came_back = threading.Event()
    stuck.on_late = came_back.set
    batch = Batch(deque([first, stuck, *behind]), lambda: done.append("batch done"))
    Lane("test").submit(batch)
    assert began.wait(5)
    assert batch.overdue(float("inf")) is stuck
    rest = batch.abandon(stuck)
    assert rest is not None
    assert list(rest) == behind
    gate.set()
    assert came_back.wait(5)
    assert done == ["first"], "an abandoned batch neither goes on nor reports itself done"


def test_a_job_that_has_just_ended_is_not_given_up() -> None:
    batch = Batch(deque([Job(lambda: None, 5)]), lambda: None)
    job = batch.jobs[0]
    batch.work()
    assert batch.abandon(job) is None


async def eventually(condition: Callable[[], bool], deadline_s: float = 5.0) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    while not condition():
        if loop.time() > until:
            return False
        await asyncio.sleep(0.001)
    return True
