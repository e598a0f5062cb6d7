"""SQLite files that always open."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.core import sqlite
from agent.core.sqlite import NewerSchemaError, UnavailableError, open_database, open_reader, put_aside, used_bytes

FIRST = "CREATE TABLE a (x INTEGER); CREATE INDEX ax ON a (x)"
SECOND = "ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'old'"


def test_a_new_file_is_private_and_has_the_newest_schema(tmp_path: Path) -> None:
    opened = open_database(str(tmp_path / "db"), (FIRST, SECOND), label="test")
    assert opened.set_aside == ""
    assert opened.connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert opened.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert opened.connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600
    assert used_bytes(opened.connection) > 0
    opened.connection.close()


def test_an_older_file_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    first = open_database(path, (FIRST,), label="test").connection
    first.execute("INSERT INTO a VALUES (7)")
    first.close()
    second = open_database(path, (FIRST, SECOND), label="test").connection
    assert second.execute("SELECT x, y FROM a").fetchall() == [(7, "old")]
    second.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    open_database(path, (FIRST,), label="test").connection.close()
    with pytest.raises(UnavailableError, match=r"test: .*no such table: nowhere"):
        open_database(path, (FIRST, f"{SECOND}; INSERT INTO nowhere VALUES (1)"), label="test")
    again = open_database(path, (FIRST, SECOND), label="test").connection
    assert [row[1] for row in again.execute("PRAGMA table_info(a)")] == ["x", "y"]
    again.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    open_database(path, (FIRST, SECOND), label="test").connection.close()
    with pytest.raises(NewerSchemaError, match="schema 2, written by a newer version; this one knows 1"):
        open_database(path, (FIRST,), label="test")
    assert [name.name for name in tmp_path.iterdir()] == ["db"]


@pytest.mark.parametrize(
    "content", [b"x", b"text\n" * 999, b"SQLite format 3\0" + b"\0" * 999], ids=["byte", "text", "header"]
)
def test_what_is_no_database_is_renamed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "db"
    for number in (1, 2):
        path.write_bytes(content)
        opened = open_database(str(path), (FIRST,), label="test")
        assert opened.set_aside == f"{path}.corrupt-{number}"
        assert Path(opened.set_aside).read_bytes() == content
        opened.connection.close()


def test_a_path_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"test: .*/db: no such file or directory; make room"):
        open_database(str(tmp_path / "missing" / "db"), (FIRST,), label="test")
    (tmp_path / "db").mkdir()
    with pytest.raises(UnavailableError, match="irectory"):
        open_database(str(tmp_path / "db"), (FIRST,), label="test")


def test_a_reader_sees_what_is_committed_and_cannot_write(tmp_path: Path) -> None:
    path = str(tmp_path / "odd ?name#%41")
    writer = open_database(path, (FIRST,), label="test").connection
    reader = open_reader(path)
    writer.execute("INSERT INTO a VALUES (1)")
    assert reader.execute("SELECT x FROM a").fetchall() == [(1,)]
    with pytest.raises(sqlite3.OperationalError) as caught:
        reader.execute("INSERT INTO a VALUES (2)")
    assert sqlite.is_refused(caught.value)
    assert not sqlite.is_corrupt(caught.value)
    reader.close()
    writer.close()


def test_companions_go_aside_with_their_file(tmp_path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"db{suffix}").write_text(suffix)
    assert put_aside(str(tmp_path / "db")) == f"{tmp_path}/db.corrupt-1"
    assert sorted(name.name for name in tmp_path.iterdir()) == ["db.corrupt-1", "db.corrupt-1-shm", "db.corrupt-1-wal"]
