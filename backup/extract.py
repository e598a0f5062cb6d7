"""Archives unpacked as if their writer were an enemy: member by member, into a fresh private directory.

Every step of a path is opened without following links, so no member written before can lead a later one outside. What
is refused is left out and named; the rest is restored. `links` allows symbolic links that lead outside of the
directory (they are made, never followed), `setuid` those bits and file capabilities. Devices are never made. `look` is
for what is only looked at and thrown away: owners and special bits are left out, and directories can be entered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from backup import acl
from backup.children import Guard
from backup.errors import Damaged, Refused
from backup.source import Restored

RECIPE = "tar --extract --file=- --acls --xattrs --xattrs-include='*' --numeric-owner --directory=DIRECTORY"
_CHUNK = 1 << 20
_MOST_HEADER = 1 << 20  # a longer name or attribute is a bomb
_MOST_MEMBERS = 50_000_000
_MOST_SIZE = 1 << 44  # apparent size of one file, holes included: 16 TiB
_MOST_DEPTH = 128
_MOST_LISTED = 1000  # refusals told one by one
_XATTR = "SCHILY.xattr."
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def fresh(to: str, *, force: bool) -> Iterator[str]:
    """A new private directory that becomes `to` when all went well, and is removed otherwise.

    `to` may be missing or empty; with `force` what is there is moved aside to `to.before-...`. Raise Refused.
    """
    to = os.path.abspath(to)
    if os.path.lexists(to) and not force and not (_is_plain_directory(to) and not os.listdir(to)):
        raise Refused(f"{to}: is there and not empty; restore elsewhere, or move it aside with --force")
    above = os.path.dirname(to)
    if not os.path.isdir(above):
        raise Refused(f"{above}: no such directory; make it first")
    staging = os.path.join(above, f".restore-{secrets.token_hex(6)}")
    os.mkdir(staging, 0o700)
    try:
        yield staging
        if os.path.lexists(to) and not (_is_plain_directory(to) and not os.listdir(to)):
            os.rename(to, f"{to}.before-{secrets.token_hex(3)}")
        os.rename(staging, to)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _is_plain_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def copy(plain: int, file: str, guard: Guard | None = None) -> int:
    """Write a pipe's bytes to a new private file, durably; how many. Raise OSError, Stopped."""
    size = 0
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "wb", buffering=0) as output:
        while chunk := os.read(plain, _CHUNK):
            if guard is not None:
                guard.check()
            view = memoryview(chunk)
            while view:
                try:
                    view = view[output.write(view) :]
                except OSError as error:
                    error.filename = file  # a full disk is only told by which one
                    raise
            size += len(chunk)
        os.fsync(output.fileno())
    return size


