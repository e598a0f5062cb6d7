"""Lines a sink will never take, kept for a person to look at: one JSON object a line, capped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_CHUNKS = 16  # of the newer file: written one by one, so that much at once keeps its newest part


@dataclass(slots=True)
class DeadLetters:
    """`path` holds the newest letters, `path`.1 the ones before; together at most `max_bytes`."""

    path: str
    max_bytes: int = 8 * 2**20

    def add(self, lines: Iterable[str], reason: str, time_ns: int) -> None:
        """Append lines. A file that cannot be written loses the letter, not the agent: they are counted elsewhere."""
        most = max(self.max_bytes // 2 // _CHUNKS, 1)
        chunk = b""
        try:
            for line in lines:
                letter = json.dumps({"time": time_ns // 10**9, "reason": reason, "line": line}).encode() + b"\n"
                if chunk and len(chunk) + len(letter) > most:
                    self._append(chunk)
                    chunk = b""
                chunk += letter
            self._append(chunk)
        except OSError:
            pass

    def _append(self, letters: bytes) -> None:
        """Whole lines, or none of them after the last that is whole. Raise OSError."""
        if len(letters) > self.max_bytes // 2:
            return  # a single letter beyond the cap, which is there to be kept
        size = self._rotated(len(letters))
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            try:
                while written < len(letters):  # a nearly full disk takes a part
                    taken = os.write(handle, letters[written:])
                    if not taken:
                        raise OSError(errno.EIO, "the file system took no bytes and gave no error")
                    written += taken
            except OSError:
                os.ftruncate(handle, size + letters.rfind(b"\n", 0, written) + 1)
                raise
        finally:
            os.close(handle)

    def _rotated(self, coming: int) -> int:
        """The size of the file that has room for what comes. Raise OSError."""
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return 0
        if size + coming <= self.max_bytes // 2:
            return size
        os.replace(self.path, f"{self.path}.1")
        return 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Every letter, oldest first; a torn line (the power went) is passed over."""
        for path in (f"{self.path}.1", self.path):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    for line in file:
                        try:
                            yield json.loads(line)
                        except ValueError:
                            continue
            except FileNotFoundError:
                continue
