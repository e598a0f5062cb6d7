"""A directory of this host: another disk, or a mount of another machine's.

Every name is opened step by step from the directory itself, following no symbolic link, so that whoever may write to a
part of it cannot lead us elsewhere.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from agent.core.options import option, required
from backup.errors import Absent, TargetFailed
from backup.relay import Outlet, write_all
from backup.target import Upload, check_name
from backup.trusted import check_destination

_BEHIND_BYTES = 16 << 20  # written, and on its way to the disk
PART = ".part"  # what is not finished ends so, and begins with a dot
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_OURS = "cannot be written to; let the job's user write there"
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path; begin it with /")


@dataclass(slots=True)
class Local:
    """Keeps copies in a directory, each in a file that only its owner can read."""

    path: str = required("Directory; it is not created.", check=_check_path, example="/srv/backup")
    mounted: bool = option(False, "Refuse unless something is mounted there: for disks that may be away.")

    is_near: ClassVar[bool] = True

    def check(self) -> None:
        """Raise TargetFailed unless the directory is there, ours to write to and, where asked, a mount."""
        with _as_failure(self.path):
            os.close(os.open(self.path, _DIRECTORY))
        if self.mounted and not os.path.ismount(self.path):
            raise TargetFailed(f"{self.path}: nothing is mounted there; mount the disk, or set mounted: false")
        check_destination(self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            is_shut = os.statvfs(self.path).f_flag & os.ST_RDONLY
            way_out = ("is read-only here; mount it so that it can be written to, and let the backup service do so: "
                       "vigilhost backup destinations --install")  # fmt: skip
            raise TargetFailed(f"{self.path}: {way_out if is_shut else _NOT_OURS}")

    def begin(self, name: str) -> Upload:
        check_name(name)
        directory, _, file = name.rpartition("/")
        with _as_failure(f"{self.path}/{name}"):
            return _FileUpload(f"{self.path}/{name}", self._directory(directory, create=True), file)

    def put(self, name: str, content: bytes) -> None:
        check_name(name)
        directory, _, file = name.rpartition("/")
        with _as_failure(f"{self.path}/{name}"):
            upload = _FileUpload(f"{self.path}/{name}", self._directory(directory, create=True), file, may_replace=True)
        try:
            upload.write(content)
            upload.finish()
            upload.commit()
        finally:
            upload.abort()

    def names(self, prefix: str) -> Iterator[str]:
        for name, is_part in self._walk(prefix):
            if not is_part:
                yield name

    def open(self, name: str) -> BinaryIO:
        check_name(name)
        directory, _, file = name.rpartition("/")
        with _as_failure(f"{self.path}/{name}"):
            handle = self._directory(directory)
            try:
                opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=handle)
            finally:
                os.close(handle)
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                os.close(opened)
                raise TargetFailed(f"{self.path}/{name}: is not a regular file")
            return os.fdopen(opened, "rb", buffering=0)

    def delete(self, name: str) -> None:
        check_name(name)
        directory, _, file = name.rpartition("/")
        try:
            handle = self._directory(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failure(f"{self.path}/{name}", error) from error
        with _as_failure(f"{self.path}/{name}"):
            try:
                os.unlink(file, dir_fd=handle)
            except FileNotFoundError:
                pass  # it is gone, which is what was wanted
            os.fsync(handle)
            os.close(handle)
        self._prune(directory)

    def sweep(self, prefix: str) -> list[str]:
        removed = []
        for name, is_part in list(self._walk(prefix)):
            if is_part:
                directory, _, file = name.rpartition("/")
                with _as_failure(f"{self.path}/{name}"):
                    handle = self._directory(directory)
                    os.unlink(file, dir_fd=handle)
                    os.close(handle)
                self._prune(directory)
                removed.append(name)
        return removed

    def free_bytes(self) -> int | None:
        with _as_failure(self.path):
            found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def directories(self) -> list[str]:
        return [self.path]

    def fetch_command(self, name: str) -> list[str]:
        return ["cat", f"{self.path}/{name}"]

    def _directory(self, name: str, *, create: bool = False) -> int:
        """A descriptor of a directory below ours. Raise OSError."""
        handle = os.open(self.path, _DIRECTORY)
        try:
            for word in name.split("/") if name else ():
                if create:
                    try:
                        os.mkdir(word, 0o700, dir_fd=handle)
                        os.fsync(handle)
                    except FileExistsError:
                        pass
                handle, above = os.open(word, _DIRECTORY, dir_fd=handle), handle
                os.close(above)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _prune(self, directory: str) -> None:
        """Remove the run's directory once nothing is left in it; those of job and host stay."""
        above, _, last = directory.rpartition("/")
        with _as_failure(f"{self.path}/{directory}"):
            try:
                handle = self._directory(above)
            except FileNotFoundError:
                return
            try:
                os.rmdir(last, dir_fd=handle)
            except OSError:
                pass  # it still holds something
            os.close(handle)

    def _walk(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Name of every file below `prefix`, and whether it is unfinished; what is not ours is left out."""
        try:
            handle = self._directory(prefix)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failure(f"{self.path}/{prefix}", error) from error
        try:
            with os.scandir(handle) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                         for entry in entries]  # fmt: skip
        except OSError as error:
            raise _failure(f"{self.path}/{prefix}", error) from error
        finally:
            os.close(handle)
        for word, is_directory, is_file in sorted(found):
            name = f"{prefix}/{word}" if prefix else word
            if is_directory and not word.startswith("."):
                yield from self._walk(name)
            elif is_file and word.startswith(".") and word.endswith(PART):
                yield name, True
            elif is_file and not word.startswith("."):
                yield name, False


class _FileUpload:
    """A file on its way: `.NAME.RANDOM.part` until it is committed. Owns the directory's descriptor."""

    def __init__(self, shown: str, directory: int, name: str, *, may_replace: bool = False) -> None:
        self._shown = shown
        self._directory = directory
        self._name = name
        self._may_replace = may_replace
        self._part = f".{name}.{secrets.token_hex(4)}{PART}"
        self._is_over = False
        self._unsent = 0  # bytes that the kernel has not been told to write
        try:
            self._file = Outlet(os.open(self._part, _NEW_FILE, 0o600, dir_fd=directory))
        except BaseException:
            os.close(directory)
            raise

    def write(self, chunk: bytes) -> None:
        with _as_failure(self._shown), self._file.held() as file:
            write_all(file, chunk)
            self._unsent += len(chunk)
            if self._unsent >= _BEHIND_BYTES:
                self._unsent = 0
                _write_behind(file)

    def finish(self) -> None:
        with _as_failure(self._shown), self._file.held() as file:
            os.fsync(file)
            _write_behind(file)

    def reread(self) -> BinaryIO:
        with _as_failure(self._shown), self._file.held() as file:
            reader = os.fdopen(os.dup(file), "rb", buffering=0)
            reader.seek(0)
            return reader

    def commit(self) -> None:
        with _as_failure(self._shown):
            if not self._may_replace and self._is_taken():
                raise TargetFailed(f"{self._shown}: is there already; nothing is overwritten")
            os.rename(self._part, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)
            self._close()

    def _is_taken(self) -> bool:
        try:
            os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def abort(self) -> None:
        if self._is_over:
            return
        try:
            os.unlink(self._part, dir_fd=self._directory)
        except OSError:
            pass  # the next run sweeps it
        self._close()

    def _close(self) -> None:
        self._is_over = True
        self._file.close()
        os.close(self._directory)


def _write_behind(file: int) -> None:
    """Have the kernel begin to write what it holds of the file, and forget what it has written.

    The sync at the end has little left to wait for then, and holds up nobody else on that disk. The cache stays with
    what the host works with, and whoever verifies the archive reads what is on the disk.
    """
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


class _as_failure:  # noqa: N801 - reads as a statement
    """Turns an OSError into TargetFailed with the path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise _failure(self._path, error) from error


def _failure(path: str, error: OSError) -> TargetFailed:
    kind = Absent if isinstance(error, FileNotFoundError) else TargetFailed
    return kind(f"{path}: {(error.strerror or str(error)).lower()}")
