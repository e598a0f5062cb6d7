"""Every decision as a sentence: what `vigilhost alerts log` shows. Not thread-safe; transactions are the caller's."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from alerting.kept_message import clean

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, receiver TEXT NOT NULL, group_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL, sentence TEXT NOT NULL
) STRICT;
"""


class Entry(NamedTuple):
    """A line of it. `at`: Unix seconds; the others are empty where a decision concerns none."""

    at: float
    receiver: str
    group_key: str
    fingerprint: str
    sentence: str


class DecisionLog:
    """Over a table of its own in the file of the outbox."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._db.executescript(SCHEMA)

    def say(self, at: float, receiver: str, group_key: str, sentence: str, fingerprint: str = "") -> None:
        """Add a line. Raise sqlite3.Error."""
        values = tuple(clean(one) for one in (receiver, group_key, fingerprint, sentence))
        self._db.execute(
            "INSERT INTO decisions (at, receiver, group_key, fingerprint, sentence) VALUES (?, ?, ?, ?, ?)",
            (at, *values),
        )

    def latest(self, limit: int = 100, receiver: str | None = None, since: float = 0.0) -> list[Entry]:
        """The latest lines, oldest first. Raise sqlite3.Error."""
        rows = self._db.execute(
            "SELECT at, receiver, group_key, fingerprint, sentence FROM decisions"
            " WHERE at >= ? AND (? IS NULL OR receiver = ?) ORDER BY id DESC LIMIT ?",
            (since, receiver, receiver, limit),
        )
        return [Entry(*row) for row in rows][::-1]

    def prune(self, oldest: float, most: int) -> None:
        """Forget what was before `oldest` and what is more than so many. Raise sqlite3.Error."""
        self._db.execute(
            "DELETE FROM decisions WHERE at < ? OR id <= (SELECT max(id) FROM decisions) - ?", (oldest, most)
        )
