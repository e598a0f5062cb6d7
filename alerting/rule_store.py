"""The alerts of all rules in SQLite, so that a restart forgets none: phase, since when, labels, annotations.

One table beside those of the outbox, on the same connection, so that an alert's change and the message about it are
one transaction. Not thread-safe: one owner.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from agent.core.labels import Labels
from alerting.state import Instance

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rule_alerts (
    rule TEXT NOT NULL, labels TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (rule, labels)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rule_clock (id INTEGER PRIMARY KEY CHECK (id = 1), seen_at REAL NOT NULL) STRICT;
"""
_TIMES: Final = ("active_at", "fired_at", "resolved_at", "absent_since", "stale_since")


@dataclass(frozen=True, slots=True)
class Saved:
    """What was kept. `seen_at`: the last evaluation that was noted, None before the first. `damaged`: rows dropped."""

    alerts: dict[str, list[Instance]]
    seen_at: float | None
    damaged: int = 0


class RuleStore:
    """Keeps what `Engine.snapshot` gives; writes only what differs from last time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` has isolation_level=None; transactions are the caller's. Raise sqlite3.Error."""
        self._db = connection
        self._db.executescript(SCHEMA)
        self._kept: dict[tuple[str, Labels], Instance] = {}

    def load(self) -> Saved:
        """Everything kept. Raise sqlite3.Error."""
        found: dict[str, list[Instance]] = {}
        damaged = 0
        for rule, labels, state in self._db.execute("SELECT rule, labels, state FROM rule_alerts").fetchall():
            try:
                instance = _decoded(labels, state)
            except (ValueError, TypeError, KeyError):
                damaged += 1
                self._db.execute("DELETE FROM rule_alerts WHERE rule = ? AND labels = ?", (rule, labels))
                continue
            self._kept[rule, instance.labels] = _essence(instance)
            found.setdefault(rule, []).append(instance)
        row = self._db.execute("SELECT seen_at FROM rule_clock").fetchone()
        return Saved(found, row[0] if row else None, damaged)

    def save(self, snapshot: Mapping[str, Mapping[Labels, Instance]], at: float) -> int:
        """Write what has changed; how many alerts that were. Raise sqlite3.Error, then the next time writes it.

        The moment is noted while any alert is pending: only its clock depends on how long nobody looked.
        """
        now = {(rule, labels): one for rule, found in snapshot.items() for labels, one in found.items()}
        changed = [key for key, one in now.items() if _differs(self._kept.get(key), one)]
        gone = [key for key in self._kept if key not in now]
        is_counting = any(one.phase == "pending" or one.absent_since is not None for one in now.values())
        if not (changed or gone or is_counting):
            return 0
        with _Transaction(self._db):
            self._db.executemany(
                "INSERT OR REPLACE INTO rule_alerts (rule, labels, state) VALUES (?, ?, ?)",
                [(rule, _text(labels), _encoded(now[rule, labels])) for rule, labels in changed],
            )
            self._db.executemany(
                "DELETE FROM rule_alerts WHERE rule = ? AND labels = ?",
                [(rule, _text(labels)) for rule, labels in gone],
            )
            self._db.execute("INSERT OR REPLACE INTO rule_clock (id, seen_at) VALUES (1, ?)", (at,))
        for key in changed:
            self._kept[key] = _essence(now[key])
        for key in gone:
            del self._kept[key]
        return len(changed) + len(gone)

    def forget(self) -> None:
        """The transaction around `save` was rolled back: the next one writes everything."""
        self._kept = {key: replace(one, phase="resolved", active_at=-1.0) for key, one in self._kept.items()}


class _Transaction:
    """All or nothing; inside another transaction, part of that one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._is_ours = not connection.in_transaction

    def __enter__(self) -> None:
        if self._is_ours:
            self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if self._is_ours and self._db.in_transaction:
            self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _essence(one: Instance) -> Instance:
    """The alert without what changes at every evaluation and is asked for anew after a restart."""
    return replace(one, value=0.0, annotations=())


def _differs(kept: Instance | None, now: Instance) -> bool:
    if kept is None or kept.phase != now.phase:
        return True
    return any(getattr(kept, name) != getattr(now, name) for name in _TIMES)


def _text(labels: Labels) -> str:
    return json.dumps(labels)  # ASCII, so that bytes that are no UTF-8 come back as they were


def _encoded(one: Instance) -> str:
    return json.dumps({field.name: getattr(one, field.name) for field in fields(one) if field.name != "labels"})


def _decoded(labels: str, state: str) -> Instance:
    """Raise ValueError, TypeError or KeyError for what is none of ours."""
    given: dict[str, Any] = json.loads(state)
    times = {name: None if given[name] is None else float(given[name]) for name in _TIMES}
    if given["phase"] not in ("pending", "firing", "resolved") or times["active_at"] is None:
        raise ValueError("no alert")
    active_at = float(given["active_at"])
    return Instance(
        _pairs(json.loads(labels)), _pairs(given["annotations"]), float(given["value"]), given["phase"], active_at,
        times["fired_at"], times["resolved_at"], times["absent_since"], times["stale_since"],
    )  # fmt: skip


def _pairs(given: Any) -> Labels:
    return tuple((str(name), str(value)) for name, value in given)
