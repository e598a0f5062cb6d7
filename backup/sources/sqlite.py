"""SQLite databases, copied while they are in use by the online backup of SQLite itself.

A plain copy of the file is never right: with a write-ahead log it passes integrity_check and lacks what was written
last.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from agent.core.options import option, required
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Guard, Step
from backup.errors import Damaged, Refused, SourceFailed
from backup.extract import copy
from backup.source import Facts, Restored, Skipped, Stream, Work

_PAGES = 4096  # copied at a time; between them writers get their turn
_BUSY_S = 30.0
_COUNTING_S = 2.0  # for the rows of one database: they are estimates
_SIDE_FILES = ("-wal", "-shm", "-journal")
# What SQLite says of a database with a write-ahead log that nobody has open, where we may not make the log's files: a
# reader makes them too. Such a file is copied as it lies, and looked at again afterwards.
_SHUT = ("SQLITE_READONLY", "SQLITE_CANTOPEN")


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path; begin it with /")


@dataclass(slots=True)
class SQLite:
    """Backs up SQLite databases, each as one archive. A file that is missing is an error."""

    paths: list[str] = required("Files of the databases.", check=_check_path, example="[/var/lib/app/app.db]")
    compact: bool = option(False, "Leave out free pages (VACUUM INTO); holds writers up for longer.")

    drills_apart: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = [os.path.basename(path) for path in self.paths]
        if not names or len(set(names)) < len(names):
            raise ValueError("paths: names at least one file, and no two of the same name")

    def describe(self, work: Work) -> Facts:
        for path in self.paths:
            if not os.path.isfile(path):
                raise SourceFailed(f"{path}: no such file; correct source.sqlite.paths")
        return Facts({"sqlite": sqlite3.sqlite_version}, {"paths": ", ".join(self.paths)})

    def streams(self, work: Work) -> Iterator[Stream | Skipped]:
        for path in self.paths:
            replica = os.path.join(work.scratch, "copy.db")
            try:
                try:
                    self._copy(path, replica, work.guard)
                except SourceFailed as error:
                    yield Skipped(os.path.basename(path), str(error))
                    continue
                rows = count_rows(replica)
                # A database that holds nothing at all is an empty file, and may be meant so; nobody backs it up.
                yield Stream(os.path.basename(path), "db", (Step(("cat", replica)),), rows)
            finally:
                _remove(replica)

    def _copy(self, path: str, to: str, guard: Guard) -> None:
        try:
            try:
                self._copy_from(path, "", to, guard)
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith(_SHUT) or (before := _at_rest(path)) is None:
                    raise
                _remove(to)
                self._copy_from(path, "&immutable=1", to, guard)
                if _at_rest(path) != before:
                    raise SourceFailed(f"{path}: was opened while it was copied; it is tried again") from error
        except sqlite3.Error as error:
            raise SourceFailed(f"{path}: {error}") from error

    def _copy_from(self, path: str, how: str, to: str, guard: Guard) -> None:
        """Raise sqlite3.Error."""
        with closing(_open(path, how)) as source:
            if self.compact:
                source.execute("VACUUM INTO ?", (to,))
                return
            with closing(sqlite3.connect(to)) as target:
                source.backup(target, pages=_PAGES, progress=lambda *_: guard.check(), sleep=0.01)

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        file = os.path.join(work.scratch, "check.db")
        try:
            copy(plain, file)
            check_integrity(file)
        finally:
            _remove(file)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Write the database to the file `to`, or into the directory `to`.

        `allow`: `force` moves one that is there aside, to `to.before-...`.
        """
        file = os.path.join(to, name) if os.path.isdir(to) else to
        if os.path.lexists(file) and "force" not in allow:
            raise Refused(f"{file}: is there already; restore elsewhere, or replace it with --force")
        staging = f"{file}.restoring"
        _remove(staging)  # of a restore that was killed
        try:
            size = copy(plain, staging)
            check_integrity(staging)
            _set_aside(file)
            os.rename(staging, file)
        finally:
            _remove(staging)
        return Restored(1, size)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        file = os.path.join(work.scratch, "drill.db")
        try:
            copy(plain, file)
            check_integrity(file)
            with closing(_open(file)) as database:
                return [
                    Outcome("integrity_check is ok", is_met=True),
                    *judge_all(assertions, query=lambda sql: _first(database, sql), estimates=estimates),
                ]
        finally:
            _remove(file)

    def sweep(self, work: Work) -> list[str]:
        return []

    def recipe(self, name: str) -> str:
        return f"cat > {name} && sqlite3 {name} 'PRAGMA integrity_check'"


def _open(path: str, how: str = "") -> sqlite3.Connection:
    """Open for reading; a missing file is an error, never a new database."""
    return sqlite3.connect(f"file:{quote(path)}?mode=ro{how}", uri=True, timeout=_BUSY_S, check_same_thread=False)


def _at_rest(path: str) -> tuple[int, ...] | None:
    """What changes with every write to a database; None while somebody has it open with a log."""
    if os.path.lexists(f"{path}-wal"):
        return None
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def check_integrity(file: str) -> None:
    """Raise Damaged unless SQLite finds the whole file right."""
    try:
        with closing(_open(file)) as database:
            found = [row[0] for row in database.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        raise Damaged(f"is no SQLite database: {error}") from error
    if found != ["ok"]:
        raise Damaged(f"integrity_check: {'; '.join(map(str, found))}")


def count_rows(file: str) -> dict[str, int]:
    """Rows by table, for as many tables as can be counted quickly."""
    rows: dict[str, int] = {}
    ends_at = time.monotonic() + _COUNTING_S
    try:
        with closing(_open(file)) as database:
            database.set_progress_handler(lambda: int(time.monotonic() > ends_at), 10_000)
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if not table.startswith("sqlite_"):
                    # In quotes, a dot of the name is no separator.
                    name = '"' + table.replace('"', '""') + '"'
                    rows[table] = database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - quoted
    except sqlite3.Error:
        pass  # interrupted, or a virtual table of a module that we lack: the others' estimates stand
    return rows


def _first(database: sqlite3.Connection, sql: str) -> str | None:
    try:
        row = database.execute(sql).fetchone()
    except sqlite3.Error as error:
        raise ValueError(str(error)) from error
    return None if row is None or row[0] is None else str(row[0])


def _set_aside(file: str) -> None:
    """Move a database away with its log, which would be taken for that of the next one in its place."""
    aside = f"{file}.before-{secrets.token_hex(3)}"
    for suffix in ("", *_SIDE_FILES):
        with suppress(FileNotFoundError):
            os.rename(file + suffix, aside + suffix)


def _remove(file: str) -> None:
    for name in (file, *(file + suffix for suffix in _SIDE_FILES)):
        _remove_one(name)


def _remove_one(name: str) -> None:
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass
