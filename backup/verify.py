"""How far a backup is proved: 0 sizes and exit statuses, 1 read back, 2 decoded, 3 downloaded from far targets."""

from __future__ import annotations

import hashlib
import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeVar

from backup.coding import Coding, decode_steps
from backup.errors import Absent, BackupError, Damaged, Refused, TargetFailed, Undecodable
from backup.manifest import Archive, Manifest
from backup.pipeline import Decoder
from backup.relay import READ_BYTES
from backup.source import Source, Work
from backup.target import Target

T = TypeVar("T")
_NOT_ITS_KEY = "no identity matched any of the recipients"  # in age's words
_LEAST_HISTORY = 3  # backups from which a median says something


def shrunk(name: str, raw_bytes: int, earlier: Sequence[Manifest], by_percent: float) -> str | None:
    """A warning when an archive is smaller than the median of the earlier ones by so much; None when all is well."""
    complete = [backup for backup in earlier[-20:] if backup.is_complete]
    sizes = [one.raw_bytes for backup in complete for one in backup.archives if one.name == name]
    if len(sizes) < _LEAST_HISTORY:
        return None
    median = statistics.median(sizes)
    if raw_bytes >= median * (1 - by_percent / 100):
        return None
    less = 100 - 100 * raw_bytes / median
    return f"{name}: {raw_bytes} bytes, {less:.0f}% less than the median of {len(sizes)} earlier ones"


def reread(file: BinaryIO, size: int, sha256: str, decoder: Decoder[T] | None, work: Work) -> None:
    """Read what is stored to its end, hash it, and give it to `decoder`. Raise Damaged, TargetFailed, Stopped."""
    digest = hashlib.sha256()
    seen = 0
    try:
        while chunk := _read(file):
            work.guard.check()
            digest.update(chunk)
            seen += len(chunk)
            if decoder is not None:
                decoder.write(chunk)
        check_digest(seen, digest.hexdigest(), size, sha256)
        if decoder is not None:
            decoder.finish()
    except Damaged as error:
        # What the decoder stumbled over is told by the hash, when that differs too.
        for chunk in iter(lambda: _read(file), b""):
            digest.update(chunk)
            seen += len(chunk)
        check_digest(seen, digest.hexdigest(), size, sha256, str(error))
        raise Undecodable(str(error)) from error
    finally:
        if decoder is not None:
            decoder.abort()


def overall(levels: Sequence[int]) -> int:
    """The level of a backup: its lowest archive's, but 3 when all are decoded and a sample was downloaded."""
    lowest = min(levels, default=0)
    return 3 if lowest >= 2 and max(levels) >= 3 else lowest


def check_digest(seen: int, found: str, size: int, sha256: str, more: str = "") -> None:
    """Raise Damaged unless both are what they were."""
    if seen != size:
        raise Damaged(f"{seen} bytes are stored, {size} were written{'; ' if more else ''}{more}")
    if found != sha256:
        raise Damaged(f"the stored bytes are not those that were written: sha256 {found[:16]}... instead of "
                      f"{sha256[:16]}...{'; ' if more else ''}{more}")  # fmt: skip


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(READ_BYTES)
    except OSError as error:
        raise TargetFailed(f"cannot be read back: {(error.strerror or str(error)).lower()}") from error


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. `problems`: one sentence for each archive that is not right, or could not be read."""

    manifest: Manifest
    problems: tuple[str, ...]


def verify(manifest: Manifest, target: Target, source: Source, work: Work, *, level: int, now: float,
           identity: str | None = None) -> Verified:  # fmt: skip
    """Read a stored backup again; with `level` 2 or more decode it too, where it is not encrypted or a key is given.

    The manifest comes back with the level and time that were reached; the caller stores it when it has changed. A level
    once proved stays, unless something is wrong now: then it is 0. A target that cannot be read now says nothing about
    what it holds: then the manifest is as it was. Raise Stopped, and Refused for a key that is not its own.
    """
    problems = []
    archives = []
    is_read = True
    for archive in manifest.archives:
        try:
            reached = _verify_archive(archive, target, source, work, level, identity)
        except (Damaged, TargetFailed) as error:
            work.guard.check()
            problems.append(f"{archive.name}: {error}")
            is_wrong = speaks_against(error, manifest, target)
            archives.append(replace(archive, level=0) if is_wrong else archive)
            is_read = is_read and is_wrong
        else:
            # Decoded when it was written, and the same bytes now: it would still decode.
            archives.append(replace(archive, level=max(reached, archive.level)))
    problems += [f"{one.name}: is missing since the backup was made: {one.error}" for one in manifest.missing]
    reached = overall([archive.level for archive in archives])
    if not is_read and reached:
        return Verified(manifest, tuple(problems))
    checked = replace(manifest, archives=tuple(archives), level=reached,
                      verified_at=now if reached >= 1 else None)  # fmt: skip
    return Verified(checked, tuple(problems))


def speaks_against(error: Damaged | TargetFailed, manifest: Manifest, target: Target) -> bool:
    """Whether that speaks against the copy, and not only against the way to it."""
    if isinstance(error, Absent):
        try:
            target.open(manifest.stored_name).close()
        except TargetFailed:
            return False  # the manifest has gone as well: the disk was taken away
        return True
    return isinstance(error, Damaged)


def _verify_archive(archive: Archive, target: Target, source: Source, work: Work, level: int,
                    identity: str | None) -> int:  # fmt: skip
    can_decode = not archive.recipients or identity is not None
    decoder = None
    with target.open(archive.stored) as file:
        if level >= 2 and can_decode:
            decoder = checker(archive.name, archive.coding, source, work, identity)
        try:
            reread(file, archive.stored_bytes, archive.sha256, decoder, work)
        except Undecodable as error:
            _refuse_other_key(error, identity)
            raise
    far = 0 if target.is_near else 3
    return max(2 if decoder is not None else 1, far if level >= 3 and decoder is not None else 0)


def checker(name: str, coding: Coding, source: Source, work: Work, identity: str | None = None) -> Decoder[None]:
    """A taker that decodes an archive and has its source look at it."""
    return Decoder(decode_steps(coding, identity), lambda plain: source.decode_check(name, plain, work), work)


def fetch(archive: Archive, target: Target, work: Work) -> BinaryIO:
    """A stored archive proved to be what was written, to be read from its beginning.

    A near one is read twice. A far one is copied to the scratch directory meanwhile. Raise Damaged, TargetFailed.
    """
    stored = target.open(archive.stored)
    try:
        if target.is_near:
            reread(stored, archive.stored_bytes, archive.sha256, None, work)
            stored.seek(0)
            return stored
        local = _scratch_file(work)
        try:
            copying = _Copying(stored, local)
            reread(copying, archive.stored_bytes, archive.sha256, None, work)  # type: ignore[arg-type]
            local.seek(0)
        except BaseException:
            local.close()
            raise
        stored.close()
        return local
    except BaseException:
        stored.close()
        raise


def _scratch_file(work: Work) -> BinaryIO:
    """A private file without a name: it goes with its descriptor."""
    import tempfile

    return tempfile.TemporaryFile(dir=work.scratch, buffering=0)


class _Copying:
    """A reader that writes along what it reads."""

    def __init__(self, source: BinaryIO, to: BinaryIO) -> None:
        self._source = source
        self._to = to

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        view = memoryview(chunk)
        while view:
            view = view[self._to.write(view) :]
        return chunk


def decoded(file: BinaryIO, archive: Archive, consume: Callable[[int], T], work: Work, identity: str | None) -> T:
    """Decode a proved archive and let `consume` read it from a pipe; what that returned.

    Raise what it raised, and Refused for a key that is not the archive's.
    """
    decoder = Decoder(decode_steps(archive.coding, identity), consume, work)
    try:
        while chunk := _read(file):
            work.guard.check()
            decoder.write(chunk)
        decoder.finish()
        return decoder.result
    except Damaged as error:
        _refuse_other_key(error, identity)
        raise
    finally:
        decoder.abort()


def _refuse_other_key(error: Damaged, identity: str | None) -> None:
    """The bytes are right and the key is not: that says nothing against the backup. Raise Refused then."""
    if _NOT_ITS_KEY in str(error):
        raise Refused(f"{identity}: is not a private key that it was encrypted for; try another with "
                      "--identity FILE") from error  # fmt: skip


def sampled(archives: Sequence[str], percent: float, seed: str) -> set[str]:
    """Which archives a sampled verification takes: at least one, others with each run."""
    count = max(1, round(len(archives) * percent / 100))
    return set(random.Random(seed).sample(sorted(archives), min(count, len(archives))))


def identity_of(path: str | None) -> str | None:
    """The file with the private key. Raise BackupError when it is named and cannot be read."""
    if path is not None and not os.access(path, os.R_OK):
        raise BackupError(f"encryption.identity: {path}: cannot be read; correct the path, or let this user read it")
    return path
