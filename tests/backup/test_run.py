"""A run from its job to its result: targets, hooks, verification, encryption, limits."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from agent.core.secrets import Secret
from backup.source import Work
from backup.workspace import workspace
from tests.backup.hosts import BackedUp, age_key, command_job, ended, script
from tests.servers.programs import need

LOCAL = {"type": "local"}


def test_a_run_tells_what_it_does_and_leaves_one_private_backup(host: BackedUp) -> None:
    (host.source / "file").write_text("kept")
    host.job(rpo="26h")
    ran = host.run()
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.phases == ["sweep", "describe", "dump", "verify", "commit", "manifest", "retention"]
    (made,) = host.manifests()
    assert host.stored() == [f"{made.prefix}/files.tar.zst", f"{made.prefix}/manifest.json"]
    assert {stat.S_IMODE((host.store / name).stat().st_mode) for name in host.stored()} == {0o600}
    assert stat.S_IMODE((host.store / made.prefix).stat().st_mode) == 0o700
    result = ran.result
    assert (result["status"], result["level"], result["is_slot_done"], result["error"]) == ("ok", 2, True, None)
    assert result["raw_bytes"] == made.raw_bytes > 0
    assert result["stored_bytes"] == made.stored_bytes == (host.store / made.archives[0].stored).stat().st_size
    assert result["targets"]["store"]["last_verified_at"] == made.verified_at


def test_several_targets_get_the_same_and_keep_their_own_number(host: BackedUp) -> None:
    other = host.directory / "other"
    other.mkdir()
    host.job(targets={
        "store": {**LOCAL, "path": str(host.store), "retention": {"keep_last": 3}},
        "other": {**LOCAL, "path": str(other), "retention": {"keep_last": 1, "min_keep": 1}},
    })  # fmt: skip
    (host.source / "file").write_text("kept")
    for _ in range(3):
        assert host.run().result["status"] == "ok"
    assert (len(host.manifests()), len(host.manifests(path=other))) == (3, 1)
    mine, theirs = host.manifests()[-1], host.manifests(path=other)[0]
    assert mine == theirs
    assert (host.store / mine.archives[0].stored).read_bytes() == (other / mine.archives[0].stored).read_bytes()


def test_one_target_that_fails_does_not_spoil_the_other(host: BackedUp) -> None:
    host.job(targets={"gone": {**LOCAL, "path": "/nonexistent/x"}, "store": {**LOCAL, "path": str(host.store)}})
    ran = host.run()
    assert ran.code == 1  # it is not well until both have it
    assert ran.result["is_slot_done"] is True  # but running again would not help
    assert ran.result["targets"]["store"]["status"] == "ok"
    assert "no such file" in ran.result["targets"]["gone"]["error"]
    assert len(host.manifests()) == 1


TINY = """
mount -t tmpfs -o size=256k,mode=0700 none "$1" && shift && exec "$@"
"""


def test_a_target_that_is_full_fails_alone_and_keeps_what_it_had(host: BackedUp) -> None:
    """A destination of 256 KiB, in a mount namespace of its own; the other has room."""
    need("unshare", "mount")
    tiny = host.directory / "tiny"
    tiny.mkdir()
    host.job(compression={"program": "none"}, targets={
        "tiny": {**LOCAL, "path": str(tiny)}, "store": {**LOCAL, "path": str(host.store)}})  # fmt: skip
    grow = f"head -c 1000000 /dev/urandom > {host.source}/big"
    to = host.directory
    inside = f'"$@" > {to}/first; {grow}; "$@" > {to}/second; find {tiny} -type f > {to}/left'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", TINY, "sh", str(tiny), "sh", "-c", inside, "sh", *host.argv()],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"]}, timeout=60, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    first, second = (json.loads((host.directory / name).read_text().splitlines()[-1]) for name in ("first", "second"))
    assert first["status"] == "ok"
    assert second["status"] == "fail"
    assert "no space left" in second["targets"]["tiny"]["error"]
    assert second["targets"]["store"]["status"] == "ok"
    left = (host.directory / "left").read_text()
    assert first["backup"] in left
    assert second["backup"] not in left


def test_what_will_not_fit_is_said_before_it_is_tried(host: BackedUp) -> None:
    host.job()
    ran = host.run()
    free = next(event["free_bytes"] for event in ran.events if event["event"] == "forecast")
    (made,) = host.manifests()
    from dataclasses import replace

    from backup import catalogue

    huge = replace(made, archives=(replace(made.archives[0], stored_bytes=free),))
    catalogue.write(host.target(), huge, None)
    assert any("will probably not fit" in text for text in host.run().result["warnings"])


def test_an_encrypted_backup_is_decoded_before_it_is_encrypted(host: BackedUp) -> None:
    recipient, key = age_key(host)
    (host.source / "file").write_text("for nobody else")
    host.job(encryption={"recipients": [recipient]})
    assert host.run().result["level"] == 2
    (made,) = host.manifests()
    stored = host.store / made.archives[0].stored
    assert stored.name == "files.tar.zst.age"
    assert b"for nobody else" not in stored.read_bytes()
    plain = subprocess.run(["age", "-d", "-i", key, stored], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "-t", "--zstd"], input=plain, capture_output=True, check=True).stdout
    assert b"source/file" in names


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_dump_that_cannot_be_decoded_is_no_backup(host: BackedUp, is_encrypted: bool) -> None:
    argv = script(host, "echo this is not a tar archive")
    encryption = {"recipients": [age_key(host)[0]]} if is_encrypted else {}
    host.job(source={"command": {"argv": argv, "check_argv": ["/usr/bin/tar", "-t"]}}, encryption=encryption)
    ran = host.run()
    assert ran.code == 1
    assert "does not look like a tar archive" in ran.result["error"]
    assert host.stored() == []
    host.job(source={"command": {"argv": argv, "check_argv": ["/usr/bin/tar", "-t"]}}, encryption=encryption,
             verification={"level": 1})  # fmt: skip
    assert host.run().result["level"] == 1


def test_without_verification_nothing_is_ever_deleted(host: BackedUp) -> None:
    host.job(verification={"level": 0}, retention={"keep_last": 1, "min_keep": 1})
    for _ in range(3):
        assert host.run().code == 0
    assert [one.is_verified for one in host.manifests()] == [False] * 3


@pytest.mark.parametrize("program", ["zstd", "none"])
def test_compression_is_optional(host: BackedUp, program: str) -> None:
    (host.source / "file").write_bytes(b"x" * 1_000_000)
    host.job(compression={"program": program})
    assert host.run().result["level"] == 2
    (made,) = host.manifests()
    assert (made.stored_bytes < made.raw_bytes / 10) is (program == "zstd")


def test_a_rate_limit_is_kept(host: BackedUp) -> None:
    (host.source / "file").write_bytes(os.urandom(3_000_000))
    host.job(limits={"rate": "1MB"}, compression={"program": "none"})
    assert host.run().result["duration_s"] > 2.0  # not a bound on speed, but on slowness


def hooked(host: BackedUp, name: str, text: str = "true") -> list[str]:
    file = host.directory / name
    file.write_text(f'#!/bin/sh\necho "{name} $VIGILHOST_JOB $VIGILHOST_STATUS" >> {host.directory}/said\n{text}\n')
    file.chmod(0o700)
    return [str(file)]


@pytest.mark.parametrize(
    ("before", "dump", "said"),
    [
        pytest.param("true", "echo x", ["before job ", "after job ok"], id="all is well"),
        pytest.param("true", "exit 1", ["before job ", "on_error job fail", "after job fail"], id="the dump fails"),
        pytest.param("exit 1", "echo x", ["before job ", "on_error job fail", "after job fail"], id="a hook fails"),
    ],
)
def test_hooks_run_around_the_dump(host: BackedUp, before: str, dump: str, said: list[str]) -> None:
    hooks = {"before": [hooked(host, "before", before)], "after": [hooked(host, "after")],
             "on_error": [hooked(host, "on_error")]}  # fmt: skip
    command_job(host, dump, hooks=hooks)
    ran = host.run()
    assert (ran.code == 0) is (len(said) == 2)
    assert (host.directory / "said").read_text().splitlines() == said


def test_a_target_that_fails_is_an_error_for_the_hooks_too(host: BackedUp) -> None:
    targets = {"gone": {**LOCAL, "path": "/nonexistent/x"}, "store": {**LOCAL, "path": str(host.store)}}
    command_job(host, "echo x", hooks={"on_error": [hooked(host, "on_error")]}, targets=targets)
    assert host.run().code == 1
    assert (host.directory / "said").read_text() == "on_error job fail\n"


def test_a_hook_that_fails_afterwards_is_a_warning(host: BackedUp) -> None:
    command_job(host, "echo x", hooks={"after": [hooked(host, "after", "echo it broke >&2; exit 4")]})
    ran = host.run()
    assert (ran.code, ran.result["status"]) == (0, "warn")
    assert "after exited 4: it broke" in ran.result["warnings"][0]


def test_hooks_run_even_after_the_deadline(host: BackedUp) -> None:
    command_job(host, "sleep 600", hooks={"after": [hooked(host, "after")]}, limits={"deadline": "1s"})
    assert host.run().code == 1
    assert (host.directory / "said").read_text() == "after job fail\n"


def test_a_program_that_others_can_replace_is_not_run(host: BackedUp) -> None:
    command_job(host, "echo x")
    (host.directory / "dump").chmod(0o722)
    assert "others can write to it" in host.run().result["error"]


def test_one_archive_that_fails_leaves_an_incomplete_backup_of_the_others(host: BackedUp) -> None:
    import sqlite3

    paths = [host.source / name for name in ("a.db", "b.db", "c.db")]
    for path in paths:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE t (x)")
        database.close()
    paths[1].write_bytes(b"this is no database, " * 100)
    host.job(source={"sqlite": {"paths": [str(path) for path in paths]}}, retention={"keep_last": 1})
    ran = host.run()
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", False)
    (made,) = host.manifests()
    assert [one.name for one in made.archives] == ["a.db", "c.db"]
    assert [one.name for one in made.missing] == ["b.db"]
    assert not made.is_verified


def next_phase(worker: subprocess.Popen[bytes]) -> Any:
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())["phase"]


def test_two_jobs_do_not_run_at_once(host: BackedUp) -> None:
    wait = f"until [ -e {host.directory}/go ]; do sleep 0.05; done; echo x"
    command_job(host, wait)
    host.job("second")
    first = host.start()
    assert next_phase(first) == "sweep"
    second = host.start("second")
    assert next_phase(second) == "waiting"
    assert first.poll() is None
    (host.directory / "go").touch()
    ends = [ended(first), ended(second)]
    assert [(one.code, one.result["job"]) for one in ends] == [(0, "job"), (0, "second")]
    assert ends[0].result["finished_at"] <= ends[1].result["finished_at"]


# A scratch disk that is full: as `private_file` finds it, for one.
FULL_SCRATCH = """
from backup.sources.files import Files
def describe(self, work):
    raise OSError(28, "No space left on device", f"{work.scratch}/files.list")
