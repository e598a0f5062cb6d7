from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from structlog.testing import capture_logs

from agent.core.clock import SystemClock
from agent.core.model import Group, Tick, gauge
from agent.journal_keeper import JournalKeeper, open_journal
from sinks.journal import Journal, Limits
from sinks.journal.files import OsFiles
from tests.servers.process import wait_until

G = Group("m", (gauge("n", "count", "A number.", influx="n"),))
LIMITS = Limits(min_free_bytes=0)


class Disk(OsFiles):
    """A real one whose writes fail or hang while a test wants that."""

    def __init__(self) -> None:
        self.is_full = False
        self.takes_writes = threading.Event()
        self.takes_writes.set()

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self.takes_writes.wait(30)
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, data)


def keeper_at(path: Path, disk: OsFiles) -> JournalKeeper:
    clock = SystemClock()
    return JournalKeeper(Journal(str(path / "journal"), clock, LIMITS, files=disk), clock)


def tick(number: int) -> Tick:
    return Tick(number, "test", [G.row((), (number,))])


def is_written(keeper: JournalKeeper) -> bool:
    return keeper.journal.stats.waiting_records == 0


def in_files(at: Path) -> list[int]:
    journal = Journal(str(at / "journal"), SystemClock(), LIMITS)
    numbers = [found.time_ns for found in journal.ticks_since(0)]
    journal.close()
    return numbers


def test_ticks_are_written_without_being_asked(tmp_path: Path) -> None:
    keeper = keeper_at(tmp_path, OsFiles())
    for number in range(3):  # the second and third find a thread that has been idle or is about to be
        keeper.append(tick(number))
        wait_until(lambda: is_written(keeper), "the Tick to be written")
    assert keeper.stop(10)


def test_what_came_last_is_written_at_the_end(tmp_path: Path) -> None:
    keeper = keeper_at(tmp_path, OsFiles())
    keeper.append(tick(1))
    keeper.append(tick(2))
    assert keeper.stop(10)
    assert in_files(tmp_path) == [1, 2]


def test_a_disk_that_hangs_at_the_end_is_not_waited_for(tmp_path: Path) -> None:
    disk = Disk()
    disk.takes_writes.clear()
    keeper = keeper_at(tmp_path, disk)
    keeper.append(tick(1))
    assert not keeper.stop(0.2)
    disk.takes_writes.set()
    assert keeper.stop(10)


def test_a_full_disk_is_told_once_and_so_is_its_end_without_another_tick(tmp_path: Path) -> None:
    disk = Disk()
    keeper = keeper_at(tmp_path, disk)
    with capture_logs() as logs:
        disk.is_full = True
        keeper.append(tick(1))
        wait_until(lambda: keeper.journal.tally.errors["write ENOSPC"] > 1, "a second failed write")
        disk.is_full = False
        wait_until(lambda: len(logs) > 1, "the recovery to be told")
        assert is_written(keeper)
    assert [entry["event"] for entry in logs] == ["journal.cannot_write", "journal.recovered"]
    assert keeper.stop(10)


def test_a_directory_that_takes_nothing_is_replaced_by_a_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where a directory belongs")
    with capture_logs() as logs:
        journal = open_journal(str(tmp_path), LIMITS, SystemClock())
    journal.append(tick(1))
    assert journal.flush()
    journal.close()
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("journal.temporary", "error")]
