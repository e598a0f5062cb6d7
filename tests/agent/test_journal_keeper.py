from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent import journal_keeper
from agent.config import Settings
from agent.core.clock import SystemClock
from agent.core.model import Group, Tick, gauge
from agent.journal_keeper import JournalKeeper, limits_for, open_journal
from sinks.history.options import HistoryOptions
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


def test_it_writes_at_once_where_a_reader_waits(tmp_path: Path) -> None:
    keeper = keeper_at(tmp_path, OsFiles())
    for number in range(1, 4):
        keeper.journal.append(tick(number))  # without telling the keeper, which would write it by itself
        assert keeper.journal.until_written(number + 1, 30) == number + 1
        assert is_written(keeper)
    assert keeper.stop(10)


def test_a_reader_does_not_wait_for_a_disk_that_refuses(tmp_path: Path) -> None:
    disk = Disk()
    disk.is_full = True
    keeper = keeper_at(tmp_path, disk)
    keeper.append(tick(1))
    assert keeper.journal.until_written(2, 30) == 2
    assert keeper.journal.stats.is_failing
    assert not is_written(keeper)
    assert keeper.stop(10)


def test_a_bug_is_told_and_shown_and_does_not_end_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_keeper, "_AFTER_A_BUG_S", 0.05)
    keeper = keeper_at(tmp_path, OsFiles())
    seen: list[bool] = []

    def tidy() -> None:
        seen.append(keeper.journal.stats.is_failing)
        if len(seen) < 3:
            raise RuntimeError("a bug")

    monkeypatch.setattr(keeper.journal, "tidy", tidy)
    monkeypatch.setattr(journal_keeper, "TIDY_S", 0.0)
    with capture_logs() as logs:
        keeper.append(tick(1))
        wait_until(lambda: len(seen) >= 3, "two bugs, and a third try")
        wait_until(lambda: not keeper.journal.stats.is_failing, "the end of the trouble")
    assert seen[:3] == [False, True, True]
    assert [entry["event"] for entry in logs] == ["journal.broke_off"] * 2
    assert logs[0]["exc_info"]
    keeper.append(tick(2))
    wait_until(lambda: is_written(keeper), "what came after the bugs to be written")
    assert keeper.stop(10)


def test_a_bug_at_the_very_end_is_told_and_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = keeper_at(tmp_path, OsFiles())

    def broken() -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(keeper.journal, "sync", broken)
    with capture_logs() as logs:
        assert keeper.stop(10)
    assert [entry["event"] for entry in logs] == ["journal.broke_off"]


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


@pytest.mark.parametrize(
    ("history", "keep", "expected"),
    [
        (HistoryOptions(), 900.0, 1500.0),
        (HistoryOptions(flush=1200.0), 0.0, 2700.0),
        (HistoryOptions(), 86_400.0, 86_400.0),
        (HistoryOptions(enabled=False), 0.0, 0.0),
    ],
)
def test_the_journal_keeps_what_history_may_lack_when_a_write_of_it_fails(
    history: HistoryOptions, keep: float, expected: float
) -> None:
    settings = Settings(history=history, journal=Limits(keep=keep))
    assert limits_for(settings) == Limits(keep=expected)


def test_a_directory_that_takes_nothing_is_replaced_by_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journal").write_text("a file where a directory belongs")
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / 'run'}:/nowhere")
    with capture_logs() as logs:
        journal = open_journal(str(tmp_path), Limits(), SystemClock())
    journal.append(tick(1))
    assert journal.flush()
    assert Path(logs[0]["directory"]).parent == tmp_path / "run"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("journal.temporary", "error")]
    assert journal._upkeep._limits.max_bytes == Limits().memory_bytes, "it may be in memory"
    journal.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_first_directory_that_can_be_written_takes_the_substitute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journal").write_text("a file where a directory belongs")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with capture_logs() as logs:
        open_journal(str(tmp_path), Limits(), SystemClock()).close()
    assert Path(logs[0]["directory"]).parent == tmp_path


def test_where_nothing_can_be_written_the_journal_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a host shows whose disk the kernel made read-only, and that has no tmpfs the agent may write."""
    (tmp_path / "journal").write_text("a file where a directory belongs")
    tried = []

    def refuse(prefix: str, dir: str) -> str:  # noqa: A002 - mkdtemp's own word
        tried.append(dir)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with capture_logs() as logs:
        journal = open_journal(str(tmp_path), Limits(), SystemClock())
    assert tried[-1] == "/dev/shm"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("journal.in_memory", "error")]
    reader = journal.reader("sink", start="oldest")
    keeper = JournalKeeper(journal, SystemClock())
    keeper.append(tick(1))
    batch = reader.read_written(10, 1000, 30)
    assert batch is not None
    assert [found.time_ns for found in batch.ticks] == [1]
    assert journal.stats.is_failing
    journal.tidy()
    assert keeper.stop(10)
