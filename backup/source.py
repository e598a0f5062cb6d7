"""What a source is: something that can be read as one or more streams, checked, restored and drilled."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backup import children
from backup.assertions import Assertion, Outcome
from backup.children import Guard, Step
from backup.coding import LEVEL
from backup.errors import BackupError, SourceFailed
from backup.redact import Redactor


@dataclass(frozen=True, slots=True)
class Stream:
    """One archive to be: programs joined by pipes, the last one's output is the archive.

    `name`: of the archive within the backup, any text (a database's name). `extension`: what kind of file it is (`tar`,
    `dump`). `row_estimates`: table to rows, as far as known without counting. `least_bytes`: fewer are an error.
    `after` is called when the programs have ended well; it raises SourceFailed, or returns warnings. `level`: how hard
    to compress where the job does not say.
    """

    name: str
    extension: str
    steps: tuple[Step, ...]
    row_estimates: Mapping[str, int] = field(default_factory=dict)
    least_bytes: int = 1
    after: Callable[[], Sequence[str]] = tuple
    level: int = LEVEL


@dataclass(frozen=True, slots=True)
class Skipped:
    """An archive that cannot be made this time; the backup is not complete without it, the others are still taken."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest keeps of the source: versions of server and tools by name, and what else is worth knowing."""

    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is at a source's place and what the job knows of: what it takes, or leaves out by a pattern.

    `where`: the place in words, the same for every job that reads it. Sources with such a place have a method
    `inventory(work)`, which raises SourceFailed.
    """

    noun: str
    where: str
    there: frozenset[str]
    known: frozenset[str]


def matching(names: Iterable[str], patterns: Sequence[str]) -> frozenset[str]:
    """The names that any of the patterns takes."""
    return frozenset(name for name in names if any(fnmatch.fnmatchcase(name, one) for one in patterns))


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. `refused`: members that were left out, each with the reason."""

    count: int = 0
    size: int = 0
    refused: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(slots=True)
class Work:
    """What a source may use while it works.

    `scratch`: a private directory that is emptied afterwards, readable by `user`. `user`: who the job's programs run
    as, None for who we are. `warn` adds a warning to the result. `undo_path`: file that outlives a killed run; None:
    beside the scratch directory.
    """

    scratch: str
    guard: Guard
    redact: Redactor
    user: str | None = None
    warn: Callable[[str], None] = field(default=lambda _: None)
    undo_path: str | None = None

    def run(self, *argv: str, environment: Mapping[str, str] | None = None, stdin: int | None = None,
            stdout: int | None = None, kind: type[BackupError] = SourceFailed,
            warning_statuses: frozenset[int] = frozenset()) -> bytes:  # fmt: skip
        """Run one program as the job's user. Its output. Raise `kind` when it fails."""
        step = Step(argv, environment or {}, self.user, warning_statuses)
        return children.run(step, self.guard, self.redact, stdin=stdin, stdout=stdout, kind=kind)


class Source(Protocol):
    """Something that can be backed up. Options are dataclass fields; state is attributes."""

    @property
    def drills_apart(self) -> bool:
        """A drill needs nothing but the archive and its plain options, so a process without rights can do it."""
        ...

    def describe(self, work: Work) -> Facts:
        """Versions and other facts. Raise SourceFailed when the source is not there: nothing is written then."""
        ...

    def streams(self, work: Work) -> Iterator[Stream | Skipped]:
        """The archives, one after another; each is read to its end before the next is asked for.

        SourceFailed ends it: what should have come after is missing too. One archive alone is Skipped.

        What must be undone (a snapshot, a paused container) is undone in the generator's `finally`.
        """
        ...

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        """Read an archive's decoded bytes from a pipe and prove that a restore could. Raise Damaged.

        Reading may stop before the end: the caller reads the rest.
        """
        ...

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Restore one archive from a pipe to a directory or database. Raise Refused where it would harm.

        `allow`: what may be done beyond the careful default, as the source's restore documents it (`force`, `links`).
        """
        ...

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        """Restore into something thrown away (inside `work.scratch`, or a server of its own) and look at it.

        `estimates`: rows by table, as the manifest has them. `backup.assertions.judge` does the looking.
        """
        ...

    def sweep(self, work: Work) -> list[str]:
        """Remove what a killed run left behind; what was removed, for the log."""
        ...

    def recipe(self, name: str) -> str:
        """The last command of a pipeline that restores the archive without us, reading it from standard input."""
        ...
