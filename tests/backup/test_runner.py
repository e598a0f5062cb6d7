"""The daemon's side of a run: lines read, deadlines kept, and nothing left running whatever happens."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from backup import children
from backup.runner import ChildRunner, Outcome, Runner, session
from tests.backup.hosts import REPOSITORY, WORKER, BackedUp, command_job, running, start_daemon
from tests.servers.process import wait_until

ASLEEP = 4_000_000 + os.getpid()
OK = '{"event": "result", "status": "ok", "is_slot_done": true}'


def run(argv: list[str], deadline_s: float = 30.0, grace_s: float = 1.0) -> tuple[Outcome, list[Mapping[str, Any]]]:
    events: list[Mapping[str, Any]] = []
    runner: Runner = ChildRunner(argv, {"PYTHONPATH": str(REPOSITORY)}, grace_s)
    return asyncio.run(runner.run("job", events.append, deadline_s)), events


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def test_a_worker_is_run_and_heard(host: BackedUp) -> None:
    host.job()
    outcome, events = run([sys.executable, "-c", WORKER, str(host.directory)])
    assert (outcome.status, outcome.error, outcome.exit_code, outcome.is_slot_done) == ("ok", None, 0, True)
    assert [event["event"] for event in events][-1] == "result"
    assert outcome.result["targets"]["store"]["backups"] == 1


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        pytest.param(f"echo '{OK}'", "ok", None, id="what it says counts"),
        pytest.param(f"echo '{OK}'; exit 1", "fail", "said ok but exited 1", id="but not against its exit status"),
        pytest.param("echo boom >&2; exit 3", "fail", "the worker exited 3: boom", id="one that says nothing failed"),
        pytest.param("exit 0", "fail", "exited 0: it said nothing", id="even when it exits 0"),
        pytest.param(f"echo '{OK}'; kill -9 $$", "fail", "ended by SIGKILL", id="one that was killed failed"),
        pytest.param('echo \'{"event": "resu\'; kill -9 $$', "fail", "ended by SIGKILL", id="half a line is nothing"),
        pytest.param(f"head -c 3000000 /dev/zero; echo; echo '{OK}'", "ok", None, id="a line too long is left out"),
        pytest.param(f"echo '[1]'; echo 7; echo '{OK}'", "ok", None, id="so is what is no event"),
    ],
)
def test_how_a_worker_ends(text: str, status: str, said: str | None) -> None:
    outcome, _ = run(sh(text))
    assert outcome.status == status
    assert (said or "") in (outcome.error or "")


def test_a_host_without_setpriv_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PATH", "/nonexistent")
    outcome, _ = run(["/bin/true"])
    assert (outcome.status, outcome.exit_code) == ("fail", None)
    assert "setpriv: no such program" in (outcome.error or "")


def test_a_worker_that_cannot_be_started() -> None:
    outcome, _ = run(["/nonexistent/vigilhost"])
    assert outcome.status == "fail"
    assert "No such file" in (outcome.error or "")


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"], ids=["polite", "deaf"])
def test_a_worker_that_overstays_is_ended_with_all_that_it_started(trap: str) -> None:
    outcome, _ = run(sh(f"{trap} setsid -f true; (trap '' TERM; exec sleep {ASLEEP}) & wait; exec sleep {ASLEEP}"), 0.5)
    assert outcome.status == "fail"
    assert "did not end within 0.5 s" in (outcome.error or "")
    assert not running(f"sleep {ASLEEP}")


def test_a_cancelled_run_leaves_nothing_running() -> None:
    async def scene() -> None:
        task = asyncio.create_task(ChildRunner(sh(f"exec sleep {ASLEEP}"), grace_s=1.0).run("job", lambda _: None, 60))
        while not running(f"sleep {ASLEEP}"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert not running(f"sleep {ASLEEP}")


def test_a_killed_daemon_takes_the_run_along(host: BackedUp) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    started = start_daemon(host)
    wait_until(lambda: running(f"sleep {ASLEEP}"), "the dump to hang")
    started.kill()
    started.wait()
    wait_until(lambda: not running(f"sleep {ASLEEP}"), "the run to end")
    wait_until(lambda: host.stored() == [], "the worker to clean up")
    command_job(host, "echo all of it")
    wait_until(lambda: host.run().code == 0, "the lock to be free")


def test_the_processes_of_a_session() -> None:
    assert os.getpid() in session(os.getsid(0))
    assert session(2**22 + 5) == []
