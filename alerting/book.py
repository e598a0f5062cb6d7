"""The file in which alerting keeps everything: messages, decisions, alerts of rules, groups, silences.

A full disk is what people most want to be told about, so a file that takes nothing is left for memory, with all that
could still be read from it, and taken up again as soon as it can be written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

from agent.core import sqlite
from agent.core.errors import VigilhostError
from alerting import decision_log, outbox, rule_store
from alerting.older_outbox import take_in

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS desk (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
MIGRATIONS: Final = (outbox.SCHEMA + decision_log.SCHEMA + rule_store.SCHEMA + _SCHEMA,)
_PAGE_BYTES: Final = 4096
_HOME_AGAIN_S: Final = 60.0  # between two tries to write the file again


class Book:
    """A connection that can always be written. `trouble`: why it is memory only, "" while it is the file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.set_aside = ""  # the new name of an unreadable file found in its place
        self.trouble = ""
        self._home_again_at = 0.0
        self._has_copy = True  # memory has all that the file had
        self.silences_at_home = b""  # those of a file that could not be read while it was away, to be taken up
        self.connection: sqlite3.Connection
        try:
            self.connection = self._open()
        except VigilhostError as error:
            self.connection, self.trouble, self._has_copy = _memory(), str(error), False

    def _open(self) -> sqlite3.Connection:
        opened = sqlite.open_database(self.path, MIGRATIONS, page_bytes=_PAGE_BYTES, label="alerts")
        self.set_aside = opened.set_aside or self.set_aside
        return opened.connection

    def read(self, name: str) -> bytes:
        """What was kept under a name; empty where nothing was. Raise sqlite3.Error."""
        row = self.connection.execute("SELECT value FROM desk WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def write(self, name: str, value: bytes) -> None:
        """Keep `value` under a name. Raise sqlite3.Error."""
        self.connection.execute("INSERT OR REPLACE INTO desk (name, value) VALUES (?, ?)", (name, value))

    def leave(self, error: sqlite3.Error) -> bool:
        """The file failed with `error`: go on with a new connection. False when it is no fault of the file."""
        if self.trouble or not (sqlite.is_refused(error) or sqlite.is_corrupt(error)):
            return False
        try:
            memory, self._has_copy = _copy(self.connection), True
        except sqlite3.Error:
            memory, self._has_copy = _memory(), False
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self.connection, self.trouble = memory, f"alerts: {self.path}: {error}"
        if sqlite.is_corrupt(error):
            with contextlib.suppress(OSError):
                self.set_aside = sqlite.put_aside(self.path)
        return True

    def come_home(self, now: float) -> bool:
        """Try to write everything into the file again, now and then. True when that is where the connection is now."""
        if not self.trouble or 0.0 <= self._home_again_at - now <= _HOME_AGAIN_S:
            return False
        self._home_again_at = now + _HOME_AGAIN_S
        try:
            file = self._open()
        except VigilhostError as error:
            self.trouble = str(error)
            return False
        try:
            if not self._has_copy:
                self._take_in(file)
            self.connection.backup(file)
        except sqlite3.Error as error:
            self.trouble = f"alerts: {self.path}: {error}"
            file.close()
            return False
        self.connection.close()
        self.connection, self.trouble = file, ""
        return True

    def _take_in(self, file: sqlite3.Connection) -> None:
        """What the file has and memory could not be given, before it is written over. Raise sqlite3.Error."""
        take_in(file, self.connection)
        row = file.execute("SELECT value FROM desk WHERE name = 'silences'").fetchone()
        self.silences_at_home = bytes(row[0]) if row else b""
        self._has_copy = True

    def close(self) -> None:
        self.connection.close()


def _memory() -> sqlite3.Connection:
    """An empty database in memory."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    memory.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    memory.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = {len(MIGRATIONS)};")
    return memory


def _copy(source: sqlite3.Connection) -> sqlite3.Connection:
    """All of `source` in memory. Raise sqlite3.Error when it cannot be read."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        source.backup(memory)
        memory.execute("SELECT count(*) FROM desk").fetchone()
    except sqlite3.Error:
        memory.close()
        raise
    return memory
