"""One object on its way to a bucket, in parts and without a temporary file."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from backup.errors import TargetFailed

if TYPE_CHECKING:
    from backup.targets.s3 import S3

MOST_PARTS = 10_000  # of one object: the protocol's limit
_AT_ONCE = 2  # parts on their way at the same time
_QUEUED = 2  # reads that wait for the part they belong to
_LOOK_S = 0.2  # how often a full queue looks whether its reader still lives


class S3Upload:
    """An object on its way: kept here while it fits into one part, then streamed by a thread."""

    def __init__(self, place: S3, name: str) -> None:
        self._place = place
        self._name = name
        self._size = 0
        self._first: list[bytes] = []
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._thread: threading.Thread | None = None
        self._error: TargetFailed | None = None
        self._is_over = False
        self._is_aborted = False

    def write(self, chunk: bytes) -> None:
        if not chunk:
            return
        self._size += len(chunk)
        if self._size > MOST_PARTS * self._place.part_size:
            raise TargetFailed(f"{self._shown}: does not fit into {MOST_PARTS} parts; raise part_size")
        if self._thread is not None:
            self._give(chunk)
            return
        self._first.append(chunk)
        if self._size > self._place.part_size:
            self._thread = threading.Thread(target=self._send, name=f"upload of {self._name}", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Nothing of it is visible, and the last part is not sent, before `commit`."""

    def reread(self) -> BinaryIO:
        raise TargetFailed(f"{self._shown}: is far away; the server compared checksums")

    def commit(self) -> None:
        """Complete it, and have the server say how much it has."""
        if self._thread is None:
            self._put_whole()
        else:
            self._give(None)
            self._thread.join()
            if self._error is not None:
                raise self._error
        self._is_over = True
        found = self._place.size(self._name)
        if found != self._size:
            self._place.delete(self._name)
            raise TargetFailed(f"{self._shown}: the server has {found} bytes of {self._size}")

    def abort(self) -> None:
        if self._is_over:
            return
        self._is_over = self._is_aborted = True
        self._first.clear()
        if self._thread is not None:
            # The sender notices within a moment, and takes back what it sent.
            self._thread.join(self._place.timeout)

    @property
    def _shown(self) -> str:
        return self._place.shown(self._name)

    def _put_whole(self) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode = "create" if self._place.refuse_overwrite else "overwrite"
        with self._place.as_failure(self._name):
            try:
                obstore.put(self._place.store(), self._place.key(self._name), b"".join(self._first),
                            mode=mode, use_multipart=False)  # type: ignore[arg-type]  # fmt: skip
            except (AlreadyExistsError, PreconditionError):
                raise TargetFailed(f"{self._shown}: is there already; nothing is overwritten") from None
        self._first.clear()

    def _give(self, chunk: bytes | None) -> None:
        """Queue a chunk, None for the end. Raise what ended the sender."""
        assert self._thread is not None
        while True:
            if self._error is not None:
                raise self._error
            if not self._thread.is_alive():
                raise TargetFailed(f"{self._shown}: the upload has ended")
            try:
                self._queue.put(chunk, timeout=_LOOK_S)
                return
            except queue.Full:
                continue

    def _send(self) -> None:
        import obstore

        place = self._place
        try:
            with place.as_failure(self._name):
                obstore.put(place.store(), place.key(self._name), self._chunks(), use_multipart=True,
                            chunk_size=place.part_size, max_concurrency=_AT_ONCE)  # fmt: skip
        except TargetFailed as error:
            self._error = error
        except _Aborted:
            pass  # the library has taken back what was sent

    def _chunks(self) -> Iterator[bytes]:
        while self._first:
            yield self._first.pop(0)
        while True:
            if self._is_aborted:
                raise _Aborted
            try:
                chunk = self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if chunk is None:
                return
            yield chunk


class _Aborted(Exception):
    """The upload is not wanted any more."""