def extract(plain: int, directory: str, *, guard: Guard, allow: frozenset[str] = frozenset(),
            most_bytes: int | None = None) -> Restored:  # fmt: skip
    """Unpack a tar archive from a pipe into an empty directory. `most_bytes`: of data, all files together.

    Raise Damaged when the archive is no tar archive, breaks off, or holds more than it should.
    """
    stream = _Stream(plain, guard)
    root = os.open(directory, _DIRECTORY)
    unpacking = _Unpacking(root, stream, allow, most_bytes)
    try:
        with tarfile.open(fileobj=stream, mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep every member in memory
                stream.is_data = True
                unpacking.take(member)
                stream.is_data = False
        unpacking.finish()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise Damaged(f"the archive cannot be read: {error}") from error
    finally:
        os.close(root)
    return Restored(unpacking.count, unpacking.size, tuple(unpacking.refused), tuple(unpacking.warnings))


class _Stream:
    """A pipe as the file that tarfile wants: forward only, and never a large read for a header."""

    def __init__(self, descriptor: int, guard: Guard) -> None:
        self._descriptor = descriptor
        self._guard = guard
        self._at = 0
        self.is_data = False

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        if to < self._at:
            raise tarfile.ReadError("members overlap")
        while self._at < to:
            if not self._read(min(to - self._at, _CHUNK)):
                raise tarfile.ReadError("unexpected end of data")
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if size < 0 or size > (_CHUNK if self.is_data else _MOST_HEADER):
            raise tarfile.ReadError("a header is larger than any right one")
        parts = []
        while size > 0 and (part := self._read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        self._guard.check()
        part = os.read(self._descriptor, size)
        self._at += len(part)
        return part


class _Skip(Exception):
    """A member that is refused; the text is the reason."""


@dataclass(slots=True)
class _Unpacking:
    """The state of one extraction. Directories get their modes and times last, when nothing is written into them."""

    root: int
    stream: _Stream
    allow: frozenset[str]
    most_bytes: int | None
    count: int = 0
    size: int = 0
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _directories: dict[str, tarfile.TarInfo] = field(default_factory=dict)

    def take(self, member: tarfile.TarInfo) -> None:
        """Restore one member, or note why not."""
        if self.count + len(self.refused) >= _MOST_MEMBERS:
            raise tarfile.ReadError(f"has more than {_MOST_MEMBERS} members")
        try:
            words = _words(member.name)
            self._check(member)
            if not words:
                self._note_directory("", member)
                return
            with _parent(self.root, words) as parent:
                self._make(member, words, parent)
            self.count += 1
        except _Skip as reason:
            self._refuse(member, str(reason))
        except OSError as error:
            if isinstance(error, BlockingIOError | InterruptedError):
                raise
            self._fail(member, error)

    def _refuse(self, member: tarfile.TarInfo, reason: str) -> None:
        if len(self.refused) < _MOST_LISTED:
            self.refused.append(f"{_shown(member.name)}: {reason}")

    def _fail(self, member: tarfile.TarInfo, error: OSError) -> None:
        """A full disk ends it all; a name that this file system cannot have is one member's misfortune."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE):
            raise Refused(f"{_shown(member.name)}: {(error.strerror or str(error)).lower()}") from error
        self._refuse(member, (error.strerror or str(error)).lower())

    def _check(self, member: tarfile.TarInfo) -> None:
        if member.ischr() or member.isblk():
            raise _Skip("is a device")
        if member.isfifo():
            raise _Skip("is a named pipe")
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            raise _Skip(f"is of an unknown kind {member.type!r}")
        special = stat.S_ISUID | stat.S_ISGID
        if member.isfile() and member.mode & special and not self.allow & {"setuid", "look"}:
            raise _Skip("would run as its owner or group (setuid, setgid)")
        if member.size < 0 or member.size > _MOST_SIZE:
            raise _Skip(f"claims to be {member.size} bytes long")

    def _make(self, member: tarfile.TarInfo, words: list[str], parent: int) -> None:
        name = words[-1]
        if member.isdir():
            _make_directory(parent, name)
            self._note_directory("/".join(words), member)
        elif member.issym():
            self._check_link(member, words)
            _clear(parent, name)
            os.symlink(member.linkname, name, dir_fd=parent)
            self._dress_link(member, name, parent)
        elif member.islnk():
            self._hard_link(member, name, parent)
        else:
            self._file(member, name, parent)

    def _check_link(self, member: tarfile.TarInfo, words: list[str]) -> None:
        if "\0" in member.linkname or not member.linkname:
            raise _Skip("is a link to nothing")
        if "links" not in self.allow and leads_out(member.linkname, len(words) - 1):
            raise _Skip(f"links outside, to {_shown(member.linkname)}")

    def _hard_link(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        words = _words(member.linkname)
        if not words:
            raise _Skip("is a hard link to a directory")
        try:
            with _parent(self.root, words, create=False) as source:
                if not stat.S_ISREG(os.stat(words[-1], dir_fd=source, follow_symlinks=False).st_mode):
                    raise _Skip(f"is a hard link to {_shown(member.linkname)}, which is no file")
                if os.path.samestat(os.fstat(source), os.fstat(parent)) and words[-1] == name:
                    raise _Skip("is a hard link to itself")
                _clear(parent, name)
                os.link(words[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _Skip(f"is a hard link to {_shown(member.linkname)}, which is not there") from None

    def _file(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        _clear(parent, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            for offset, length in _pieces(member):
                self._pour(handle, offset, length, member.size)
            os.ftruncate(handle, member.size)
            self._dress(member, handle)
        finally:
            os.close(handle)

    def _pour(self, handle: int, offset: int, length: int, size: int) -> None:
        if offset < 0 or length < 0 or offset + length > size:
            raise tarfile.ReadError("a hole lies outside of its file")
        while length > 0:
            chunk = self.stream.read(min(length, _CHUNK))
            if not chunk:
                raise tarfile.ReadError("unexpected end of data")
            self.size += len(chunk)
            if self.most_bytes is not None and self.size > self.most_bytes:
                raise tarfile.ReadError(f"holds more than the {self.most_bytes} bytes that it should")
            view, at = memoryview(chunk), offset
            while view:
                written = os.pwrite(handle, view, at)
                view, at = view[written:], at + written
            offset += len(chunk)
            length -= len(chunk)

    def _note_directory(self, path: str, member: tarfile.TarInfo) -> None:
        if member.isdir():
            self._directories[path] = member

    def _dress(self, member: tarfile.TarInfo, handle: int) -> None:
        """Owner, attributes, mode and times, in the order in which one does not undo the other."""
        if self._gives_owners:
            os.fchown(handle, member.uid, member.gid)
        os.fchmod(handle, self._mode(member))
        self._attributes(member, handle)
        os.utime(handle, ns=_times(member))

    def _mode(self, member: tarfile.TarInfo) -> int:
        mode = member.mode & 0o7777
        if "look" in self.allow:
            mode &= 0o1777
            return mode | stat.S_IRWXU if member.isdir() else mode
        return mode if "setuid" in self.allow else mode & ~stat.S_ISUID

    @property
    def _gives_owners(self) -> bool:
        return os.geteuid() == 0 and "look" not in self.allow

    def _dress_link(self, member: tarfile.TarInfo, name: str, parent: int) -> None:
        if self._gives_owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def _attributes(self, member: tarfile.TarInfo, handle: int) -> None:
        for key, value in member.pax_headers.items():
            try:
                if key.startswith(_XATTR):
                    self._attribute(key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"), handle)
                elif key in ("SCHILY.acl.access", "SCHILY.acl.default"):
                    os.setxattr(handle, f"system.posix_acl_{key.rpartition('.')[2]}", acl.encode(value))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._warn(f"{_shown(member.name)}: {key.rpartition('SCHILY.')[2]} was not restored: {reason}")

    def _attribute(self, name: str, value: bytes, handle: int) -> None:
        if name.startswith("user.") or (name.startswith(("security.", "trusted.")) and "setuid" in self.allow):
            os.setxattr(handle, name, value)
        elif not name.startswith(("system.posix_acl_", "security.selinux")):  # told otherwise; given by the policy
            raise ValueError("only user attributes are")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MOST_LISTED:
            self.warnings.append(text)

    def finish(self) -> None:
        """Dress the directories, the deepest first."""
        for path in sorted(self._directories, key=lambda one: one.count("/") + bool(one), reverse=True):
            member = self._directories[path]
            if not path:
                continue  # the directory itself stays private
            words = path.split("/")
            try:
                with _parent(self.root, words, create=False) as parent:
                    handle = os.open(words[-1], _DIRECTORY, dir_fd=parent)
                try:
                    self._dress(member, handle)
                finally:
                    os.close(handle)
            except (_Skip, OSError) as error:
                self._refuse(member, f"its mode and times were not restored: {error}")


def _pieces(member: tarfile.TarInfo) -> Iterable[tuple[int, int]]:
    """Offset and length of what is stored of a file; between them are holes."""
    sparse: Any = member.sparse  # a list of pairs, unlike what the type stubs say
    return [(0, member.size)] if sparse is None else sparse


def leads_out(target: str, depth: int) -> bool:
    """Whether a symbolic link in a directory `depth` below the top may lead outside.

    `..` is only safe at the beginning: after another word, that word may be a link to anywhere inside, and then `..` is
    not where it looks.
    """
    if target.startswith("/"):
        return True
    words = [word for word in target.split("/") if word not in ("", ".")]
    ups = next((at for at, word in enumerate(words) if word != ".."), len(words))
    return ups > depth or ".." in words[ups:]


def _words(name: str) -> list[str]:
    """The steps of a member's path; none for the top. Raise _Skip for a path that leads elsewhere."""
    if "\0" in name:
        raise _Skip("has a zero byte in its name")
    if name.startswith("/"):
        raise _Skip("has an absolute path")
    words = [word for word in name.split("/") if word not in ("", ".")]
    if ".." in words:
        raise _Skip("has .. in its path")
    if len(words) > _MOST_DEPTH:
        raise _Skip(f"lies more than {_MOST_DEPTH} directories deep")
    return words


@contextlib.contextmanager
def _parent(root: int, words: list[str], *, create: bool = True) -> Iterator[int]:
    """A descriptor of the directory that holds a path's last step; missing ones are made. Raise _Skip on a link."""
    handle = os.dup(root)
    try:
        for word in words[:-1]:
            if create:
                _make_directory(handle, word)
            try:
                below = os.open(word, _DIRECTORY, dir_fd=handle)
            except NotADirectoryError:
                raise _Skip(f"goes through {_shown(word)}, which is a link or a file") from None
            handle, above = below, handle
            os.close(above)
        yield handle
    finally:
        os.close(handle)


def _make_directory(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise _Skip(f"goes through {_shown(name)}, which is a link or a file") from None


def _clear(parent: int, name: str) -> None:
    """Make room for a member that comes a second time. Raise _Skip where a directory is in its place."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        raise _Skip("stands where a directory is") from None


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Nanoseconds for utime, from the decimal text where there is one: a float cannot hold them."""
    text = member.pax_headers.get("mtime", str(int(member.mtime)))
    try:
        mtime = int(Decimal(text) * 10**9)
    except (ArithmeticError, ValueError):
        mtime = 0
    # Beyond what file systems keep; such a time is a lie, not a reason to lose the file.
    mtime = min(max(mtime, 0), 2**62)
    return mtime, mtime


def _shown(name: str) -> str:
    text = "".join(char if char.isprintable() else "?" for char in name)
    return text if len(text) <= 200 else text[:200] + "..."