Files.describe = describe
"""


def test_a_full_scratch_disk_is_a_failure_with_a_result_and_the_hooks_run(host: BackedUp) -> None:
    host.job(hooks={"after": [hooked(host, "after")]})
    ran = ended(host.start(prelude=FULL_SCRATCH))
    assert (ran.code, ran.stderr) == (1, "")
    assert ran.result["error"] == f"{host.directory}/state/scratch/job/files.list: no space left on device"
    assert (host.directory / "said").read_text() == "after job fail\n"


# One destination on a disk that is too slow, or does not answer at all: `slow` is in its path.
SLOW = """
import threading, time
from backup import place
from backup.targets import local
hung = threading.Event()

def where(self):
    return getattr(self, "path", None) or self._shown

def slowed(call, wait):
    def slowly(self, *given, **named):
        if "/slow" in where(self):
            wait()
        return call(self, *given, **named)
    return slowly
"""
NO_PATIENCE = "place._SHARE = 0.0001  # of a deadline of 6 h\n"
SLOW_WRITES = f"""{SLOW}{NO_PATIENCE}
local._FileUpload.write = slowed(local._FileUpload.write, lambda: time.sleep(1))
"""


def with_a_slow_target(host: BackedUp, **limits: Any) -> Path:
    slow = host.directory / "slow"
    slow.mkdir()
    host.job(targets={"slow": {**LOCAL, "path": str(slow)}, "store": {**LOCAL, "path": str(host.store)}},
             compression={"program": "none"}, limits=limits)  # fmt: skip
    return slow


def test_a_target_that_is_far_slower_than_another_is_given_up(host: BackedUp) -> None:
    (host.source / "file").write_bytes(os.urandom(24 << 20))
    with_a_slow_target(host)
    ran = ended(host.start(prelude=SLOW_WRITES))
    assert (ran.code, ran.result["is_slot_done"]) == (1, True)
    assert "too slow: it has held up the others" in ran.result["targets"]["slow"]["error"]
    assert ran.result["targets"]["store"]["status"] == "ok"
    assert len(host.manifests()) == 1


def test_one_target_alone_may_be_slow(host: BackedUp) -> None:
    (host.source / "file").write_bytes(os.urandom(3 << 20))
    slow = host.directory / "slow"
    slow.mkdir()
    host.job(targets={"slow": {**LOCAL, "path": str(slow)}}, compression={"program": "none"})
    assert ended(host.start(prelude=SLOW_WRITES)).code == 0


@pytest.mark.parametrize("call", [
    "Local.check", "Local.names", "Local.free_bytes", "_FileUpload.write", "_FileUpload.reread", "_FileUpload.commit",
    "_FileUpload.finish",
])  # fmt: skip
def test_a_disk_that_does_not_answer_does_not_keep_the_other_from_its_copy(host: BackedUp, call: str) -> None:
    (host.source / "file").write_bytes(os.urandom(8 << 20))
    with_a_slow_target(host, stall="2s")
    hanging = f"{SLOW}\nplace._LEAST_S = 0.0\nlocal.{call} = slowed(local.{call}, hung.wait)\n"
    ran = ended(host.start(prelude=hanging))
    assert (ran.code, ran.result["is_slot_done"]) == (1, True), ran.result
    assert ran.result["targets"]["slow"]["status"] == "fail"
    assert ran.result["targets"]["store"]["status"] == "ok"
    assert len(host.manifests()) == 1


def test_a_run_whose_target_hangs_ends_when_it_is_asked_to(host: BackedUp) -> None:
    with_a_slow_target(host)
    worker = host.start(prelude=f"{SLOW}\nlocal.Local.check = slowed(local.Local.check, hung.wait)\n")
    assert worker.stdout is not None
    assert b'"sweep"' in worker.stdout.readline()
    worker.send_signal(signal.SIGTERM)
    ran = ended(worker)
    assert ran.result["error"] == "ended by SIGTERM"


# The terminal's SIGINT and the one that `backup run` hands on, which comes late on a busy host.
INTERRUPTED = """
import os, signal
from backup import worker
put = worker.Lines.put
def late(self, event):
    if event["event"] == "result":
        os.kill(os.getpid(), signal.SIGINT)
    put(self, event)
