"""A run behind a socket, as the daemon sees it: the same outcomes as from a child, and nothing goes on without us."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backup.runner import Outcome, Runner
from backup.socket_runner import SocketRunner
from tests.backup.helper_process import AGENT, STRANGER, Activated, acting_as, helper_argv
from tests.backup.hosts import REPOSITORY, BackedUp, command_job, running
from tests.servers.process import wait_until
from tests.servers.programs import need_root

ASLEEP = 6_000_000 + os.getpid()
OK = '{"event": "result", "status": "ok", "is_slot_done": true}'
END = '{"event": "exit", "code": 0}'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose sockets every user reaches."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def run(path: str, deadline_s: float = 60.0, grace_s: float = 20.0) -> tuple[Outcome, list[Mapping[str, Any]]]:
    events: list[Mapping[str, Any]] = []
    runner: Runner = SocketRunner(path, grace_s=grace_s)
    return asyncio.run(runner.run("job", events.append, deadline_s)), events


@pytest.fixture
def helper(host: BackedUp, place: Path) -> Iterator[str]:
    need_root("the helper is root's")
    found = Activated(place, helper_argv(host))
    yield found.path
    found.stop()


def test_a_job_is_run_by_the_helper_and_heard(host: BackedUp, helper: str) -> None:
    host.job()
    with acting_as(AGENT):
        outcome, events = run(helper)
    assert (outcome.status, outcome.error, outcome.exit_code, outcome.is_slot_done) == ("ok", None, 0, True)
    assert outcome.result["targets"]["store"]["backups"] == 1
    assert [event["event"] for event in events][-1] == "result"
    assert len(host.manifests()) == 1


def test_a_refusal_is_an_outcome(host: BackedUp, helper: str) -> None:
    outcome, _ = run(helper)
    assert (outcome.status, outcome.exit_code, outcome.is_slot_done) == ("fail", 2, False)
    assert "job: no such job in" in (outcome.error or "")


def test_a_run_that_overstays_is_ended_there(host: BackedUp, helper: str) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    outcome, _ = run(helper, deadline_s=5.0)
    assert outcome.status == "fail"
    assert "did not end within 5 s" in (outcome.error or "")
    assert not running(f"sleep {ASLEEP}")


def test_a_cancelled_run_has_ended_there_when_that_returns(host: BackedUp, helper: str) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")

    async def scene() -> None:
        task = asyncio.create_task(SocketRunner(helper).run("job", lambda _: None, 600))
        async with asyncio.timeout(60):
            while not running(f"sleep {ASLEEP}"):
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert not running(f"sleep {ASLEEP}")
    assert host.stored() == []


def test_a_daemon_that_is_killed_takes_the_run_along(host: BackedUp, helper: str) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    daemon = f"""
import asyncio
from backup.socket_runner import SocketRunner
asyncio.run(SocketRunner({helper!r}).run("job", lambda event: None, 600))
"""
    started = subprocess.Popen([sys.executable, "-c", daemon], env={"PYTHONPATH": str(REPOSITORY)})
    wait_until(lambda: running(f"sleep {ASLEEP}"), "the dump to hang", 60)
    started.kill()
    started.wait()
    wait_until(lambda: not running(f"sleep {ASLEEP}"), "the run to end")
    wait_until(lambda: host.stored() == [], "the worker to clean up")


# What else may be at the other end: a few lines of shell on the same socket activation.


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        pytest.param(f"echo '{OK}'; echo '{END}'", "ok", None, id="what it says counts"),
        pytest.param(f"echo '{OK}'", "fail", "went away in the middle", id="but not without the end"),
        pytest.param(f"echo '{OK}'; echo '{END.replace('0', '1')}'", "fail", "said ok but exited", id="nor against it"),
        pytest.param(f"echo '{END}'", "fail", "exited 0", id="an end without a result is a failure"),
        pytest.param("exit 0", "fail", "journalctl -u 'vigilhost-backup@*'", id="so is silence"),
        pytest.param('echo \'{"event": "resu\'', "fail", "went away", id="half a line is nothing"),
        pytest.param(f"head -c 3000000 /dev/zero; echo; echo '{OK}'; echo '{END}'", "ok", None, id="a line too long"),
        pytest.param(f"echo '[1]'; echo 7; echo '{OK}'; echo '{END}'", "ok", None, id="so is what is no event"),
    ],
)  # fmt: skip
def test_how_a_run_ends(place: Path, text: str, status: str, said: str | None) -> None:
    activated = Activated(place, ["/bin/sh", "-c", f"read request <&3; {{ {text}; }} >&3"])
    outcome, events = run(activated.path)
    activated.stop()
    assert outcome.status == status
    assert (said or "") in (outcome.error or "")
    assert all(event["event"] != "exit" for event in events)


def test_a_helper_that_is_deaf_does_not_hold_the_daemon(place: Path) -> None:
    activated = Activated(place, ["/bin/sh", "-c", f"trap '' TERM; exec sleep {ASLEEP} <&3"])
    outcome, _ = run(activated.path, deadline_s=0.5, grace_s=0.5)
    activated.stop()
    assert "did not end within 0.5 s" in (outcome.error or "")


@pytest.mark.parametrize("is_there", [False, True], ids=["no socket", "nobody listens"])
def test_a_helper_that_cannot_be_reached_is_said_with_what_to_do(place: Path, is_there: bool) -> None:
    import socket

    path = str(place / "s")
    if is_there:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
    outcome, _ = run(path)
    assert (outcome.status, outcome.exit_code) == ("fail", None)
    assert "systemctl start vigilhost-backup.socket" in (outcome.error or "")


@pytest.mark.root("root takes the part of somebody else")
def test_somebody_who_may_not_connect_is_told_who_may(host: BackedUp, helper: str) -> None:
    os.chmod(helper, 0o600)
    with acting_as(STRANGER):
        outcome, _ = run(helper)
    assert "only root and the agent's own user may have jobs run" in (outcome.error or "")
