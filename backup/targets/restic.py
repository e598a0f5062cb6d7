"""A restic repository: deduplicated, encrypted by restic itself, on whatever restic can reach.

Each object is a snapshot that holds one file of the object's name, fed to `restic backup --stdin`: so a backup here has
the same manifest, the same checksums, the same verification and the same retention as anywhere else, and a snapshot
without a manifest does not count. A manifest is small: a copy of it rides along as a tag, and one `restic snapshots`
reads them all. Give such a job `compression: {program: none}`: compressed bytes have nothing in common with
yesterday's, and restic compresses what it keeps.

Exit status 3 is restic's warning that a file could not be read. Here the only file is our own stream: it is a failure.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import BinaryIO, ClassVar
from urllib.parse import urlsplit

import msgspec

from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Percent, Seconds
from backup import children
from backup.children import Group, Guard, Step, check_statuses, pipe
from backup.errors import Absent, BackupError, Damaged, Forbidden, TargetFailed
from backup.manifest import FILE_NAME
from backup.redact import Redactor
from backup.relay import READ_BYTES, Outlet
from backup.target import Upload, check_name
from backup.targets.stream_reader import stream_reader
from backup.trusted import check_destination

TAG = "vigilhost"
_COPY = "manifest="  # tag: the manifest itself, deflated, in base 64
_MOST_TAG = 100 << 10  # bytes; the kernel takes 128 KiB for one argument
_MOST_MANIFEST = 16 << 20
_MANY = 200  # snapshots named to one restic
_LOCKED = re.compile(r"already locked|unable to create lock")
_ABSENT = re.compile(r"unable to open config file|repository does not exist|Is there a repository")
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
# What servers of restic's own protocol and of S3 have it say where one may add and not remove.
_FORBIDDEN = re.compile(r"Remove\(<snapshot/[^:]*: (.*(?:403 Forbidden|Access Denied).*)")
_BROKEN = re.compile(r"ciphertext verification failed|invalid hash|hash mismatch")  # what restic says of changed data
_ASK_AGAIN_S = 2.0


class _Found(msgspec.Struct):
    """A snapshot as restic lists it."""

    id: str
    time: str
    paths: list[str] = []
    tags: list[str] = []

    @property
    def name(self) -> str:
        return self.paths[0].lstrip("/") if len(self.paths) == 1 else ""

    @property
    def taken_at(self) -> datetime:
        return datetime.fromisoformat(self.time)


@dataclass(slots=True)
class Restic:
    """Keeps copies in a restic repository. Set the job's compression to none, so that restic finds what is equal."""

    repository: str = required("Repository, as restic's -r takes it.", example="/srv/restic")
    password: Secret = required("Its password.", example="{file: /etc/vigilhost/restic.password}")
    environment: dict[str, Secret] = option(dict, "Variables that restic gets: keys of a cloud's storage.")
    create: bool = option(False, "Make the repository where there is none; false: that is an error.")
    cache: str | None = option(None, "Directory of restic's cache; null: none is kept.", example="/var/cache/restic")
    read_back: Percent = option(
        1.0, "Share of the repository that restic reads and checks with every backup.", minimum=0, maximum=100
    )
    lock_wait: Seconds = option(300.0, "How long another restic is waited for.", minimum=0)
    timeout: Seconds = option(3600.0, "Most time for anything else than an archive: listing, checking, pruning.",
                              minimum=1)  # fmt: skip
    deadline: Seconds = option(6 * 3600.0, "Most time for sending one archive.", minimum=1)
    guard: Guard | None = field(default=None, repr=False)  # of the run: restic ends with it
    _snapshots: list[_Found] | None = field(default=None, init=False, repr=False)

    is_near: ClassVar[bool] = False

    def check(self) -> None:
        """Raise TargetFailed unless the repository is there and opens with the password; make it where asked."""
        for directory in self.directories():
            if os.path.lexists(directory):
                check_destination(directory)
        try:
            self._run("cat", "config", "--no-lock")
        except TargetFailed as error:
            if not _ABSENT.search(str(error)):
                raise
            if not self.create:
                raise TargetFailed(f"{error}; run `restic init`, or set create: true") from None
            self._run("init")

    def begin(self, name: str) -> Upload:
        check_name(name)
        if self._of(name):
            raise TargetFailed(f"{self._shown(name)}: is there already; nothing is overwritten")
        return _ResticUpload(self, name, (), self.deadline)

    def put(self, name: str, content: bytes) -> None:
        """Store it in a new snapshot, then forget those it replaces. A new manifest comes after a look at the data."""
        check_name(name)
        is_manifest = name.rpartition("/")[2] == FILE_NAME
        replaced = [one.id for one in self._of(name)]
        if is_manifest and not replaced and self.read_back:
            self._run("check", f"--read-data-subset={self.read_back:g}%")
        upload = _ResticUpload(self, name, _copy_tag(content) if is_manifest else (), self.timeout)
        try:
            upload.write(content)
            upload.commit()
        finally:
            upload.abort()
        with contextlib.suppress(Forbidden):  # the newest counts, however many there are
            self._forget(replaced)

    def names(self, prefix: str) -> Iterator[str]:
        found = {one.name for one in self._list(fresh=True)}
        yield from sorted(name for name in found if not prefix or name.startswith(f"{prefix}/"))

    def open(self, name: str) -> BinaryIO:
        check_name(name)
        found = self._of(name) or self._of(name, fresh=True)
        if not found:
            raise Absent(f"{self._shown(name)}: no such snapshot")
        newest = found[-1]
        if (copy := _tagged_copy(newest)) is not None:
            return io.BytesIO(copy)
        return self._dump(newest)

    def delete(self, name: str) -> None:
        """Forget its snapshots; with the last of a backup's objects its data go too."""
        check_name(name)
        found = self._of(name, fresh=True)
        if not found:
            return
        self._forget([one.id for one in found])
        directory = f"{name.rpartition('/')[0]}/"
        if not any(one.name.startswith(directory) for one in self._list(fresh=True)):
            self._run("prune")

    def sweep(self, prefix: str) -> list[str]:
        """Remove locks whose owners have died, and manifests that a killed run had replaced but not forgotten."""
        self._run("unlock")
        removed = []
        with contextlib.suppress(Forbidden):  # older manifests harm nothing
            for name in list(self.names(prefix)):
                if older := self._of(name)[:-1]:
                    self._forget([one.id for one in older])
                    removed.append(name)
        return removed

    def free_bytes(self) -> int | None:
        """None, also on a disk of this host: what a backup takes is not its size, but what of it is new."""
        return None

    def directories(self) -> list[str]:
        """A repository may be elsewhere (`sftp:...`)."""
        return [path for path in (self.repository, self.cache or "") if path.startswith("/")]

    def fetch_command(self, name: str) -> list[str]:
        repository = self.redactor()(self.repository)
        return ["restic", "--repo", repository, "dump", "--path", f"/{name}", "latest", f"/{name}"]

    # What is in the repository.

    def _list(self, *, fresh: bool = False) -> list[_Found]:
        """Our snapshots, oldest first."""
        if fresh or self._snapshots is None:
            answer = self._run("snapshots", "--json", "--no-lock", "--tag", TAG)
            try:
                found = msgspec.json.decode(answer or b"[]", type=list[_Found] | None) or []
                self._snapshots = sorted((one for one in found if _is_ours(one)), key=lambda one: one.taken_at)
            except (msgspec.DecodeError, ValueError) as error:
                raise TargetFailed(f"{self._shown('')}: restic's list of snapshots cannot be read: {error}") from error
        return self._snapshots

    def _of(self, name: str, *, fresh: bool = False) -> list[_Found]:
        return [one for one in self._list(fresh=fresh) if one.name == name]

    def _forget(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _MANY):
            self._run("forget", *ids[at : at + _MANY])
        self._snapshots = None

    def _dump(self, found: _Found) -> BinaryIO:
        redact = self.redactor()
        group = Group(guard := Guard(self.deadline, f"restic dump of {found.name}", self.guard), redact)
        group.__enter__()
        read_end, write_end = pipe()
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

        def close() -> None:
            os.close(read_end)
            group.__exit__(None, None, None)
            guard.close()

        try:
            group.start(self.step("dump", "--no-lock", found.id, f"/{found.name}"), null, write_end)
        except BaseException:
            close()
            raise
        finally:
            os.close(write_end)
            os.close(null)

        def chunks() -> Iterator[bytes]:
            while chunk := os.read(read_end, READ_BYTES):
                yield chunk
            try:
                check_statuses(group.wait(), TargetFailed)
            except TargetFailed as error:
                raise (Damaged(str(error)) if _BROKEN.search(str(error)) else error) from None

        return stream_reader(chunks(), close)

    # The program.

    def _run(self, *words: str) -> bytes:
        """Run restic, waiting while the repository is locked; its output. Raise TargetFailed, Forbidden."""
        gives_up_at = monotonic() + self.lock_wait
        while True:
            guard = Guard(self.timeout, f"restic {words[0]}", self.guard)
            output = os.memfd_create("restic")  # a list of snapshots may be long
            try:
                step = _impatient(self.step(*words), guard)
                children.run(step, guard, self.redactor(), stdout=output, kind=TargetFailed)
                with open(output, "rb", closefd=False) as file:
                    file.seek(0)
                    return file.read()
            except BackupError as error:
                if (refusal := _FORBIDDEN.search(str(error))) is not None:
                    self._run("unlock")  # it was ended, and others would wait for its lock
                    raise Forbidden(f"{self._shown('')}: snapshots may not be removed: {refusal[1]}") from None
                if not _LOCKED.search(str(error)) or monotonic() + _ASK_AGAIN_S > gives_up_at:
                    raise TargetFailed(f"{self._shown('')}: {error}") from None
                guard.wait(_ASK_AGAIN_S)
                # The other may have been killed a moment ago: only then this removes its lock.
                self._run("unlock")
            finally:
                guard.close()
                os.close(output)

    def step(self, *words: str) -> Step:
        """Restic with its secrets in the environment, where only its own user and root can read them."""
        cache = ("--cache-dir", self.cache) if self.cache else ("--no-cache",)
        variables = {name: value.reveal() for name, value in self.environment.items()}
        variables |= {"RESTIC_REPOSITORY": self.repository, "RESTIC_PASSWORD": self.password.reveal(), "TZ": "UTC",
                      "RESTIC_PROGRESS_FPS": "0.01"}  # fmt: skip
        return Step(("restic", *cache, *words), variables)

    def redactor(self) -> Redactor:
        """Hides what restic might say of its secrets, the password inside a repository's URL included."""
        inside = urlsplit(self.repository.partition(":")[2]).password
        return Redactor([self.password, *self.environment.values(), *([Secret(inside)] if inside else [])])

    def _shown(self, name: str) -> str:
        return f"restic {self.redactor()(self.repository)}{': ' if name else ''}{name}"


