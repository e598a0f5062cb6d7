"""The history in a state directory, read without changing anything there."""

from __future__ import annotations

import os
import sqlite3
import threading

from agent.core import sqlite
from agent.core.clock import SystemClock
from sinks.history.chunks import DamagedError
from sinks.history.head import Head
from sinks.history.history import FILE_NAME, History, tell_nobody
from sinks.history.naming import Names
from sinks.history.options import HistoryOptions
from sinks.history.series import Registry
from sinks.history.store import Store


class NothingKeptError(Exception):
    """There is no history in that directory, or it cannot be read; the text says why."""


class _ReadOnlyStore(Store):
    """The file as it is: no migration, no repair."""

    def open(self) -> dict[str, int]:
        """As Store's. Raise sqlite3.Error, DamagedError or ValueError."""
        self.db = sqlite.open_reader(self.path)
        return self._load(self.db)


class KeptHistory(History):
    """A History that can only be asked. What its agent had in memory when it was killed is in the journal, not here."""

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, FILE_NAME)
        if not os.path.exists(path):
            raise NothingKeptError(f"{path}: no such file")
        self.options = HistoryOptions()
        self._clock = SystemClock()
        self._tell = tell_nobody
        self._registry = Registry(2**31)
        self._names = Names("", "")
        self._head = Head(self._registry, self._names, 0, 0)
        self._store = _ReadOnlyStore(path, self._registry, tell_nobody)
        self._writing = threading.Lock()
        try:
            self._store.open()
        except (sqlite3.Error, OSError, DamagedError, ValueError) as error:
            raise NothingKeptError(f"{path}: {error}") from error

    def write(self) -> bool:
        """Nothing is ever new here."""
        return True
