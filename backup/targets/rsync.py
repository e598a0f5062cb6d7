"""Another host, by rsync over ssh.

rsync is all that runs there: it writes, renames (`--link-dest`), lists, gives back and deletes. So an account that may
do nothing else is enough, which is how a backup account should be: `restrict,command="rrsync /srv/backup"` in its
authorized_keys. Accounts that only have sftp, which cannot compare checksums over there, are not served.

rsync wants a file: an archive waits in `spool` until it is whole, then it is sent. When the connection breaks it is
taken up where it broke (`--partial-dir`; rrsync 3.5 keeps no partial file, so there it begins again). What is on its
way lies in a hidden directory, `.part`, beside its place.
Nothing is ever mirrored: a deletion names each file, protects all others from rsync, and says how many may go.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar

from agent.core.options import option, required
from agent.core.units import Bytes, Seconds
from backup.children import Group, Guard, Status, Step
from backup.errors import Absent, BackupError, TargetFailed
from backup.manifest import FILE_NAME, MOST_BYTES
from backup.redact import Redactor
from backup.relay import Outlet
from backup.target import Upload, check_name

PART = ".part"
PARTIAL = ".partial"  # below PART: what came before a connection broke
_SPOOL = "vigilhost-rsync-"
_TRIES = 4
_WAIT_S = 2.0  # before the second try, then twice as long each time
_MANY = 500  # files named to one deletion
_HASHED_PER_S = 10 << 20  # bytes that the slowest machine over there reads and hashes in a second
# rsync's statuses that another try may mend: socket, protocol, interrupted, timeouts, and ssh's own.
_TRANSIENT = frozenset({10, 12, 20, 30, 35, 255})
_PERMANENT = re.compile(
    r"No such file|No space left|Disk quota|Permission denied|Host key verification|not allowed|REMOTE HOST"
)
_ABSENT = re.compile(r"No such file or directory")
_NO_FILE = re.compile(r"(link_stat|rrsync error:) .*No such file or directory")
_LISTED = re.compile(r"(.)\S+ +[\d,.]+ \d{4}/\d\d/\d\d \d\d:\d\d:\d\d (.*)")
_LEFTOVER = re.compile(r"\.[^/]+\.[A-Za-z0-9]{6}")  # rsync's own temporary file
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./@%+=~,-]+")


def _check_server(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*", text):
        raise ValueError("is no name or address of a host")


def _check_user(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", text):
        raise ValueError("is no name of a user")


def _check_path(text: str) -> None:
    if not _PLAIN_PATH.fullmatch(text) or not text.startswith("/") or ".." in text.split("/"):
        raise ValueError("is not a plain absolute path; use letters, digits and _./@%+=~,- and leave out ..")


@dataclass(slots=True)
class Rsync:
    """Keeps copies on another host, whose rsync (3.2.4 or later) is reached by ssh. The account needs no shell.

    Nobody is there to answer: the host key must be known, and the key have no passphrase.
    """

    server: str = required("The other host.", check=_check_server, example="backup.example.org")
    path: str = required(
        "Directory over there, which must exist; / is where rrsync keeps the account.",
        check=_check_path,
        example="/srv/backup",
    )
    user: str | None = option(None, "User over there; null: as ssh decides.", check=_check_user, example="web1")
    port: int = option(22, "Port of ssh.", minimum=1, maximum=65535)
    identity: str | None = option(
        None, "File with the private key; null: as ssh decides.", check=_check_path, example="/etc/vigilhost/backup.key"
    )
    known_hosts: str | None = option(
        None, "File with the host's key; null: as ssh decides.", check=_check_path, example="/etc/vigilhost/known_hosts"
    )
    sentinel: str | None = option(
        None, "File that must be in the directory: for disks that may be away.", check=check_name, example="DISK"
    )
    spool: str = option(
        "/var/tmp", "Directory of this host where an archive waits until it is whole.", check=_check_path
    )
    rate: Bytes | None = option(None, "Most bytes a second that are sent; null: as fast as it goes.", minimum=1024)
    connect_timeout: Seconds = option(15.0, "Most time for a connection.", minimum=1)
    timeout: Seconds = option(60.0, "Most time without a byte in either direction.", minimum=1)
    deadline: Seconds = option(6 * 3600.0, "Most time for one archive.", minimum=1)

    is_near: ClassVar[bool] = False
    guard: Guard | None = field(default=None, repr=False)  # of the run: rsync ends with it
    # Manifests that came with the last one read, each used once, and where one was looked for.
    _ahead: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    _listed: str | None = field(default=None, init=False, repr=False)

    def check(self) -> None:
        """Raise TargetFailed unless the directory is there, with its sentinel, and the spool can be written to."""
        _sweep_spool(self.spool)
        with self._private():
            pass
        found = {name for _, name in self._list("", ["--dirs"])}
        if self.sentinel is not None and self.sentinel not in found:
            raise TargetFailed(
                f"{self._shown('')}: has no file {self.sentinel}; mount the disk, or create it there once"
            )

    def begin(self, name: str) -> Upload:
        check_name(name)
        return _RsyncUpload(self, name)

    def put(self, name: str, content: bytes) -> None:
        """rsync writes a hidden file beside it and renames that over the old one."""
        check_name(name)
        self._ahead.pop(name, None)
        with self._private() as directory:
            path = os.path.join(directory, name.rpartition("/")[2])
            with _as_failure(path), open(path, "xb") as file:
                file.write(content)
            # Otherwise one of the same size and second would be taken for the same.
            self._retry([*self._sending(), "--ignore-times", "--", path, self._directory(name)], self.deadline)

    def names(self, prefix: str) -> Iterator[str]:
        self._ahead.clear()
        self._listed = prefix
        for kind, name in self._list(prefix, ["--recursive", "--exclude=.*"]):
            if kind == "-":
                yield name

    def open(self, name: str) -> BinaryIO:
        """A copy of it in the spool, which goes when it is closed. Manifests come all at once."""
        check_name(name)
        is_manifest = name.rpartition("/")[2] == FILE_NAME
        if is_manifest and name not in self._ahead and self._listed is not None:
            self._read_ahead(self._listed)
        with self._private() as directory:
            path = os.path.join(directory, "fetched")
            if (content := self._ahead.pop(name, None)) is not None:
                with _as_failure(path), open(path, "xb") as file:
                    file.write(content)
            else:
                self._fetch(name, path)
            with _as_failure(path):
                return open(path, "rb", buffering=0)

    def delete(self, name: str) -> None:
        check_name(name)
        self._ahead.pop(name, None)
        *above, directory, file = ["", "", *name.split("/")]
        inside = f"{directory}/{file}" if directory else file
        self._delete("/".join(filter(None, above)), [inside])

    def sweep(self, prefix: str) -> list[str]:
        """Remove `.part` directories and rsync's own temporary files."""
        hidden = []
        for kind, name in self._list(prefix, ["--recursive"]):
            below = name[len(prefix) :].lstrip("/")
            if kind == "-" and (PART in below.split("/") or _LEFTOVER.fullmatch(below.rpartition("/")[2])):
                hidden.append(below)
        for at in range(0, len(hidden), _MANY):
            self._delete(prefix, hidden[at : at + _MANY])
        return [f"{prefix}/{below}" if prefix else below for below in hidden]

    def free_bytes(self) -> int | None:
        """Of the spool, where an archive waits; rsync cannot say it of the other side."""
        with _as_failure(self.spool):
            found = os.statvfs(self.spool)
        return found.f_bavail * found.f_frsize

    def directories(self) -> list[str]:
        return [self.spool]

    def fetch_command(self, name: str) -> list[str]:
        script = 'd=$(mktemp -d) && rsync -e "$1" "$2" "$d/it" && cat "$d/it"; s=$?; rm -rf "$d"; exit $s'
        return ["sh", "-c", script, "fetch", self._shell, self._far(name)]

    # The parts of it.

    def _fetch(self, name: str, path: str) -> None:
        try:
            self._retry(["--inplace", "--", self._far(name), path], self.deadline)
        except TargetFailed as error:
            if _NO_FILE.search(str(error)):
                raise Absent(str(error)) from error
            raise

    def _list(self, prefix: str, how: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Kind (`-`, `d`) and name of what is below `prefix`, which need not be there."""
        words = prefix.split("/") if prefix else []
        rules = [f"--include=/{'/'.join(words[:count])}/" for count in range(1, len(words) + 1)]
        # What the caller leaves out comes first: the first rule that matches decides.
        only = [*rules, f"--include=/{prefix}/**", "--exclude=*"] if prefix else []
        output = self._retry([*how, *only, "--list-only", "--", f"{self._far('').rstrip('/')}/"], self.deadline)
        for line in output.splitlines():
            match = _LISTED.fullmatch(line)
            if match is not None and match[2] != "." and (not prefix or match[2].startswith(f"{prefix}/")):
                yield match[1], match[2]

    def _read_ahead(self, prefix: str) -> None:
        with self._private() as directory:
            source = self._far(prefix).rstrip("/")
            only = ("--exclude=.*", "--include=*/", f"--include={FILE_NAME}", "--exclude=*")
            self._retry(["--recursive", "--prune-empty-dirs", *only, f"--max-size={MOST_BYTES}", "--",
                         f"{source}/", f"{directory}/"], self.deadline)  # fmt: skip
            for found, _, files in os.walk(directory):
                for file in files:
                    path = os.path.join(found, file)
                    below = os.path.relpath(path, directory)
                    if file == FILE_NAME and os.path.isfile(path) and not os.path.islink(path):
                        with _as_failure(path), open(path, "rb") as opened:
                            self._ahead[f"{prefix}/{below}" if prefix else below] = opened.read()

    def _delete(self, base: str, names: Sequence[str]) -> None:
        """Remove files below `base`, and directories on the way to them that are empty then; nothing else."""
        at_risk: dict[str, None] = {}
        for name in names:
            words = name.split("/")
            at_risk |= {f"/{'/'.join(words[:count])}/": None for count in range(1, len(words))}
            at_risk[f"/{name}"] = None
        with self._private() as empty:
            rules = [f"--filter=R {pattern}" for pattern in at_risk]
            try:
                self._retry(["--recursive", "--delete", f"--max-delete={len(at_risk)}", *rules, "--filter=P *", "--",
                             f"{empty}/", f"{self._far(base).rstrip('/')}/"], self.deadline)  # fmt: skip
            except TargetFailed as error:
                if not _ABSENT.search(str(error)):
                    raise
                # It is gone, which is what was wanted.

    def _sending(self) -> list[str]:
        rate = [f"--bwlimit={max(1, self.rate // 1024)}"] if self.rate else []
        return ["--times", "--perms", "--chmod=D0700,F0600", "--mkpath", "--fsync", *rate]

    def _far(self, name: str) -> str:
        """A path over there, as rsync takes it."""
        host = f"[{self.server}]" if ":" in self.server else self.server
        path = self._path(name)
        return f"{self.user}@{host}:{path}" if self.user else f"{host}:{path}"

    def _directory(self, name: str) -> str:
        """Where an object goes. A path that ends with the file itself cannot be written twice through rrsync."""
        return f"{self._far(name.rpartition('/')[0]).rstrip('/')}/"

    def _path(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}".rstrip("/") or "/"

    def _shown(self, name: str) -> str:
        return f"rsync {self._far(name)}"

    @property
    def _shell(self) -> str:
        options = {"BatchMode": "yes", "ConnectTimeout": f"{self.connect_timeout:.0f}", "StrictHostKeyChecking": "yes",
                   "ServerAliveInterval": "15", "ServerAliveCountMax": "4", "LogLevel": "ERROR",
                   "ControlMaster": "no", "ControlPath": "none"}  # fmt: skip
        if self.known_hosts is not None:
            options |= {"UserKnownHostsFile": self.known_hosts, "GlobalKnownHostsFile": "/dev/null"}
        if self.identity is not None:
            options |= {"IdentityFile": self.identity, "IdentitiesOnly": "yes"}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return shlex.join(["ssh", "-p", str(self.port), *words])

    @contextmanager
    def _private(self) -> Iterator[str]:
        """A new directory of the spool, gone afterwards; a later run removes it where we are killed."""
        with _as_failure(self.spool):
            directory = tempfile.mkdtemp(prefix=_SPOOL, dir=self.spool)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)

    def _retry(self, words: Sequence[str], deadline: float, timeout: float | None = None) -> str:
        """Run rsync, again where the connection broke; its output. Raise TargetFailed."""
        guard = Guard(deadline, "rsync", self.guard)
        wait_s = _WAIT_S
        try:
            for left in reversed(range(_TRIES)):
                status, output = self._once(words, guard, timeout or self.timeout)
                if status.code == 0:
                    return output
                if left and status.code in _TRANSIENT and not _PERMANENT.search(status.stderr):
                    guard.wait(wait_s)
                    wait_s *= 2
                    continue
                raise TargetFailed(f"{self._shown('')}: {status}")
        except TargetFailed:
            raise
        except BackupError as error:
            raise TargetFailed(f"{self._shown('')}: {error}") from None
        finally:
            guard.close()
        raise AssertionError

    def _once(self, words: Sequence[str], guard: Guard, timeout: float) -> tuple[Status, str]:
        argv = ("rsync", "--rsh", self._shell, f"--timeout={max(1, round(timeout))}", "--no-motd", *words)
        output = os.memfd_create("rsync")
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Group(guard, Redactor()) as group:
                group.start(Step(argv), null, output)
                (status,) = group.wait()
            guard.check()
            with open(output, encoding="utf-8", errors="replace", closefd=False) as file:
                file.seek(0)
                return status, file.read()
        finally:
            os.close(null)
            os.close(output)


class _RsyncUpload:
    """A file that grows in the spool; sent, compared and named by `commit`."""

    def __init__(self, place: Rsync, name: str) -> None:
        self._place = place
        self._name = name
        self._size = 0
        self._is_sent = False
        self._is_over = False
        self._private = place._private()
        directory, self._file_name = self._private.__enter__(), name.rpartition("/")[2]
        self._path = os.path.join(directory, self._file_name)
        try:
            with _as_failure(self._path):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file = Outlet(os.open(self._path, flags, 0o600))
        except BaseException:
            self._private.__exit__(None, None, None)
            raise

    def write(self, chunk: bytes) -> None:
        with _as_failure(self._path):
            self._file.write(chunk)
        self._size += len(chunk)

    def finish(self) -> None:
        """It is whole, and still on this host: sending may take long, which a relay would take for a hang."""

    def reread(self) -> BinaryIO:
        raise TargetFailed(f"{self._place._shown(self._name)}: is far away; rsync compares checksums over there")

    def commit(self) -> None:
        """Send it, have both sides compare checksums of all of it, and give it its name."""
        place = self._place
        part = "/".join((*self._name.split("/")[:-1], PART, self._file_name))
        self._is_sent = True
        send = [*place._sending(), f"--partial-dir={PARTIAL}"]
        place._retry([*send, "--", self._path, place._directory(part)], place.deadline)
        # With --checksum the other side reads what it has; only if that is the same it becomes a link, which is the
        # renaming that rsync can do. Meanwhile nothing is sent. rrsync changes a relative path of --link-dest.
        same = ["--checksum", "--ignore-existing", f"--link-dest={place._path(part).rpartition('/')[0]}", "-ii"]
        quiet = place.timeout + self._size / _HASHED_PER_S
        said = place._retry([*place._sending(), *same, "--", self._path, place._directory(self._name)],
                            place.deadline, quiet).split("\n")  # fmt: skip
        how = next((line[:2] for line in said if line[1:2] == "f"), "")
        if how in ("", ".f"):
            raise TargetFailed(f"{place._shown(self._name)}: is there already; nothing is overwritten")
        if how not in ("hf", "cf"):
            place.delete(self._name)
            raise TargetFailed(
                f"{place._shown(self._name)}: what arrived was not what was sent; see the disk over there"
            )
        self._unstage()
        self._end()

    def abort(self) -> None:
        if self._is_over:
            return
        if self._is_sent:
            with suppress(TargetFailed):  # the next run sweeps it
                self._unstage()
        self._end()

    def _unstage(self) -> None:
        """Remove it from `.part`, and that directory when it was the last."""
        *above, directory = ["", *self._name.split("/")[:-1]]
        inside = [f"{PART}/{self._file_name}", f"{PART}/{PARTIAL}/{self._file_name}"]
        base = [word for word in (*above, directory) if word]
        self._place._delete("/".join(base), inside)

    def _end(self) -> None:
        self._is_over = True
        self._file.close()
        self._private.__exit__(None, None, None)


def _sweep_spool(spool: str) -> None:
    """Remove what killed processes of ours left in the spool: directories that nobody holds locked."""
    with _as_failure(spool):
        left = [
            one.path for one in os.scandir(spool) if one.name.startswith(_SPOOL) and one.is_dir(follow_symlinks=False)
        ]
    for path in left:
        with suppress(OSError):  # it is in use, another user's, or just gone
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _as_failure(path: str) -> Iterator[None]:
    """Turns an OSError into TargetFailed with the path."""
    try:
        yield
    except OSError as error:
        raise TargetFailed(f"{path}: {(error.strerror or str(error)).lower()}") from error
