"""Messages that wait in the file of an outbox which could not be read while another took its place."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import msgspec

from alerting.kept_message import decode, encode
from alerting.notify.merge import merged

_Row = tuple[str, str, str, bytes, int, float, float]


def take_in(older: sqlite3.Connection, newer: sqlite3.Connection) -> None:
    """What waits or was under way in the older outbox waits in the newer, unless its group has had news there.

    Raise sqlite3.Error.
    """
    rows: list[_Row] = older.execute(
        "SELECT message_id, receiver, group_key, payload, attempts, created_at, next_try_at FROM messages"
        " WHERE state IN ('queued', 'sending') ORDER BY id"
    ).fetchall()
    for row in rows:
        _take_in(row, newer)


def _take_in(row: _Row, outbox: sqlite3.Connection) -> None:
    _, receiver, group_key, payload, _, created_at, _ = row
    known = outbox.execute(
        "SELECT id, payload, state FROM messages WHERE receiver = ? AND group_key = ? ORDER BY id DESC",
        (receiver, group_key),
    ).fetchone()
    if known is None:
        outbox.execute(
            "INSERT INTO messages (message_id, receiver, group_key, payload, attempts, created_at, next_try_at, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 'queued')",
            row,
        )
    elif known[2] == "queued":
        with suppress(msgspec.DecodeError):  # then the newer one goes as it is
            both = encode(merged(decode(payload), decode(known[1])))
            outbox.execute(
                "UPDATE messages SET payload = ?, created_at = min(created_at, ?) WHERE id = ?",
                (both, created_at, known[0]),
            )
