"""The tables of the history file. A script is never changed once released; what is new is a further script."""

from __future__ import annotations

from typing import Final

_FIRST: Final = """
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL, last_ms INTEGER NOT NULL);
CREATE TABLE series (id INTEGER PRIMARY KEY, source INTEGER NOT NULL, labels TEXT NOT NULL);
CREATE TABLE layout (
    id INTEGER PRIMARY KEY, tier INTEGER NOT NULL, source INTEGER NOT NULL, series BLOB NOT NULL,
    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL
);
CREATE TABLE block (
    id INTEGER PRIMARY KEY, tier INTEGER NOT NULL, source INTEGER NOT NULL, layout INTEGER NOT NULL,
    since_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    rows INTEGER NOT NULL, samples INTEGER NOT NULL, bytes INTEGER NOT NULL,
    times BLOB NOT NULL, constants BLOB NOT NULL
);
CREATE INDEX block_place ON block (tier, source, last_ms);
CREATE INDEX block_age ON block (tier, first_ms);
CREATE TABLE part (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE pending (tier INTEGER NOT NULL, start_ms INTEGER NOT NULL, PRIMARY KEY (tier, start_ms)) WITHOUT ROWID
"""
_METRICS: Final = """
CREATE TABLE metric (name TEXT PRIMARY KEY, type TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL) WITHOUT ROWID
"""

MIGRATIONS: Final = (_FIRST, _METRICS)
PARTS_PER_BLOCK: Final = 65_536  # a part's id is its block's times this, plus its place
PAGE_BYTES: Final = 4096
