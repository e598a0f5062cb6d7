"""kill -9 of the daemon at any phase of a run: the worker goes too, the copies stay, and a new daemon runs it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from backup import catalogue
from backup.verify import verify
from backup.worker import lock
from tests.backup.hosts import HOST, REPOSITORY, BackedUp, built_source
from tests.servers.process import wait_until

SLOT = 1_700_001_000.0  # 22:30 UTC
# The part of the daemon that keeps backups, with the real worker as its child. It dies when the worker tells of a
# phase; told of none it ends once a run has ended. The time is the test's.
DAEMON = """
import asyncio, os, signal, sys
from agent import backup_keeper
from agent.core.clock import FakeClock
from backup.runner import ChildRunner
directory, host, now, phase = sys.argv[1:]

run = ChildRunner.run

async def dying(self, job, on_event, deadline_s):
    def heed(event):
        if phase and event.get("phase") == phase:
            os.kill(os.getpid(), signal.SIGKILL)
        on_event(event)
    return await run(self, job, heed, deadline_s)

ChildRunner.run = dying

async def main():
    jobs, _ = backup_keeper.load(f"{directory}/backup.d")
    state = f"{directory}/state"
    argv = backup_keeper.worker_argv(host=host, jobs_dir=f"{directory}/backup.d", state_dir=state)
    clock = FakeClock(float(now))
    kept = backup_keeper.BackupKeeper(jobs, state, clock, argv)
    task = asyncio.create_task(kept.run())
    try:
        for _ in range(2):
            await clock.advance(60)
        while kept.summary()["running"] is None and kept.summary()["jobs"]["job"]["status"] == "never":
            await asyncio.sleep(0.02)
        while kept.summary()["running"] is not None:
            await asyncio.sleep(0.02)
        print(kept.summary()["jobs"]["job"]["status"])
    finally:
        await kept.close()
        await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""


def daemon(host: BackedUp, now: float, phase: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DAEMON, str(host.directory), HOST, str(now), phase], capture_output=True, text=True,
        check=False, timeout=120, env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
    )  # fmt: skip


@pytest.fixture
def host(host: BackedUp) -> BackedUp:
    (host.source / "file").write_bytes(os.urandom(100_000))
    return host


def is_free(host: BackedUp) -> bool:
    with lock(str(host.directory / "state"), "job") as is_ours:
        return is_ours


def whole(host: BackedUp) -> list[str]:
    """The ids of the backups, every one proved to the last byte."""
    source = built_source(host.job_now)
    known = catalogue.read(host.target(), f"{HOST}/job", None)
    assert known.damaged == ()
    for one in known.manifests:
        assert verify(one, host.target(), source, host.work(), level=2, now=0.0).problems == ()
    return [one.id for one in known.manifests]


@pytest.mark.parametrize("phase", ["sweep", "describe", "dump", "verify", "commit", "manifest", "retention"])
def test_a_killed_daemon_is_made_up_for_by_the_next(host: BackedUp, phase: str) -> None:
    host.job_now = host.job()
    assert [host.run().code, host.run().code] == [0, 0]
    before = whole(host)
    host.job_now = host.job(schedule="hourly :30", retention={"keep_last": 2})
    assert daemon(host, SLOT - 60, phase).returncode == -signal.SIGKILL
    wait_until(lambda: is_free(host), "the worker to end")
    left = whole(host)
    assert before[-1] in left
    done = daemon(host, SLOT + 120)
    assert done.stdout.split()[-1:] == ["ok"], (done.stdout, done.stderr)
    now = whole(host)
    assert now[-1] not in left
    expected = {f"{one.prefix}/{name}" for one in host.manifests() for name in ("files.tar.zst", "manifest.json")}
    assert set(host.stored()) == expected
    assert os.listdir(host.directory / "state" / "scratch") == []
