"""Whatever happens to the process, the disk or the file: history opens, and what was written is there."""

from __future__ import annotations

import os
import random
import select
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import agent.core.sqlite
from sinks.history.history import FILE_NAME
from sinks.history.schema import MIGRATIONS
from tests.sinks.history.small import START_MS, Clock, at, opened, samples

ROOT = Path(__file__).parents[3]
ROUNDS = 20


def test_what_was_written_survives_every_kill(tmp_path: Path) -> None:
    rng = random.Random(3)
    written = first = 0
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "tests.sinks.history.killed", str(tmp_path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 4)):
                line = child.stdout.readline()
                assert line, "the child died by itself"
                written = int(line)
            select.select([child.stdout], [], [], rng.random() * 0.01)  # die anywhere within the next write
            child.kill()
            rest = child.stdout.read().split()  # it may have said more before it died
            written = int(rest[-1]) if rest else written
        history = opened(tmp_path)
        known = samples(history, "a")
        assert history.status().set_aside == ()
        assert history.status().damaged_blocks == 0
        seconds = [second for second, _ in known if second <= written]
        assert sorted(set(range(0, written + 1, 10)) ^ set(seconds))[:5] == [], "lost, or never written"
        assert len(seconds) == len(set(seconds)), "nothing is there twice"
        assert all(value == second for second, value in known)
        first = int(known[-1][0]) + 10
        history.close()


