"""What a target is: a flat store of named objects that never shows half of one.

Names are paths of plain words (`web1/postgres/20260102T030000Z-1a2b3c/orders.dump.zst`). The core decides them, and in
which order things become visible; a target only keeps, lists, gives back and deletes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, ClassVar, Protocol

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@=%+,-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MOST_WORD = 120  # bytes; file systems take 255, and suffixes come


def check_name(name: str) -> None:
    """Raise ValueError unless every word of the path is plain: no `..`, nothing hidden, nothing empty."""
    if len(name) > 900 or not all(_PLAIN.fullmatch(word) for word in name.split("/")):
        raise ValueError(f"{name[:100]!r} is no name of a stored object")


def safe_word(text: str) -> str:
    """Any text (a database's name) as one plain word, different texts as different words where they are short."""
    word = _UNSAFE.sub(lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), text)
    if word.startswith((".", "-")):
        word = f"%{ord(word[0]):02x}{word[1:]}"
    if not word or len(word) > _MOST_WORD:
        import hashlib

        word = f"{word[: _MOST_WORD - 17]}={hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return word if _PLAIN.fullmatch(word) else f"_{word}"


class Upload(Protocol):
    """One object on its way; nobody sees it before `commit`."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raise TargetFailed."""
        ...

    def finish(self) -> None:
        """All has been written: make it survive a power failure, still under a temporary name. Raise TargetFailed."""
        ...

    def reread(self) -> BinaryIO:
        """What was kept, from its beginning, from the medium rather than a cache where that can be had.

        Only for targets that are near; the others raise TargetFailed.
        """
        ...

    def commit(self) -> None:
        """Give it its name, lastingly. Raise TargetFailed."""
        ...

    def abort(self) -> None:
        """Drop it; never raises, and does nothing after `commit`."""
        ...


class Target(Protocol):
    """A place for copies. Options are dataclass fields. Every method may block and raises TargetFailed.

    One that starts programs has a field `guard` beside them, which a run gives: they end with it. One that can tell
    what it may not do there, and a backup can do without, has a method `lacks() -> list[str]` for `backup doctor`.
    """

    # Near: reading back costs no more than a disk's time, so every run does (`Upload.reread`). Far: `Upload.finish` has
    # the other side confirm size and checksum, which counts as read back; downloading is for level 3.
    is_near: ClassVar[bool]

    def check(self) -> None:
        """Raise TargetFailed when it cannot be used now: asked before the source is read."""
        ...

    def begin(self, name: str) -> Upload:
        """Start an object. An object of that name must not exist."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Store a small object whole, replacing one of that name; either the old or the new one is there always."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Names of the objects below `prefix` (a directory, without the slash at its end), in any order."""
        ...

    def open(self, name: str) -> BinaryIO:
        """An object's bytes. Raise Absent when there is none: that speaks against a copy, a broken line does not."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def sweep(self, prefix: str) -> list[str]:
        """Remove what killed uploads left below `prefix`; what was removed. Nobody else writes there now."""
        ...

    def free_bytes(self) -> int | None:
        """Space for us; None where the target has no such limit."""
        ...

    def directories(self) -> list[str]:
        """Directories of this host that it writes to, so that whoever shuts it in can let it."""
        ...

    def fetch_command(self, name: str) -> list[str]:
        """The plain command that writes an object to standard output: for the recipe."""
        ...
