"""The files of the state directory, read from the disk whether or not an agent runs, and the room they have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from agent.core.units import format_size
from agent.doctor.facts import Facts
from agent.doctor.finding import Finding
from alerting.book import MIGRATIONS as ALERTS
from sinks.history.history import DIRECTORY as HISTORY_DIRECTORY
from sinks.history.history import FILE_NAME as HISTORY_FILE
from sinks.history.schema import MIGRATIONS as HISTORY
from sinks.journal.segment import base_of, is_newer

_ALERTS_FILE: Final = "alerts.sqlite"
_JOURNAL: Final = "journal"
_DATABASES: Final = (
    (os.path.join(HISTORY_DIRECTORY, HISTORY_FILE), len(HISTORY), "history"),
    (_ALERTS_FILE, len(ALERTS), "alerts"),
)
_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_VERSION_AT: Final = 60  # of `user_version` in the header: big-endian, 4 bytes; reading it takes no lock


def versions(facts: Facts) -> Iterator[Finding]:
    """Files that a newer version wrote, and those set aside because they could not be read."""
    for name, newest, what in _DATABASES:
        yield from _database(facts, name, newest, what)
    newer = [name for name in _listed(facts.in_state(_JOURNAL)) if base_of(name) and is_newer(_head(facts, name))]
    if newer:
        yield Finding("fail", "journal", f"{', '.join(newer)}: written by a newer version and left alone",
                      "install that version again, or delete the files: what no sink has taken is in them")  # fmt: skip
    aside = [
        os.path.join(directory, name)
        for directory in (facts.state_dir, facts.in_state(_JOURNAL), facts.in_state(HISTORY_DIRECTORY))
        for name in sorted(_listed(directory))
        if ".corrupt" in name and not name.endswith(("-wal", "-shm"))
    ]
    for path in aside:
        yield Finding("warn", "state directory", f"{path}: was unreadable and set aside",
                      "look at the disk's health (`dmesg`), then delete it")  # fmt: skip


def _database(facts: Facts, name: str, newest: int, what: str) -> Iterator[Finding]:
    path = facts.in_state(name)
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Finding("unknown", what, f"{path}: {(error.strerror or str(error)).lower()}", "run as root")
        return
    version = int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4], "big")
    if header and not header.startswith(_SQLITE_MAGIC):
        yield Finding("fail", what, f"{path}: is no SQLite file", "the agent sets it aside at its next start")
    elif version > newest:
        yield Finding("fail", what, f"{path}: has schema {version}, this version knows {newest}: a newer agent wrote "
                      "it, and this one leaves it alone",
                      f"install the newer version again, or move {path} away")  # fmt: skip


def _head(facts: Facts, name: str) -> bytes:
    try:
        with open(os.path.join(facts.in_state(_JOURNAL), name), "rb") as file:
            return file.read(64)
    except OSError:
        return b""


def left_behind(facts: Facts) -> Iterator[Finding]:
    """Without an agent: when it last wrote, and how much waits for its sinks."""
    if facts.is_running:
        return
    directory = facts.in_state(_JOURNAL)
    sizes, newest = 0, 0.0
    for name in _listed(directory):
        try:
            found = os.stat(os.path.join(directory, name))
        except OSError:
            continue
        if base_of(name):
            sizes += found.st_size
            newest = max(newest, found.st_mtime)
    if newest:
        yield Finding("note", "journal", f"{format_size(sizes)} wait in {directory}, last written {facts.ago(newest)}")


def room(facts: Facts) -> Iterator[Finding]:
    """Free space where the state is, against what the caps let the agent take."""
    path = _nearest(facts.state_dir)
    try:
        found = os.statvfs(path)
    except OSError as error:
        yield Finding("unknown", "disk", f"{path}: {(error.strerror or str(error)).lower()}", "run as root")
        return
    limits, past = facts.settings.journal, facts.settings.history
    free, used = found.f_bavail * found.f_frsize, _size(facts.state_dir)
    most = limits.max_bytes + (past.max_disk if past.enabled else 0)
    text = f"{_rough(free)} free at {facts.state_dir}, which holds {_rough(used)}"
    if free < limits.min_free_bytes:
        yield Finding("fail", "disk", f"{text}; below {format_size(limits.min_free_bytes)} the journal drops its "
                      "oldest readings", "make room, or lower journal.min_free_bytes")  # fmt: skip
    elif free < limits.min_free_bytes + max(0, most - used):
        yield Finding("warn", "disk", f"{text} and may grow to {format_size(most)}",
                      "make room, or lower journal.max_bytes and history.max_disk")  # fmt: skip
    else:
        yield Finding("ok", "disk", text)
    if found.f_files and found.f_favail < 1000:
        yield Finding("fail", "disk", f"{found.f_favail} inodes free at {facts.state_dir}", "delete small files")
    if found.f_flag & os.ST_RDONLY:
        yield Finding("fail", "disk", f"{facts.state_dir} is mounted read-only", "look at `dmesg`, then remount it")


def _nearest(path: str) -> str:
    """The directory, or the one above that exists."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _rough(size: int) -> str:
    """Bytes with one decimal, also where a smaller unit would be exact."""
    return format_size(size | 1) if size else "nothing"


def _size(directory: str) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue  # gone meanwhile
    return total


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