def test_a_disk_that_fills_up_costs_nothing_but_memory(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        command = ["unshare", "-m", sys.executable, "-m", "tests.sinks.history.filling", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
        assert done.stdout == "ok\n", done.stderr
    else:
        _a_full_file_is_held_in_memory(tmp_path)


def test_a_file_that_cannot_grow_is_tried_again(tmp_path: Path) -> None:
    _a_full_file_is_held_in_memory(tmp_path)


def _a_full_file_is_held_in_memory(tmp_path: Path) -> None:
    """SQLite's own limit on pages stands for the disk."""
    rng = random.Random(5)
    history = opened(tmp_path)
    history.append(at(0, {"a": 0.0}))
    assert history.write()
    database = history._store.db
    assert database is not None
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    for second in range(1, 600):
        history.append(at(second, {"a": float(second), **{f"n{n}": rng.random() for n in range(20)}}))
    assert not history.write()
    assert "full" in history.status().trouble
    assert [second for second, _ in samples(history, "a")] == list(range(600))
    assert history.write(), "a new connection finds room"
    history.close()
    again = opened(tmp_path)
    assert [second for second, _ in samples(again, "a")] == list(range(600))
    again.close()


def test_a_directory_that_is_not_there_yet_is_made_and_a_file_in_its_place_is_no_crash(tmp_path: Path) -> None:
    opened(tmp_path / "deep" / "down").close()
    assert (tmp_path / "deep" / "down" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("not a directory")
    history = opened(tmp_path / "file")
    history.append(at(0, {"a": 1.0}))
    assert not history.write()
    assert samples(history, "a") == [(0, 1.0)]
    assert history.status().trouble
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    assert history.write()
    history.close()


def test_a_file_that_opens_late_is_joined_with_what_memory_has(tmp_path: Path) -> None:
    first = opened(tmp_path / "history")
    first.append(at(0, {"a": 1.0}))
    first.close()
    (tmp_path / "history").rename(tmp_path / "elsewhere")
    (tmp_path / "history").write_text("in the way")
    history = opened(tmp_path / "history")
    history.append(at(10, {"a": 2.0, "b": 2.0}))
    (tmp_path / "history").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "history")
    assert history.write()
    for _ in range(2):
        assert samples(history, "a") == [(0, 1.0), (10, 2.0)]
        assert samples(history, "b") == [(10, 2.0)]
        history.close()
        history = opened(tmp_path / "history")
    history.append(at(20, {"a": 3.0}))
    assert samples(history, "a") == [(0, 1.0), (10, 2.0), (20, 3.0)]
    history.close()


def _hour(directory: Path) -> None:
    history = opened(directory)
    for second in range(0, 3600, 5):
        history.append(at(second, {"a": float(second), "b": second % 17 * 0.3}))
        if second % 600 == 0:
            assert history.write()
    history.close()


GARBAGE = [b"", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 9000, b"hello", b"\n" * 100]


@pytest.mark.parametrize("content", GARBAGE, ids=["empty", "zeros", "header only", "text", "lines"])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(content)
    history = opened(tmp_path)
    history.append(at(0, {"a": 1.0}))
    assert history.write()
    aside = history.status().set_aside
    if content:
        assert len(aside) == 1
        assert Path(aside[0]).read_bytes() == content
    else:
        assert aside == ()
    history.close()
    again = opened(tmp_path)
    assert samples(again, "a") == [(0, 1.0)]
    again.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_file_damaged_anywhere_never_stops_history(tmp_path: Path, seed: int) -> None:
    _hour(tmp_path)
    file = tmp_path / FILE_NAME
    rng = random.Random(seed)
    content = bytearray(file.read_bytes())
    if seed % 3 == 0:
        del content[rng.randrange(len(content)) :]
    else:
        for _ in range(rng.choice((1, 20, 3000))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    history = opened(tmp_path)
    querier = history.querier()
    querier.instant("sum(max_over_time(place_x[1h]))", START_MS + 3_595_000)
    querier.range("place_x", START_MS, START_MS + 3_600_000, 60_000)
    for second in range(3600, 3700, 5):
        history.append(at(second, {"a": float(second)}))
    assert history.write() or history.write(), history.status().trouble
    assert history.write(), history.status().trouble
    history.status()
    newest = [second for second, _ in samples(history, "a", start_s=3600)]
    assert newest == list(range(3600, 3700, 5))
    history.close()
    again = opened(tmp_path)
    assert [second for second, _ in samples(again, "a", start_s=3600)] == newest
    again.close()


# What is damaged, and the least samples of 1440 that are still there: a layout takes all the blocks that use it along.
DAMAGE = {
    "part": ("UPDATE part SET data = x'00112233' WHERE id = (SELECT id FROM part LIMIT 1 OFFSET 3)", 1200),
    "times": ("UPDATE block SET times = x'00112233' WHERE id = 3", 1200),
    "constants": ("UPDATE block SET constants = x'00112233' WHERE id = 3", 1200),
    "rows": ("UPDATE block SET rows = 0 WHERE id = 3", 1200),
    "far too many rows": ("UPDATE block SET rows = rows << 40 WHERE id = 3", 1200),
    "blob called a text": ("UPDATE block SET constants = CAST(x'28b52ffdff' AS TEXT) WHERE id = 3", 1200),
    "blob that is a number": ("UPDATE block SET times = 7 WHERE id = 3", 1200),
    "layout cut short": ("UPDATE layout SET series = x'010000' WHERE tier = 0", 0),
    "layout too long": ("UPDATE layout SET series = series || series WHERE tier = 0", 0),
    "layout lost": ("DELETE FROM layout WHERE tier = 0", 0),
}


def _damaged(directory: Path, *statements: str) -> None:
    database = sqlite3.connect(directory / FILE_NAME)
    for statement in statements:
        assert database.execute(statement).rowcount, statement
    database.commit()
    database.close()


@pytest.mark.parametrize(("statement", "least"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_part_is_left_out_and_said_so(tmp_path: Path, statement: str, least: int) -> None:
    _hour(tmp_path)
    _damaged(tmp_path, statement)
    history = opened(tmp_path)
    answer = history.querier().instant('{__name__=~"place_x|up"}[2h]', START_MS + 3_600_000)
    found = [points for points in answer.matrix() if dict(points.labels)["__name__"] == "place_x"]
    assert least <= sum(len(points.values) for points in found) < 1440
    assert any("damaged" in warning for warning in answer.warnings)
    assert history.status().damaged_blocks
    history.close()


@pytest.mark.parametrize("statement", [statement for statement, _ in DAMAGE.values()], ids=DAMAGE)
def test_a_damaged_part_stops_no_write_and_no_tier(tmp_path: Path, statement: str) -> None:
    """The write builds the window that the damaged block belongs to, now and in the next life."""
    _hour(tmp_path)
    _damaged(tmp_path, statement)
    for first in (3600, 7200):
        history = opened(tmp_path)
        for second in range(first, first + 3600, 5):
            history.append(at(second, {"a": float(second), "b": second % 17 * 0.3}))
        assert history.write(), history.status().trouble
        raw, five, _ = history.status().tiers
        assert raw.newest_ms == START_MS + (first + 3595) * 1000
        assert five.newest_ms is not None
        assert five.newest_ms >= START_MS + first * 1000, "the window was built from what is left"
        assert [second for second, _ in samples(history, "a", start_s=3600)] == list(range(3600, first + 3600, 5))
        assert history.status().set_aside == ()
        history.close()


@pytest.mark.parametrize("column", ["series SET labels", "source SET name"])
def test_names_that_are_no_text_have_the_file_set_aside_and_history_goes_on(tmp_path: Path, column: str) -> None:
    _hour(tmp_path)
    _damaged(tmp_path, f"UPDATE {column} = CAST(x'ff' AS TEXT)")
    history = opened(tmp_path)
    history.append(at(3600, {"a": 1.0}))
    assert history.write(), history.status().trouble
    assert len(history.status().set_aside) == 1
    assert samples(history, "a") == [(3600, 1.0)]
    history.close()


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "7"])
def test_a_metric_whose_help_is_no_text_costs_nothing_else(tmp_path: Path, value: str) -> None:
    _hour(tmp_path)
    _damaged(tmp_path, f"UPDATE metric SET help = {value}")
    history = opened(tmp_path)
    assert "place_x" in history.metadata()
    history.append(at(3600, {"a": 1.0}))
    assert history.write(), history.status().trouble
    assert history.metadata()["place_x"].help == "What it is."
    assert history.status().set_aside == ()
    history.close()


@pytest.mark.parametrize("column", ["constants", "times"])
def test_a_damaged_window_is_replaced_when_it_is_built_again(tmp_path: Path, column: str) -> None:
    _built_twice(tmp_path, f"UPDATE block SET {column} = x'00112233' WHERE tier = 1")


def test_a_window_with_a_damaged_part_is_replaced_when_it_is_built_again(tmp_path: Path) -> None:
    _built_twice(tmp_path, "UPDATE part SET data = x'00112233' WHERE id >= 65536 * "
                 "(SELECT max(id) FROM block WHERE tier = 1)")  # fmt: skip


def _built_twice(directory: Path, statement: str) -> None:
    """A clock set back has a window built again; the buckets that were there are damaged meanwhile."""
    _hour(directory)
    history = opened(directory)
    history.append(at(3660, {"a": 3660.0}))
    history.close()
    _damaged(directory, statement, f"INSERT INTO pending VALUES (1, {START_MS})")
    history = opened(directory)
    assert history.write(), history.status().trouble
    assert history.status().damaged_blocks
    history.close()
    database = sqlite3.connect(directory / FILE_NAME)
    assert database.execute(f"SELECT * FROM pending WHERE tier = 1 AND start_ms = {START_MS}").fetchall() == []
    database.close()
    again = opened(directory, raw=3600.0)
    answer = again.querier().instant("max_over_time(place_x[1h])", START_MS + 3_600_000)
    assert max(point.value for point in answer.vector()) == 3595.0
    again.close()


def test_a_newer_file_is_left_alone_and_said_so(tmp_path: Path) -> None:
    _hour(tmp_path)
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    history = opened(tmp_path)
    history.append(at(4000, {"a": 1.0}))
    assert not history.write()
    assert samples(history, "a") == [(4000, 1.0)]
    assert "newer version" in history.status().trouble
    history.close()
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert not [name for name in os.listdir(tmp_path) if "corrupt" in name]


def test_a_file_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    _hour(tmp_path)
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("DROP TABLE metric")
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    history = opened(tmp_path)
    assert [second for second, _ in samples(history, "a")] == list(range(0, 3600, 5))
    assert history.metadata() == {}
    history.append(at(3600, {"a": 1.0}))
    history.close()
    again = opened(tmp_path)
    assert list(again.metadata()) == ["place_x"]
    again.close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    database.close()


def test_a_write_that_fails_halfway_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = opened(tmp_path)
    history.append(at(0, {"a": 1.0}))
    assert history.write()
    for second in range(1, 50):
        history.append(at(second, {"a": float(second), "b": second * 0.5}))
        history.append(at(second, {"c": float(second)}, collector="other"))
    real = history._store.insert
    calls = []

    def failing(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(history._store, "insert", failing)
    assert not history.write()
    monkeypatch.undo()
    assert history.write()
    history.close()
    again = opened(tmp_path)
    assert [second for second, _ in samples(again, "a")] == list(range(50))
    assert [second for second, _ in samples(again, "c")] == list(range(1, 50))
    assert again.status().tiers[0].samples == 50 + 49 + 49 + 10
    again.close()


def test_two_histories_never_share_a_file_unnoticed(tmp_path: Path) -> None:
    """The state directory's lock forbids it; should it happen all the same, nothing breaks."""
    clock = Clock()
    first, second = opened(tmp_path, clock), opened(tmp_path, clock)
    first.append(at(0, {"a": 1.0}))
    assert first.write()
    second.append(at(5, {"a": 2.0}))
    second.write()
    assert agent.core.sqlite.file_bytes(str(tmp_path / FILE_NAME)) > 0
    first.close()
    second.close()
    again = opened(tmp_path, clock)
    assert samples(again, "a")[-1][1] in (1.0, 2.0)
    again.close()
