"""The whole round of a source as an operator sees it: a job in YAML, a worker, a restore, a drill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from backup.apart import Apart, child
from backup.assertions import Assertion, Outcome
from backup.drill import Evidence, drill
from backup.errors import BackupError
from backup.job import Job
from backup.manifest import Manifest
from backup.redact import Redactor, secrets_in
from backup.restore import parts, recipe, restore
from backup.source import Restored, Source, Work
from backup.verify import Verified, verify
from tests.backup.hosts import HOST, BackedUp, Ended, built_source, ended

NOBODY = "nobody"
HELPER = (sys.executable, "-P", "-m", "agent.cli.main", "backup-drill-helper")
CANARY = "c4nary-of-the-Password"


@dataclass
class Round:
    """One job of a host. `scratch`: a directory that the job's user owns; None: the host's."""

    host: BackedUp
    job: Job
    scratch: Path | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def source(self) -> Source:
        source: Source = built_source(self.job)
        return source

    def work(self) -> Work:
        work = self.host.work()
        work.redact = Redactor(secrets_in(self.job.plugin.options))
        work.user = self.job.user
        work.warn = self.warnings.append
        if self.scratch is not None:
            work.scratch = str(self.scratch)
        return work

    def back_up(self) -> Manifest:
        """Run the worker, which must succeed; its manifest."""
        done = self.host.run(self.job.name)
        assert done.result["status"] in ("ok", "warn"), (done.result, done.stderr)
        return self.newest

    @property
    def newest(self) -> Manifest:
        return max(self.host.manifests(self.job.name), key=lambda one: (one.finished_at, one.id))

    def restore(self, to: str, only: Sequence[str] = (), allow: Sequence[str] = ()) -> list[Restored]:
        wanted = parts(self.newest, to, only)
        return restore(wanted, self.host.target(), self.source, self.work(), allow=frozenset(allow))

    def drill(self, *assertions: dict[str, Any]) -> Evidence:
        given = [Assertion(**one) for one in assertions]
        return drill(self.newest, self.host.target(), self.source, self.work(), given, now=time.time())

    def drill_apart(self, *assertions: dict[str, Any]) -> Evidence:
        """The same as root does it: in a process of nobody's."""
        given = [Assertion(**one) for one in assertions]
        with tempfile.TemporaryDirectory(prefix="vh-apart-", dir="/var/tmp") as scratch:
            shutil.chown(scratch, NOBODY)
            apart = Apart(self.job, HOST, partial(child, HELPER, scratch, NOBODY), "its standard error")
            return drill(self.newest, self.host.target(), self.source, self.work(), given, now=time.time(),
                         apart=apart)  # fmt: skip

    def verify(self) -> Verified:
        return verify(self.newest, self.host.target(), self.source, self.work(), level=2, now=time.time())

    def by_hand(self, name: str, environment: dict[str, str], **words: str) -> None:
        """Restore an archive as the printed recipe says, with `words` in place of its capital ones."""
        lines = recipe(self.newest, self.host.target(), self.source).splitlines()
        line = lines[lines.index(f"# {name}") + 2]
        for word, value in words.items():
            line = line.replace(word, value)
        subprocess.run(["bash", "-o", "pipefail", "-ec", line], check=True, capture_output=True,
                       env={"PATH": os.environ["PATH"], **environment}, timeout=60)  # fmt: skip

    def check(self, name: str, content: bytes) -> BackupError | None:
        """What the source's decode check says of some bytes; None when it finds them right."""
        try:
            with as_pipe(content) as plain:
                self.source.decode_check(name, plain, self.work())
        except BackupError as error:
            return error
        return None

    def content(self, name: str) -> bytes:
        """An archive as the source gave it."""
        stored = self.host.store / self.newest.archive(name).stored
        return subprocess.run(["zstd", "-dcq", stored], capture_output=True, check=True).stdout


@contextmanager
def reachable(user: str) -> Iterator[Path]:
    """A scratch directory of that user, outside of pytest's, into which nobody but root can look."""
    with tempfile.TemporaryDirectory(prefix="vh-scratch-") as directory:
        os.chmod(directory, 0o711)
        scratch = Path(directory, "scratch")
        scratch.mkdir(mode=0o700)
        shutil.chown(scratch, user)
        yield scratch


def outcomes(evidence: Evidence, archive: str) -> dict[str, bool]:
    return {one.assertion: one.is_met for one in evidence.archives[archive]}


def unmet(evidence: Evidence) -> list[Outcome]:
    return [one for found in evidence.archives.values() for one in found if not one.is_met]


@contextmanager
def as_pipe(content: bytes) -> Iterator[int]:
    """Bytes to be read from a pipe, by somebody who may stop early."""
    read_end, write_end = os.pipe()

    def write() -> None:
        try:
            with open(write_end, "wb") as pipe:
                pipe.write(content)
        except BrokenPipeError:
            pass  # the reader has seen enough

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        writer.join()


def watched_run(host: BackedUp, name: str = "job") -> tuple[Ended, set[str]]:
    """Run a worker and meanwhile read the command line of every process that it has; all that were seen."""
    worker = host.start(name)
    seen: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.002):
            for pid in _descendants(worker.pid):
                with suppress(FileNotFoundError, ProcessLookupError):  # it was faster
                    seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        return ended(worker), seen
    finally:
        is_over.set()
        looker.join()


def _descendants(pid: int) -> Iterator[int]:
    """As the kernel lists them: a look through all of /proc would take longer than a small dump."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                    yield child
                    yield from _descendants(child)


def leaks(host: BackedUp, done: Ended, seen: set[str]) -> list[str]:
    """Where the canary password shows: argument lists, events, standard error, stored manifests."""
    manifests = [path.read_text() for path in host.store.rglob("manifest.json")]
    said = [*seen, repr(done.events), done.stderr, *manifests]
    return [text for text in said if CANARY in text]