worker.Lines.put = late
"""


def test_a_signal_at_the_very_end_loses_no_result(host: BackedUp) -> None:
    host.job()
    ran = ended(host.start(prelude=INTERRUPTED))
    assert (ran.code, ran.result["status"], ran.stderr) == (0, "ok", "")


UNDELETING = """
from backup.errors import TargetFailed
from backup.targets.local import Local
def delete(self, name):
    raise TargetFailed(f"{self.path}/{name}: access denied")
Local.delete = delete
"""


def test_a_target_from_which_nothing_can_be_deleted_still_takes_copies(host: BackedUp) -> None:
    left = host.store / "web1" / "job" / "20260101T000000Z-aaaaaa" / "files.tar.zst"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a broken run")
    host.job()
    ran = ended(host.start(prelude=UNDELETING))
    assert (ran.code, ran.result["status"]) == (0, "warn")
    assert "what a broken run left there cannot be removed" in ran.result["warnings"][0]
    assert len(host.manifests()) == 1
    assert left.exists()


CANARY = "canary-7f3a9"


def test_a_secret_is_in_no_event_no_manifest_and_no_argument(host: BackedUp, tmp_path: Path) -> None:
    argv = script(
        host, f'tr "\\0" " " < /proc/$$/cmdline > {tmp_path}/argv; echo "using $TOKEN" >&2; echo "$TOKEN"; exit $FAIL'
    )
    for fail in ("0", "1"):
        variables = {"TOKEN": CANARY, "FAIL": fail}
        host.job(source={"command": {"argv": argv, "environment": variables}}, manifest_key=f"{CANARY}-key")
        ran = host.run()
        assert (ran.code == 0) is (fail == "0")
        assert CANARY not in json.dumps(ran.events) + ran.stderr
        assert "***" in json.dumps(ran.events) or fail == "0"
    assert CANARY not in (tmp_path / "argv").read_text()
    (made,) = host.manifests(key=Secret(f"{CANARY}-key"))
    assert CANARY not in (host.store / made.stored_name).read_text()


@pytest.mark.root("only root can become another user")
def test_a_job_runs_its_programs_as_its_user(host: BackedUp) -> None:
    host.directory.chmod(0o755)
    for above in host.directory.parents[:2]:
        above.chmod(above.stat().st_mode | 0o011)
    argv = ["/usr/bin/id", "-un"]
    host.job(source={"command": {"argv": argv}}, user="nobody", compression={"program": "none"})
    assert host.run().code == 0
    (made,) = host.manifests()
    assert (host.store / made.archives[0].stored).read_text() == "nobody\n"


@pytest.mark.root("only root can become another user")
def test_the_user_of_a_job_can_use_its_scratch_directory_and_nobody_else(host: BackedUp) -> None:
    work = host.work()
    leftovers = []
    name = f"job{os.getpid()}"  # the directory is shared with tests of other jobs that run beside us
    for user in ("nobody", None):
        with workspace(str(host.directory / "state"), name, user) as scratch:
            made = os.stat(scratch)
            # The group is the worker's own: a root that may not override modes gets in by it.
            assert (stat.S_IMODE(made.st_mode), made.st_gid) == (0o700 if user is None else 0o770, os.getegid())
            Work(scratch, work.guard, work.redact, user).run("touch", f"{scratch}/file")
            assert os.listdir(scratch) == ["file"]
            leftovers.append(scratch)
            os.mkdir(f"{scratch}.killed", mode=0o700)
        assert not os.path.exists(scratch)
    assert leftovers[0].startswith(f"/var/tmp/vigilhost.{name}.")
    assert leftovers[1].startswith(str(host.directory))
    with workspace(str(host.directory / "state"), name, "nobody"):
        assert not os.path.exists(f"{leftovers[0]}.killed")


def test_a_run_is_kind_to_what_else_the_host_does(host: BackedUp) -> None:
    show = "nice; ionice; chrt --pid $$ | grep --only-matching 'SCHED_.*'"
    command_job(host, show, limits={"nice": 19}, compression={"program": "none"})
    host.run()
    (made,) = host.manifests()
    assert (host.store / made.archives[0].stored).read_text() == "19\nidle\nSCHED_BATCH\n"


def test_a_user_that_does_not_exist_is_an_error(host: BackedUp) -> None:
    host.job(user="nobody-at-all")
    assert "no such user" in host.run().result["error"]


def events_of(ran: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in ran.events if event["event"] == kind]


def test_a_long_dump_tells_its_progress(host: BackedUp) -> None:
    command_job(host, "for i in 1 2 3; do head -c 300000 /dev/urandom; sleep 0.6; done")
    told = events_of(host.run(), "progress")
    assert told
    assert 0 < told[-1]["raw_bytes"] <= 900_000
    assert time.time() - told[-1]["time"] < 60
