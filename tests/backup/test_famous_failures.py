"""Failures that made other people's backups worthless, one test each.

Some are tested where their subject is: retention that sorts by the files' times (test_retention), the stamp of the
schedule written before the run (test_scheduler: a run that was cut off by a restart is run again), a failure mail that
nobody gets (alerting/test_default_rules: BackupOverdue fires on age alone), sources that dump nothing (sources/test_*).
"""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from backup.children import Step
from backup.coding import Compression
from backup.errors import SourceFailed
from backup.pipeline import Settings, record
from backup.source import Stream
from tests.backup.hosts import BackedUp, age_key, command_job, running
from tests.servers.process import wait_until
from tests.servers.vigilhost import Vigilhost

# Seconds that nothing else sleeps for, so that the process can be found.
ASLEEP = 1_000_000 + os.getpid()
MIB = 1 << 20


class Kept:
    """A taker that keeps what it gets in memory."""

    def __init__(self) -> None:
        self.content = b""
        self.is_finished = False

    def write(self, chunk: bytes) -> None:
        self.content += chunk

    def finish(self) -> None:
        self.is_finished = True


@pytest.mark.server("pg_dump")
def test_pg_dump_of_no_database_piped_into_a_compressor_exits_0_with_20_bytes(host: BackedUp) -> None:
    shell = subprocess.run("pg_dump -h /nonexistent nosuchdb | gzip", shell=True, capture_output=True, check=False)
    assert (shell.returncode, len(shell.stdout)) == (0, 20)  # what a cron script takes for a backup
    step = Step(("pg_dump", "-h", "/nonexistent", "nosuchdb"))
    kept = Kept()
    with pytest.raises(SourceFailed, match=r"pg_dump exited 1: .*No such file"):
        record(Stream("nosuchdb", "sql", (step,)), {"kept": kept}, Settings(Compression()), host.work())
    assert not kept.is_finished


@pytest.mark.parametrize("encryption", [{}, {"recipients": ["age"]}], ids=["plain", "encrypted"])
def test_partial_output_of_a_program_that_then_fails_is_no_backup(
    host: BackedUp, encryption: dict[str, list[str]]
) -> None:
    """`(echo partial; false) | tool` saved as a snapshot."""
    if encryption:
        encryption = {"recipients": [age_key(host)[0]]}
    command_job(host, "echo partial; echo it broke >&2; exit 3", encryption=encryption)
    ran = host.run()
    assert ran.code == 1
    assert ran.result["status"] == "fail"
    assert "dump exited 3: it broke" in ran.result["error"]
    assert host.stored() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("true", "gave nothing"),
        ("printf x", "1 bytes are too few"),
        ("echo lots and lots; kill -9 $$", "was ended by SIGKILL"),
    ],
)
def test_an_empty_or_tiny_dump_is_a_failure_whatever_the_exit_status(host: BackedUp, text: str, said: str) -> None:
    command_job(host, text, verification={"min_bytes": "10B"})
    ran = host.run()
    assert (ran.code, ran.result["status"]) == (1, "fail")
    assert said in ran.result["error"]
    assert host.stored() == []


def test_a_dump_that_fails_after_good_ones_leaves_them_alone(host: BackedUp) -> None:
    """Retention deletes good copies while new ones are empty."""
    command_job(host, "echo a good dump", retention={"keep_last": 1, "min_keep": 1})
    assert host.run().code == 0
    before = host.stored()
    command_job(host, "true", retention={"keep_last": 1, "min_keep": 1})
    for _ in range(2):
        assert host.run().code == 1
    assert host.stored() == before


def test_a_dump_that_hangs_is_a_failure_within_the_deadline(host: BackedUp) -> None:
    """A health check of the process's age stays green while every dump hangs; ours ends it and says so."""
    command_job(host, f"echo begun; sleep {ASLEEP} & wait", limits={"deadline": "1s"})
    ran = host.run()
    assert ran.result["status"] == "fail"
    assert "did not end within 1 s" in ran.result["error"]
    assert host.stored() == []
    assert not running(f"sleep {ASLEEP}")


def test_a_dump_that_stops_giving_bytes_is_a_failure_before_the_deadline(host: BackedUp) -> None:
    command_job(host, f"echo begun; sleep {ASLEEP}", limits={"stall": "1s"})
    assert "no byte came for 1 s" in host.run().result["error"]
    assert not running(f"sleep {ASLEEP}")


