"""Whatever goes wrong with a run is reported within its deadline, and the copies that are there stay: all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backup.hosts import BackedUp, Ended, command_job, ended, running
from tests.servers.disk import disk

ASLEEP = 3_000_000 + os.getpid()
STRICT = {"keep_last": 1, "min_keep": 1}  # a success would delete all but itself
STORE: dict[str, Any] = {"type": "local"}

Spoil = Callable[[BackedUp], None]


def dumping(text: str, **options: Any) -> Spoil:
    return lambda host: command_job(host, text, retention=STRICT, **options)


def without_source(host: BackedUp) -> None:
    shutil.rmtree(host.source)
    host.job(retention=STRICT)


def without_program(host: BackedUp) -> None:
    host.job(source={"command": {"argv": ["/nonexistent/dump"]}}, retention=STRICT)


def with_a_store_that_is_away(host: BackedUp) -> None:
    disk = {**STORE, "path": str(host.store), "mounted": True}
    host.job(targets={"store": disk}, retention=STRICT)


def with_a_store_nobody_may_write_to(host: BackedUp) -> None:
    host.job(targets={"store": {**STORE, "path": "/proc/sys"}}, retention=STRICT)


@pytest.fixture
def two_copies(host: BackedUp) -> list[str]:
    """What is stored of a host with two good backups."""
    (host.source / "file").write_bytes(os.urandom(10_000))
    host.job()
    assert [host.run().code, host.run().code] == [0, 0]
    return host.stored()


def failed(ran: Ended, said: str) -> None:
    assert (ran.code, ran.result["status"], ran.result["is_slot_done"]) == (1, "fail", False)
    assert said in ran.result["error"]
    assert "retention" not in ran.phases
    assert not [event for event in ran.events if event["event"] == "deleted"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (dumping("echo half of it; echo the server went away >&2; exit 1"), "dump exited 1: the server went away"),
        (dumping("head -c 3000000 /dev/urandom; exit 1"), "dump exited 1"),
        (dumping("true"), "gave nothing"),
        (dumping(f"echo begun; exec sleep {ASLEEP}", limits={"deadline": "2s"}), "did not end within 2 s"),
        (dumping(f"exec sleep {ASLEEP}", limits={"deadline": "2s"}), "did not end within 2 s"),
        (dumping(f"echo begun; exec sleep {ASLEEP}", limits={"stall": "1s"}), "no byte came for 1 s"),
        (dumping("cat /dev/zero", limits={"deadline": "2s"}), "did not end within 2 s"),
        (without_source, "no such file or directory"),
        (without_program, "/nonexistent: no such file"),
        (with_a_store_that_is_away, "nothing is mounted there"),
        (with_a_store_nobody_may_write_to, "/proc/sys"),
    ],
    ids=["partial", "much and then 1", "nothing", "hangs", "hangs at once", "stalls", "never ends", "no source",
         "no program", "no mount", "no right"],
)  # fmt: skip
def test_a_failure_leaves_every_copy_and_retention_alone(
    host: BackedUp, two_copies: list[str], spoil: Spoil, said: str
) -> None:
    spoil(host)
    failed(host.run(), said)
    assert host.stored() == two_copies
    assert not running(f"sleep {ASLEEP}")


@pytest.fixture
def small_disk(host: BackedUp) -> Iterator[Path]:
    """A real file system of 6 MB, which finds out late that it is full: space is given out when data are written."""
    with disk(host.directory / "disk.img", 8 << 20, host.store) as store:
        yield store


def test_a_full_disk_is_a_failure_that_leaves_every_copy(host: BackedUp, small_disk: Path) -> None:
    (host.source / "file").write_bytes(os.urandom(1 << 20))
    host.job()
    assert [host.run().code, host.run().code] == [0, 0]
    before = host.stored()
    (host.source / "file").write_bytes(os.urandom(6 << 20))
    host.job(retention=STRICT)
    failed(host.run(), "no space left on device")
    assert host.stored() == before
    (host.source / "file").write_bytes(os.urandom(1 << 20))
    assert host.run().code == 0  # what had been begun takes no space any more


# Somebody else takes what is left of the disk at the moment when the archive is there and the manifest is not.
FILLING = """
import os
from backup import catalogue
write = catalogue.write
def late(target, *rest):
    with open(f"{target.path}/somebody-elses", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1024)
                os.fsync(file.fileno())
        except OSError:
            pass
    write(target, *rest)
catalogue.write = late
"""


def test_a_disk_too_full_even_for_a_manifest_holds_no_backup_without_one(host: BackedUp, small_disk: Path) -> None:
    (host.source / "file").write_bytes(os.urandom(1 << 20))
    host.job()
    assert host.run().code == 0
    before = host.stored()
    (good,) = host.manifests()
    host.job(retention=STRICT)
    ran = ended(host.start(prelude=FILLING))
    failed(ran, "no space left on device")
    assert ran.phases[-1] == "manifest"
    assert ran.result["targets"]["store"]["last_success_at"] == good.finished_at
    assert host.stored() == sorted([*before, "somebody-elses"])


# The answer to a request that was done is lost.
LOSING = """
from backup.errors import TargetFailed
from backup.targets.local import Local
put = Local.put
def put_and_lose(self, name, content):
    put(self, name, content)
    raise TargetFailed("the connection broke")
Local.put = put_and_lose
"""
UNDELETING = """
from backup.targets.local import Local
def delete(self, name):
    raise TargetFailed("the connection is still broken")
Local.delete = delete
"""


def test_a_manifest_that_arrived_unheard_goes_with_its_archives_or_stays_with_them(
    host: BackedUp, two_copies: list[str]
) -> None:
    host.job(retention=STRICT)
    failed(ended(host.start(prelude=LOSING)), "the connection broke")
    assert host.stored() == two_copies
    failed(ended(host.start(prelude=LOSING + UNDELETING)), "the connection broke")
    made = host.manifests()[-1]
    assert host.stored() == sorted([*two_copies, made.stored_name, made.archives[0].stored])
