"""The daemon's side of backups: jobs run when due, what became of them is published, and none costs nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent import backup_keeper, backup_results, places
from agent.backup_keeper import BackupKeeper, worker_argv
from agent.config.secret_sources import CLOSED
from agent.control import ControlError
from agent.core.clock import FakeClock
from agent.core.model import Tick
from agent.core.secrets import Secret
from backup.runner import ChildRunner
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition
from tests.backup.helper_process import Activated, helper_argv
from tests.backup.hosts import HOST, BackedUp, command_job, running, script

NEVER = {"at": "never"}


def keeper(host: BackedUp, clock: FakeClock, socket: str | None = None) -> BackupKeeper:
    jobs, _ = backup_keeper.load(str(host.directory / "backup.d"), opens_secrets=socket is None)
    argv = worker_argv(host=HOST, config=str(host.directory / "vigilhost.yaml"),
                       jobs_dir=str(host.directory / "backup.d"), state_dir=str(host.directory / "state"))  # fmt: skip
    return BackupKeeper(jobs, str(host.directory / "state"), clock, argv, socket=socket)


Scene = Callable[[BackupKeeper, FakeClock], Awaitable[None]]


def play(host: BackedUp, scene: Scene, start: float | None = None, socket: str | None = None) -> None:
    async def act() -> None:
        clock = FakeClock(start if start is not None else time.time())
        kept = keeper(host, clock, socket)
        task = asyncio.create_task(kept.run())
        try:
            await asyncio.sleep(0)
            await scene(kept, clock)
        finally:
            await kept.close()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(act())


async def until(is_so: Callable[[], bool], deadline_s: float = 30.0) -> None:
    ends = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < ends, "it did not come to be"
        await asyncio.sleep(0.02)


def values(kept: BackupKeeper) -> dict[tuple[str, ...], Any]:
    """Every published value by name and tags."""
    return {
        (field.prom or "", *reading.tags): value
        for reading in kept.readings()
        for field, value in zip(reading.group.fields, reading.values, strict=True)
        if value is not None
    }


def states(kept: BackupKeeper) -> list[str]:
    return [tags[2] for tags, value in values(kept).items() if tags[0] == "vigilhost_backup_status" and value]


def test_without_jobs_nothing_of_backups_is_imported(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from agent.backup_keeper import BackupKeeper, load
from agent.core.clock import SystemClock
async def act():
    for directory in {[str(tmp_path / "missing"), str(tmp_path)]!r}:
        kept = BackupKeeper(load(directory)[0], {str(tmp_path)!r}, SystemClock(), ["true"])
        task = asyncio.create_task(kept.run())
        await asyncio.sleep(0.01)
        assert list(kept.readings()) == [] and kept.summary()["state"] == "ok"
        await kept.close()
asyncio.run(act())
print([name for name in sys.modules if name.split(".")[0] in ("backup", "cronsim", "click")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_that_breaks_off_is_said_and_taken_up_again(host: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    from backup.scheduler import Scheduler

    host.job(schedule=NEVER)
    run = Scheduler.run

    async def broken(_: Scheduler) -> None:
        raise LookupError("no such zone")

    monkeypatch.setattr(Scheduler, "run", broken)

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await until(lambda: kept.summary()["error"] is not None)
        assert kept.summary()["state"] == "failing"
        assert "no such zone" in kept.summary()["error"]
        monkeypatch.setattr(Scheduler, "run", run)
        await clock.advance(backup_keeper.RESUME_AFTER_S)
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: kept.summary()["jobs"]["job"]["status"] == "ok")
        assert (kept.summary()["state"], kept.summary()["error"]) == ("ok", None)

    with structlog.testing.capture_logs() as logs:
        play(host, scene)
    assert {one["event"] for one in logs if one["log_level"] == "error"} == {"backup.scheduler_broke"}


def test_a_job_runs_when_it_is_due_and_its_result_is_published(host: BackedUp) -> None:
    host.job(schedule="hourly :30", rpo="2h")

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        before = values(kept)
        assert states(kept) == ["never"]
        assert before["vigilhost_backup_last_success_timestamp_seconds", "job", "store"] == 0.0
        for _ in range(61):
            await clock.advance(60)
            if kept.summary()["running"]:
                break
        await until(lambda: kept.summary()["jobs"]["job"]["status"] != "never")
        (made,) = host.manifests()
        after = values(kept)
        assert states(kept) == ["ok"]
        assert after["vigilhost_backup_last_success_timestamp_seconds", "job", "store"] == made.finished_at
        assert after["vigilhost_backup_last_verified_timestamp_seconds", "job", "store"] == made.verified_at
        assert after["vigilhost_backup_size_bytes", "job", "store"] == made.stored_bytes
        assert after["vigilhost_backup_rpo_target_seconds", "job"] == 7200.0
        assert ("vigilhost_backup_last_drill_timestamp_seconds", "job") not in after
        assert kept.summary()["state"] == "ok"

    play(host, scene)


def test_the_age_grows_until_there_is_a_copy_and_from_then_on_again(host: BackedUp) -> None:
    host.job(schedule=NEVER)

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        age = ("vigilhost_backup_rpo_age_seconds", "job")
        await clock.advance(1000)
        assert values(kept)[age] == pytest.approx(1000)

    play(host, scene, start=1_700_000_000.0)

    async def after_a_restart(kept: BackupKeeper, clock: FakeClock) -> None:
        assert values(kept)["vigilhost_backup_rpo_age_seconds", "job"] == pytest.approx(5000)

    play(host, after_a_restart, start=1_700_005_000.0)


def test_a_worker_that_is_killed_is_a_failure_and_is_tried_again(host: BackedUp) -> None:
    pid_file, go = host.directory / "pid", host.directory / "go"
    command_job(host, f"echo $PPID > {pid_file}.part; mv {pid_file}.part {pid_file}; "
                f"while [ ! -e {go} ]; do sleep 0.05; done; echo copy",
                schedule={"at": "hourly :30", "retry_wait": "5m"})  # fmt: skip

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        while not kept.summary()["running"]:
            await clock.advance(60)
        await until(pid_file.exists)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        await until(lambda: kept.summary()["running"] is None)
        told = kept.summary()
        assert (states(kept), told["state"]) == (["fail"], "failing")
        assert "SIGKILL" in told["jobs"]["job"]["error"]
        assert host.manifests() == []
        pid_file.unlink()
        go.touch()
        for _ in range(6):
            await clock.advance(60)
        await until(lambda: states(kept) == ["ok"])
        assert len(host.manifests()) == 1

    play(host, scene)


def test_people_have_a_job_run_and_drilled_over_the_control_socket(host: BackedUp) -> None:
    path = str(host.source / "file").lstrip("/")
    host.job(schedule=NEVER, drill={"schedule": "never", "assertions": [{"file_exists": [path]}]}, rto="1h")

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        commands = kept.commands()
        with pytest.raises(ControlError, match="nope: no such job; there are: job"):
            await commands["backup_run"]({"job": "nope"})
        assert values(kept)["vigilhost_backup_last_drill_timestamp_seconds", "job"] == 0.0
        await commands["backup_run"]({"job": "job"})
        await until(lambda: states(kept) == ["ok"])
        await commands["backup_run"]({"job": "job", "drill": True})
        await until(lambda: kept.summary()["jobs"]["job"]["drill"] != "never")
        listed = (await commands["backup_list"]({}))["jobs"]["job"]
        (made,) = host.manifests()
        assert (listed["drill"], listed["rto_s"]) == ("ok", made.rto_s)
        published = values(kept)
        assert published["vigilhost_backup_rto_measured_seconds", "job"] == made.rto_s
        assert published["vigilhost_backup_last_drill_timestamp_seconds", "job"] == made.drilled_at

    play(host, scene)


def test_what_could_not_be_drilled_leaves_the_last_verdict_as_it_was(host: BackedUp) -> None:
    host.job(schedule=NEVER, drill={"schedule": "never", "assertions": []})
    passed, done = (("vigilhost_backup_drill_passed", "job"), ("vigilhost_backup_drill_done", "job"))

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        async def drills(until_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            await kept.commands()["backup_run"]({"job": "job", "drill": True})
            await until(lambda: until_so(kept.summary()["jobs"]["job"]))
            told: dict[str, Any] = kept.summary()["jobs"]["job"]
            return told

        assert not {passed, done} & values(kept).keys()
        told = await drills(lambda one: one["drill_undone"] is not None)
        assert "there is no complete backup" in told["drill_undone"]
        assert (told["drill"], values(kept)[done], passed in values(kept)) == ("never", False, False)
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: states(kept) == ["ok"])
        told = await drills(lambda one: one["drill"] == "ok")
        assert (told["drill_undone"], values(kept)[passed], values(kept)[done]) == (None, True, True)
        kept._schedulers[1]._runner = ChildRunner(["/bin/false"])  # a worker that dies
        told = await drills(lambda one: one["drill_undone"] is not None)
        assert "exited 1" in told["drill_undone"]
        assert (told["drill"], values(kept)[passed], values(kept)[done]) == ("ok", True, False)
        assert kept.summary()["state"] == "ok"
        kept._schedulers[1]._runner = kept._runners()[1]
        (stored,) = host.store.rglob("*.zst")
        stored.write_bytes(b"x")
        told = await drills(lambda one: one["drill"] == "fail")
        assert (told["drill_undone"], values(kept)[passed], values(kept)[done]) == (None, False, True)

    play(host, scene)


def test_a_reload_brings_jobs_and_takes_them_away(host: BackedUp) -> None:
    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        assert values(kept) == {}
        job = host.job(schedule=NEVER)
        kept.reload({"job": job})
        assert states(kept) == ["never"]
        await until(lambda: kept.summary()["jobs"]["job"]["next_run_at"] is None and bool(kept._schedulers))
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: states(kept) == ["ok"])
        kept.reload({})
        assert values(kept) == {}

    play(host, scene)


def test_what_somebody_ran_by_hand_is_published_too(host: BackedUp) -> None:
    host.job(schedule=NEVER)
    state = str(host.directory / "state")

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        result = host.run().result
        known = backup_results.load(state, "job")
        assert known is not None
        known.ran(result, result["status"], None, time.time())
        backup_results.save(state, "job", known)
        assert states(kept) == ["ok"]

    play(host, scene)


def test_a_result_that_cannot_be_read_is_as_if_there_were_none(host: BackedUp) -> None:
    host.job(schedule=NEVER)
    directory = host.directory / "state" / backup_results.DIRECTORY
    directory.mkdir()
    (directory / "job.json").write_bytes(b"\0" * 100)

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        assert states(kept) == ["never"]

    play(host, scene)


def test_histories_that_cannot_be_read_are_said_and_nothing_else_ends(host: BackedUp) -> None:
    host.job(schedule=NEVER)
    (host.directory / "state" / "backup-runs.json").mkdir()

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await until(lambda: kept.summary()["state"] == "failing")
        assert "backup-runs.json" in kept.summary()["error"]
        with pytest.raises(ControlError, match="jobs do not run now"):
            await kept.commands()["backup_run"]({"job": "job"})

    play(host, scene)


def test_both_dialects_carry_it(host: BackedUp) -> None:
    host.job(schedule=NEVER, rpo="1d")

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await clock.advance(60)
        tick = Tick(clock.wall_ns(), "agent", list(kept.readings()))
        page = Exposition().render([tick])
        assert 'vigilhost_backup_status{job="job",state="never"} 1\n' in page
        assert 'vigilhost_backup_last_success_timestamp_seconds{job="job",target="store"} 0.0\n' in page
        lines = Encoder({}).encode([tick])
        assert lines[0].startswith("vigilhost_backup,job=job rpo_age_seconds=60.0,rpo_target_seconds=86400.0,running=")
        assert lines[1].startswith("vigilhost_backup_target,job=job,target=store last_success_timestamp_seconds=0.0,")

    play(host, scene, start=1_700_000_000.0)


def test_a_keeper_that_is_closed_ends_the_run_that_is_on(host: BackedUp) -> None:
    sleeping = f"sleep {3_000_000 + os.getpid()}"
    command_job(host, f"exec {sleeping}", schedule=NEVER)

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: running(sleeping))
        # The program may run a moment before the worker's word of it arrives.
        await until(lambda: kept.summary()["jobs"]["job"]["progress"]["phase"] == "dump")
        await kept.close()
        assert not running(sleeping)
        assert host.stored() == []

    play(host, scene)


CANARY = "c4nary-in-the-Keeper"


def test_a_secret_is_in_no_log_no_reading_and_no_file_of_the_agent(
    host: BackedUp, capfd: pytest.CaptureFixture[str]
) -> None:
    """The program itself shouts it, and fails with it, which is why it is in every error."""
    argv = script(host, 'echo "$TOKEN"; echo "login $TOKEN failed" >&2; tr "\\0" " " < /proc/$PPID/cmdline >&2; exit 1')
    host.job(source={"command": {"argv": argv, "environment": {"TOKEN": CANARY}}}, manifest_key=f"{CANARY}-key",
             schedule=NEVER, hooks={"after": [list(argv)]}, drill={"assertions": [{"file_exists": ["x"]}]})  # fmt: skip

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: kept.summary()["jobs"]["job"]["status"] == "fail")
        await kept.commands()["backup_run"]({"job": "job", "drill": True})
        await until(lambda: kept.summary()["jobs"]["job"]["drill_undone"] is not None)
        assert "login *** failed" in kept.summary()["jobs"]["job"]["error"]
        shown = [repr(kept.summary()), Exposition().render([Tick(0, "agent", list(kept.readings()))])]
        assert not [text for text in shown if CANARY in text]

    play(host, scene)
    said = capfd.readouterr()
    assert "login *** failed" in said.out + said.err
    assert CANARY not in said.out + said.err
    files = [path for path in (host.directory / "state").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if CANARY in path.read_text(errors="replace")]


@pytest.mark.root("the helper is root's")
def test_an_agent_without_rights_has_root_run_a_job_and_publishes_what_became_of_it(
    host: BackedUp, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The agent can read neither the secret nor what is backed up, nor write to the target."""
    secret, key = Secret("a secret of root's"), host.directory / "key"
    key.write_text(secret.reveal())
    key.chmod(0o600)
    argv = [*helper_argv(host), "--state-dir", str(host.directory / "state-of-root")]
    path = str(host.source / "file").lstrip("/")
    host.job(schedule=NEVER, manifest_key={"file": str(key)}, drill={"assertions": [{"file_exists": [path]}]})
    activated = Activated(tmp_path_factory.mktemp("socket"), argv)
    jobs, _ = backup_keeper.load(str(host.directory / "backup.d"), opens_secrets=False)
    assert jobs["job"].manifest_key is not None
    assert jobs["job"].manifest_key.reveal() == CLOSED

    async def scene(kept: BackupKeeper, clock: FakeClock) -> None:
        await kept.commands()["backup_run"]({"job": "job"})
        await until(lambda: states(kept) == ["ok"], 60)
        (made,) = host.manifests(key=secret)
        published = values(kept)
        assert published["vigilhost_backup_last_success_timestamp_seconds", "job", "store"] == made.finished_at
        assert published["vigilhost_backup_size_bytes", "job", "store"] == made.stored_bytes
        await kept.commands()["backup_run"]({"job": "job", "drill": True})
        await until(lambda: kept.summary()["jobs"]["job"]["drill"] == "ok", 60)
        (drilled,) = host.manifests(key=secret)
        assert values(kept)["vigilhost_backup_rto_measured_seconds", "job"] == drilled.rto_s

    try:
        play(host, scene, socket=activated.path)
    finally:
        activated.stop()
    assert (host.directory / "state-of-root" / "backup-drills").is_dir()
    assert not (host.directory / "state" / "locks").exists()


@pytest.mark.parametrize(
    ("configured", "directory", "is_there", "expected"),
    [
        (None, "/etc/vigilhost/backup.d", True, "SOCKET"),
        (None, "/etc/vigilhost/backup.d/", True, "SOCKET"),
        (None, "/etc/vigilhost/backup.d", False, None),
        (None, "./backup.d", True, None),
        ("/run/other.sock", "./backup.d", False, "/run/other.sock"),
    ],
)
def test_who_runs_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configured: str | None, directory: str, is_there: bool,
    expected: str | None,
) -> None:  # fmt: skip
    socket = tmp_path / "s"
    if is_there:
        socket.touch()
    monkeypatch.setattr(places, "BACKUP_SOCKET", str(socket))
    assert places.backup_socket(configured, directory) == (str(socket) if expected == "SOCKET" else expected)
