"""Lines a sink will never take, kept for a person to look at: one JSON object a line, capped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class DeadLetters:
    """`path` holds the newest letters, `path`.1 the ones before; together at most `max_bytes`."""

    path: str
    max_bytes: int = 8 * 2**20

    def add(self, lines: Iterable[str], reason: str, time_ns: int) -> None:
        """Append lines. A file that cannot be written loses the letter, not the agent: they are counted elsewhere."""
        letters = [json.dumps({"time": time_ns // 10**9, "reason": reason, "line": line}) for line in lines]
        text = "".join(f"{letter}\n" for letter in letters).encode()
        try:
            self._rotate(len(text))
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, text)
            finally:
                os.close(handle)
        except OSError:
            pass

    def _rotate(self, coming: int) -> None:
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return
        if size + coming > self.max_bytes // 2:
            os.replace(self.path, f"{self.path}.1")

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