def test_what_a_dump_left_in_the_background_is_ended_with_it(host: BackedUp) -> None:
    command_job(host, f"sleep {ASLEEP} & echo done")
    assert host.run().code == 0
    assert not running(f"sleep {ASLEEP}")


def test_a_shrunken_backup_is_a_warning(host: BackedUp) -> None:
    (host.source / "big").write_bytes(os.urandom(1 << 20))
    host.job()
    for _ in range(3):
        assert host.run().result["status"] == "ok"
    (host.source / "big").unlink()
    ran = host.run()
    assert (ran.code, ran.result["status"]) == (0, "warn")
    assert "less than the median of 3" in ran.result["warnings"][0]


def test_a_plain_copy_of_sqlite_with_a_log_lacks_tables_and_ours_does_not(host: BackedUp) -> None:
    path = host.source / "app.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = wal")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("CREATE TABLE old (x)")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("CREATE TABLE written_last (x)")
    database.execute("INSERT INTO written_last VALUES (42)")
    database.commit()
    copy = host.directory / "plain-copy.db"
    copy.write_bytes(path.read_bytes())
    with sqlite3.connect(copy) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert plain.execute("SELECT name FROM sqlite_master").fetchall() == [("old",)]
    plain.close()
    host.job(source={"sqlite": {"paths": [str(path)]}})
    assert host.run().result["status"] == "ok"
    (made,) = host.manifests()
    assert made.archives[0].row_estimates == {"old": 0, "written_last": 1}
    database.close()


@pytest.mark.parametrize("size", [MIB, 5 * MIB], ids=["shrinks", "grows"])
def test_a_file_that_changes_while_it_is_read_is_a_warning_that_names_it(host: BackedUp, size: int) -> None:
    """Python's tarfile dies of one that shrinks; GNU tar pads, and says so."""
    changing = host.source / "changing.log"
    changing.write_bytes(b"x" * 4 * MIB)
    (host.source / "steady").write_text("kept")

    def change() -> None:
        wait_until(lambda: is_open(changing), "tar to read the file", every=0.001)
        os.truncate(changing, size)

    changer = threading.Thread(target=change)
    changer.start()
    host.job(limits={"rate": "2MiB"}, compression={"program": "none"})  # so slow that it changes in the middle
    ran = host.run()
    changer.join()
    assert (ran.code, ran.result["status"]) == (0, "warn")
    assert any("changed while it was read" in text and "changing.log" in text for text in ran.result["warnings"])
    (made,) = host.manifests()
    assert any("changing.log" in text for text in made.archives[0].warnings)
    assert made.archives[0].statuses[0] == 1


def is_open(file: Path) -> bool:
    """Whether any process has it open, from /proc/PID/fd."""
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == str(file):
                return True
    return False


def test_a_source_that_is_missing_is_a_failure_not_an_empty_backup(host: BackedUp) -> None:
    host.job(source={"files": {"paths": [str(host.source / "gone")]}})
    ran = host.run()
    assert ran.code == 1
    assert "gone: no such file or directory" in ran.result["error"]
    assert host.stored() == []


def test_a_disk_that_is_not_mounted_is_a_failure_not_a_full_root(host: BackedUp) -> None:
    host.job(targets={"disk": {"type": "local", "path": str(host.store), "mounted": True}})
    ran = host.run()
    assert ran.code == 1
    assert "nothing is mounted there" in ran.result["error"]


class Misconfigured(Vigilhost):
    """An agent one of whose jobs has a typing error."""

    def prepare(self) -> None:
        super().prepare()
        (self.data_dir / "backup.d").mkdir()
        (self.data_dir / "backup.d" / "etc.yaml").write_text("sorce: {files: {paths: [/etc]}}\n")


def test_a_missing_metric_is_not_read_as_healthy() -> None:
    """A job that could not be read has no readings at all, on which no rule about backups could fire."""
    with Misconfigured("collectors: {others: false, agent: {interval: 1s}}") as agent:
        wait_until(lambda: "vigilhost_config_last_reload_successful 0" in agent.metrics(), "the reading")
        health = agent.health()
        assert "vigilhost_backup_status" not in agent.metrics()
    assert (health["status"], health["failing"]) == ("degraded", ["reload"])
    assert "etc.yaml:1: sorce: no such option; did you mean 'source'?" in health["reload_error"].replace(":1:1:", ":1:")
