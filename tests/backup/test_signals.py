"""Signals that end a run, in whichever thread and at whichever moment they come."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backup.signals import ENDING, heeding
from tests.backup.hosts import BackedUp, command_job, ended, running
from tests.servers.process import wait_until

ASLEEP = 8_000_000 + os.getpid()


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """A thread that waits: what is sent to it interrupts nobody else, least of all the main one."""
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    assert thread.ident is not None
    yield thread.ident
    is_over.set()
    thread.join()


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_wait_that_no_signal_interrupts_is_ended(elsewhere: int, number: signal.Signals) -> None:
    read_end, write_end = os.pipe()
    said = []

    def stop(why: str) -> None:
        said.append(why)
        os.close(write_end)

    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    with heeding(stop):
        signal.pthread_kill(elsewhere, number)
        assert poll.poll(20_000)
    os.close(read_end)
    assert said == [f"ended by {number.name}"]


def test_each_signal_counts_until_the_block_is_left_and_all_is_as_before() -> None:
    said: list[str] = []
    before = [signal.getsignal(number) for number in ENDING]
    with heeding(said.append):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert said == ["ended by SIGTERM", "ended by SIGINT", "ended by SIGTERM"]
    assert [signal.getsignal(number) for number in ENDING] == before
    assert signal.set_wakeup_fd(-1) == -1


def at_rest(pid: int) -> Callable[[], bool]:
    """Whether the main thread of a process has not run since the last look."""
    seen: list[str] = []

    def look() -> bool:
        seen.append(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text())
        return seen[-1:] == seen[-2:-1]

    return look


def test_a_run_ends_though_the_signal_does_not_reach_its_main_thread(host: BackedUp) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    worker = host.start()
    wait_until(lambda: running(f"sleep {ASLEEP}"), "the dump to hang", 60)
    wait_until(at_rest(worker.pid), "its main thread to wait for the dump", every=0.3)
    others = {int(name.name) for name in Path(f"/proc/{worker.pid}/task").iterdir()} - {worker.pid}
    assert ctypes.CDLL(None).tgkill(worker.pid, max(others), signal.SIGTERM) == 0
    assert ended(worker).result["error"] == "ended by SIGTERM"
    assert not running(f"sleep {ASLEEP}")
