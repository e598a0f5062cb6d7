"""A file to be read made of the chunks that something brings: a download, a program's output."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast


class _StreamReader(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self._close = close
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Exactly `size` bytes unless the end comes first, as a file on disk does it; -1 is all."""
        pieces: list[bytes] = []
        while size:
            if not self._rest:
                chunk = next(self._chunks, b"")
                if not chunk:
                    break
                self._rest = memoryview(chunk)
            taken = self._rest if size < 0 else self._rest[:size]
            self._rest = self._rest[len(taken) :]
            pieces.append(bytes(taken))
            size -= len(taken) if size > 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._close()


def stream_reader(chunks: Iterator[bytes], close: Callable[[], None]) -> BinaryIO:
    """Chunks, none of them empty, as a file. What the iterator raises comes out of `read`; `close` is called once."""
    return cast(BinaryIO, _StreamReader(chunks, close))