class _ResticUpload:
    """A file on its way into a snapshot, which exists once restic has read the end."""

    def __init__(self, place: Restic, name: str, tags: Sequence[str], deadline: float) -> None:
        self._place = place
        self._name = name
        self._size = 0
        self._is_over = False
        self._guard = Guard(deadline, f"restic backup of {name}", place.guard)
        self._group = Group(self._guard, place.redactor())
        self._output = os.memfd_create("restic")
        read_end, feed = pipe()
        self._feed = Outlet(feed)
        self._group.__enter__()
        words = [word for tag in (TAG, *tags) for word in ("--tag", tag)]
        try:
            step = place.step("backup", "--stdin", "--stdin-filename", name, "--host", name.partition("/")[0],
                              "--quiet", "--json", *words)  # fmt: skip
            self._group.start(_impatient(step, self._guard), read_end, self._output)
        except BaseException:
            self.abort()
            raise
        finally:
            os.close(read_end)

    def write(self, chunk: bytes) -> None:
        try:
            self._feed.write(chunk)
        except BrokenPipeError:
            self._fail("ended before it had read all")
        self._size += len(chunk)

    def finish(self) -> None:
        """Restic sends as it reads; that it has read all is known once it has ended, in `commit`."""

    def reread(self) -> BinaryIO:
        raise TargetFailed(f"{self._shown}: restic checks what it stores; see read_back")

    def commit(self) -> None:
        self._feed.close()
        statuses = self._group.wait()
        self._place._snapshots = None
        if self._guard.reason is not None or any(status.code for status in statuses):
            self._fail("failed")
        snapshot, size = self._summary()
        if size != self._size:
            with contextlib.suppress(Forbidden):
                self._place._forget([snapshot])
            self._fail(f"has {size} bytes of {self._size}")
        self._end()

    def abort(self) -> None:
        """Kill it before its input ends: what it would take for the end of the file would become a snapshot."""
        if not self._is_over:
            self._group.kill()
            self._end()

    @property
    def _shown(self) -> str:
        return self._place._shown(self._name)

    def _fail(self, how: str) -> None:
        """Raise TargetFailed with what restic said of it."""
        self._group.kill()
        said = "; ".join(map(str, self._group.wait()))
        raise TargetFailed(f"{self._shown}: {self._guard.reason or how}: {said}")

    def _summary(self) -> tuple[str, int]:
        """Id of the snapshot and the bytes that restic read."""
        with open(self._output, "rb", closefd=False) as file:
            file.seek(0)
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                found = json.loads(line)
                return str(found["snapshot_id"]), int(found["total_bytes_processed"])
            except (ValueError, KeyError, TypeError):
                continue
        self._fail("does not say what it stored")
        raise AssertionError

    def _end(self) -> None:
        self._is_over = True
        self._feed.close()
        self._group.__exit__(None, None, None)
        self._guard.close()
        os.close(self._output)


def _impatient(step: Step, guard: Guard) -> Step:
    """The same, ended when it says what no other try changes: restic goes on for up to a quarter of an hour."""

    def heard(line: str) -> None:
        if _FULL.search(line) or _FORBIDDEN.search(line):
            guard.stop(line)

    return replace(step, on_line=heard)


def _is_ours(found: _Found) -> bool:
    """Whether it holds one object, by a name that we could have given."""
    try:
        check_name(found.name)
    except ValueError:
        return False
    return True


def _copy_tag(content: bytes) -> tuple[str, ...]:
    """The manifest as a tag; none where it is too long for one."""
    text = _COPY + base64.b64encode(zlib.compress(content, 9)).decode()
    return (text,) if len(text) <= _MOST_TAG else ()


def _tagged_copy(found: _Found) -> bytes | None:
    """The manifest that a snapshot's tag holds. It is sealed, as the one inside is: a wrong one shows."""
    for tag in found.tags:
        if tag.startswith(_COPY):
            inflate = zlib.decompressobj()
            try:
                content = inflate.decompress(base64.b64decode(tag[len(_COPY) :], validate=True), _MOST_MANIFEST)
            except (binascii.Error, zlib.error):
                return None
            return content if inflate.eof else None
    return None
