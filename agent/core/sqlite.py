"""SQLite files that always open: pragmas, schema versions, corrupt files set aside, full disks told from broken ones.

The schema version is `PRAGMA user_version`: the number of migrations a file has been through.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.errors import VigilhostError

_HEADER: Final = b"SQLite format 3\0"
_MOST_VERSIONS: Final = 255  # a schema beyond is a flipped bit
_COMPANIONS: Final = ("", "-wal", "-shm")
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSED: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    }
)


class NewerSchemaError(VigilhostError):
    """The file was written by a newer version; it is left as it is."""


class UnavailableError(VigilhostError):
    """The disk does not take or give the file now (full, read-only, no permission); later it may."""


@dataclass(slots=True)
class Opened:
    """An open file. `set_aside`: the new name of the unreadable one found in its place, "" when there was none."""

    connection: sqlite3.Connection
    set_aside: str = ""


def is_corrupt(error: sqlite3.Error) -> bool:
    """Is the file itself damaged, so that only another file helps?"""
    return _primary_code(error) in _CORRUPT


def is_refused(error: sqlite3.Error) -> bool:
    """Does the disk or the system refuse, so that the same may work later?"""
    return _primary_code(error) in _REFUSED


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def open_database(
    path: str, migrations: Sequence[str], *, page_bytes: int = 4096, cache_kib: int = 512, label: str
) -> Opened:
    """Open or make the file for writing, brought to the newest schema; `label` names it in errors.

    Each migration is a script; it and the version it leads to are committed together. A corrupt file is renamed and an
    empty one made. Raise NewerSchemaError or UnavailableError.
    """
    set_aside = ""
    try:
        try:
            connection = _connect(path, len(migrations), page_bytes, cache_kib, label)
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            set_aside = put_aside(path)
            connection = _connect(path, len(migrations), page_bytes, cache_kib, label)
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(error, path, label) from error
    try:
        _migrate(connection, migrations)
    except sqlite3.DatabaseError as error:
        connection.close()
        if set_aside or not is_corrupt(error):
            raise _unavailable(error, path, label) from error
        put_aside(path)
        again = open_database(path, migrations, page_bytes=page_bytes, cache_kib=cache_kib, label=label)
        return Opened(again.connection, _newest_aside(path))
    return Opened(connection, set_aside)


def _unavailable(error: Exception, path: str, label: str) -> UnavailableError:
    reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else error
    return UnavailableError(f"{label}: {path}: {reason}; make room, or let the agent write there")


def open_reader(path: str, cache_kib: int = 512) -> sqlite3.Connection:
    """A connection that cannot write, for another thread or process. Raise sqlite3.Error."""
    connection = sqlite3.connect(
        f"file:{_escaped(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection


def put_aside(path: str) -> str:
    """Rename the file and its companions to a free name ending in `.corrupt-<number>`; that name. Raise OSError."""
    number = 1
    while os.path.exists(aside := f"{path}.corrupt-{number}"):
        number += 1
    for suffix in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    return aside


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use; free pages inside the file do not count, for they are used again."""
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(size * (pages - free))


def file_bytes(path: str) -> int:
    """Bytes of the file and its companions on disk; 0 where there is none."""
    total = 0
    for suffix in _COMPANIONS:
        with contextlib.suppress(OSError):
            total += os.stat(path + suffix).st_size
    return total


def _escaped(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _newest_aside(path: str) -> str:
    number = 1
    while os.path.exists(f"{path}.corrupt-{number + 1}"):
        number += 1
    return f"{path}.corrupt-{number}"


def _connect(path: str, newest: int, page_bytes: int, cache_kib: int, label: str) -> sqlite3.Connection:
    _refuse_foreign(path)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # never readable by others, not for a moment
    os.close(handle)
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _MOST_VERSIONS:
            raise _not_a_database(f"schema {version}")
        if version > newest:
            raise NewerSchemaError(
                f"{label}: {path}: schema {version}, written by a newer version; this one knows {newest}; "
                "upgrade, or move the file away"
            )
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute(f"PRAGMA page_size = {page_bytes}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        connection.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(path: str) -> None:
    """SQLite takes a file shorter than its header for an empty one and would write over it."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_HEADER))
    except FileNotFoundError:
        return
    if head and head != _HEADER:
        raise _not_a_database("no header")


def _not_a_database(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(f"file is not a database: {found}")
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
