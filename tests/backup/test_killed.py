"""kill -9 at any moment: the last good copy stays, what was left is swept, and the next run succeeds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from backup import catalogue
from backup.verify import verify
from tests.backup.hosts import HOST, BackedUp, Ended, built_source, command_job, ended, running
from tests.servers.process import wait_until

ASLEEP = 2_000_000 + os.getpid()
# Kills itself, as if from outside, at the beginning of a phase, or before the nth change of the file system.
KILLING = """
import os, signal, sys
from backup import worker
done = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counting(call):
    def counted(*given, **named):
        global done
        done += 1
        if done == number:
            die()
        return call(*given, **named)
    return counted

if number:
    for name in ("fsync", "rename", "unlink", "mkdir", "rmdir"):
        setattr(os, name, counting(getattr(os, name)))
put = worker.Lines.put
def heeding(self, event):
    put(self, event)
    if phase and event.get("phase") == phase:
        die()
    if event["event"] == "result":
        print(f"changes: {done}", file=sys.stderr)
worker.Lines.put = heeding
"""
RULES = {"keep_last": 2}


@pytest.fixture
def two_backups(host: BackedUp) -> list[str]:
    """A host with two good backups, of which the next run deletes one; their ids."""
    (host.source / "file").write_bytes(os.urandom(100_000))
    host.job()
    assert [host.run().code, host.run().code] == [0, 0]
    host.job(retention=RULES)
    return [one.id for one in host.manifests()]


def run_and_die(host: BackedUp, phase: str = "", before: int = 0) -> Ended:
    return ended(host.start(prelude=f"phase, number = {phase!r}, {before}\n{KILLING}"))


def whole(host: BackedUp) -> list[str]:
    """The ids of the backups that can be listed, every one proved to the last byte."""
    work, source = host.work(), built_source(host.job(retention=RULES))
    known = catalogue.read(host.target(), f"{HOST}/job", None)
    assert known.damaged == ()
    for one in known.manifests:
        assert verify(one, host.target(), source, work, level=2, now=0.0).problems == ()
    return [one.id for one in known.manifests]


def recovers(host: BackedUp, before: list[str], when: str) -> None:
    left = whole(host)
    assert before[-1] in left, when
    assert host.run().result["status"] == "ok", when
    (newest,) = [one for one in whole(host) if one not in left and one not in before]
    expected = {f"{one.prefix}/{name}" for one in host.manifests() for name in ("files.tar.zst", "manifest.json")}
    assert set(host.stored()) == expected, when
    assert newest in whole(host), when
    assert os.listdir(host.directory / "state" / "scratch") == [], when


@pytest.mark.parametrize("phase", ["sweep", "describe", "dump", "verify", "commit", "manifest", "retention"])
def test_killed_at_the_beginning_of_a_phase(host: BackedUp, two_backups: list[str], phase: str) -> None:
    assert run_and_die(host, phase=phase).code == -signal.SIGKILL
    recovers(host, two_backups, phase)


def test_killed_before_any_change_of_the_file_system(host: BackedUp, two_backups: list[str]) -> None:
    number, before = 1, two_backups
    while (died := run_and_die(host, before=number)).code != 0:
        assert died.code == -signal.SIGKILL, died.stderr
        recovers(host, before, f"before change {number}")
        before = [one.id for one in host.manifests()]
        number += 1
    assert number > 10


def test_a_killed_worker_takes_its_programs_along_and_frees_its_locks(host: BackedUp) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    worker = host.start()
    wait_until(lambda: running(f"sleep {ASLEEP}"), "the dump to hang")
    assert host.run().code == 75  # it is locked while it runs
    os.kill(worker.pid, signal.SIGKILL)
    assert ended(worker).code == -signal.SIGKILL
    wait_until(lambda: not running(f"sleep {ASLEEP}"), "the program to end")
    assert host.stored() != []
    command_job(host, "echo all of it")
    ran = host.run()
    assert ran.code == 0
    assert any(event["event"] == "swept" for event in ran.events)
    assert [Path(name).name for name in host.stored()] == ["manifest.json", "output.bin.zst"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_cleans_up_and_says_so(host: BackedUp, number: signal.Signals) -> None:
    command_job(host, f"echo begun; exec sleep {ASLEEP}")
    worker = host.start()
    wait_until(lambda: running(f"sleep {ASLEEP}"), "the dump to hang")
    os.kill(worker.pid, number)
    ran = ended(worker)
    assert ran.code == 1
    assert f"ended by {number.name}" in ran.result["error"]
    assert host.stored() == []
    assert not running(f"sleep {ASLEEP}")


def test_when_nobody_listens_any_more_the_run_ends(host: BackedUp) -> None:
    command_job(host, f"echo begun; sleep 1; dd if=/dev/zero bs=1M count=1 status=none; exec sleep {ASLEEP}")
    worker = host.start()
    assert worker.stdout is not None
    assert worker.stderr is not None
    worker.stdout.close()  # as when the daemon was killed
    assert worker.wait(20) == 1
    worker.stderr.close()
    assert not running(f"sleep {ASLEEP}")
    assert host.stored() == []


def test_a_backup_without_its_manifest_is_none_and_is_swept(host: BackedUp, two_backups: list[str]) -> None:
    first, second = host.manifests()
    (host.store / second.stored_name).unlink()
    (host.store / HOST / "job" / "notes").mkdir()
    (host.store / HOST / "job" / "notes" / "mine").touch()
    assert [one.id for one in host.manifests()] == [first.id]
    host.job()
    host.run()
    assert not (host.store / second.prefix).exists()
    assert (host.store / HOST / "job" / "notes" / "mine").exists()  # somebody else's


def test_a_backup_whose_manifest_is_damaged_is_left_alone_and_told(host: BackedUp, two_backups: list[str]) -> None:
    damaged = host.manifests()[0]
    file = host.store / damaged.stored_name
    file.write_bytes(file.read_bytes().replace(b'"pinned": false', b'"pinned": true '))
    ran = host.run()
    assert any("does not match its seal" in text for text in ran.result["warnings"])
    assert file.exists()
    assert (host.store / damaged.archives[0].stored).exists()
    assert ran.result["status"] == "warn"
