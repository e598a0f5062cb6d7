"""What a backup job is: one file of `backup.d`, named after it. The words of its YAML are the options here.

The source and the targets are entries of plugin tables; the loader of the configuration makes them, and a Plugin is all
that this room needs to know of such an entry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes, Percent, Seconds
from backup.assertions import Assertion
from backup.coding import Compression, Encryption
from backup.retention import Retention, check_preset, policy
from backup.schedule import Schedule, check_schedule

GRACE_S = 360.0  # beyond a job's deadline: undoing may take 300 s of it
NAME = re.compile(r"[a-z0-9_-]{1,32}")


def check_job_name(name: str) -> None:
    """Raise ValueError unless it can be a job's name: it travels over a socket to a helper that runs as root."""
    if not NAME.fullmatch(name):
        raise ValueError("is no name of a job; use 1 to 32 of a-z, 0-9, _ and -")


class Plugin(Protocol):
    """An entry of a table of sources or targets, as the configuration's loader makes it."""

    name: str
    type: str
    options: dict[str, Any]
    common: Any

    def build(self, **given: Any) -> Any:
        """A new source or target. Raise ValueError when its options do not go together."""
        ...


@dataclass(frozen=True, slots=True)
class SourceCommon:
    """Options that every source has beside its own."""

    enabled: bool = option(True, "Whether it is the job's source.")


@dataclass(frozen=True, slots=True)
class TargetCommon:
    """Options that every target has beside its own."""

    enabled: bool = option(True, "Whether copies are sent there.")
    retention: str | Retention | None = option(
        None, "Which copies stay there; null: as the job says.", check=check_preset
    )


@dataclass(frozen=True, slots=True)
class Verification:
    """How far a backup is proved before it counts."""

    level: int = option(
        2, "0: sizes and exit statuses; 1: read back; 2: decoded; 3: downloaded again from far targets.",
        minimum=0, maximum=3,
    )  # fmt: skip
    min_bytes: Bytes = option(1, "An archive that is smaller, before compression, is a failure.", minimum=1)
    shrink_warning: Percent = option(50.0, "Warn when an archive is smaller than its median by this much.", minimum=1,
                                     maximum=100)  # fmt: skip
    sample: Percent = option(
        10.0, "Share of the archives that level 3 downloads, at least one.", minimum=1, maximum=100
    )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Pings to a service that raises the alarm when a run fails or none comes: healthchecks and its like."""

    url: Secret = required("Address that is pinged after a good run; with /start and /fail behind it at the start and "
                           "after a bad one.", example="{file: /etc/vigilhost/etc-backup.url}")  # fmt: skip
    start: Secret | None = option(None, "Address for the start, where the service calls it something else.")
    fail: Secret | None = option(None, "Address for a failure, where the service calls it something else.")
    suffixes: bool = option(True, "Whether the service knows /start and /fail; otherwise only good runs are told.")
    deadline: Seconds = option(
        20.0, "Longest time for one ping, with everything that is tried again.", minimum=1, maximum=50
    )


@dataclass(frozen=True, slots=True)
class Drill:
    """A restore into something thrown away, to prove that it can be done and to measure how long it takes."""

    schedule: str = option("monthly 1 05:00", "When, in the forms of the job's schedule; never: only by hand.",
                           check=check_schedule)  # fmt: skip
    target: str | None = option(None, "Target to restore from; null: the first.")
    assertions: list[Assertion] = option(list, "What must be true of it.", example="[{min_rows: {users: 1000}}]")
    deadline: Seconds = option(6 * 3600.0, "Most time it may take.", minimum=1)
    heartbeat: Heartbeat | None = option(None, "Who is told of every drill that the agent has done.")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Programs run around a backup, each a list of absolute path and arguments; nobody else may be able to write them.

    They get VIGILHOST_JOB, VIGILHOST_BACKUP and, afterwards, VIGILHOST_STATUS (ok, warn or fail).
    """

    before: list[list[str]] = option(list, "Before the source is read; a failure ends the run.",
                                     example="[[/usr/bin/systemctl, stop, app]]")  # fmt: skip
    after: list[list[str]] = option(list, "Afterwards in any case, also when `before` failed.")
    on_error: list[list[str]] = option(list, "When the run failed, before `after`.")
    deadline: Seconds = option(600.0, "Most time that each may take.", minimum=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take from the host."""

    rate: Bytes | None = option(None, "Most bytes a second that are written; null: as fast as it goes.", minimum=1024)
    nice: int = option(19, "Niceness of processor time; input and output are idle class.", minimum=0, maximum=19)
    deadline: Seconds = option(6 * 3600.0, "Most time that a run may take.", minimum=1)
    stall: Seconds = option(600.0, "Most time without a byte from the source or into a target.", minimum=1)


@dataclass(frozen=True, slots=True)
class Job:
    """What is backed up, when, to where, and how well it must be proved."""

    source: dict[str, Any] = field(
        metadata={"help": "What is backed up: one entry.", "plugins": "backup_sources"}, default_factory=dict
    )
    targets: dict[str, Any] = field(
        metadata={"help": "Where copies are kept.", "plugins": "backup_targets"}, default_factory=dict
    )
    schedule: str | Schedule = option("daily 03:00", "When it runs.", check=check_schedule)
    user: str | None = option(None, "User that the source's programs run as; null: the user of the worker.")
    compression: Compression = option(Compression, "How archives are made smaller.")
    encryption: Encryption = option(Encryption, "Who can read the archives.")
    retention: str | Retention = option("7d+monthly", "Which copies stay: a preset or rules.", check=check_preset)
    verification: Verification = option(Verification, "How far a backup is proved.")
    drill: Drill | None = option(None, "Restores that prove it; null: none.")
    hooks: Hooks = option(Hooks, "Programs run around it.")
    limits: Limits = option(Limits, "What it may take from the host.")
    heartbeat: Heartbeat | None = option(None, "Who is told of every run, beside the agent's own alerts.")
    rpo: Seconds | None = option(
        None, "Oldest that the newest good copy may be; null: twice the longest time between two runs.", example="26h",
        minimum=1,
    )  # fmt: skip
    rto: Seconds | None = option(None, "Longest that a restore may take.", example="1h", minimum=1)
    manifest_key: Secret | None = option(
        None, "Key that seals manifests; keep a copy off this host.", example="{file: /etc/vigilhost/manifest.key}"
    )
    enabled: bool = option(True, "Whether it is scheduled.")
    name: str = ""  # of its file, given by the loader

    def __post_init__(self) -> None:
        if len(self.source) != 1:
            found = ", ".join(self.source) or "none"
            raise ValueError(f"source: found {found}; a job has one source, like {{files: {{paths: [/etc]}}}}")
        if not self.targets:
            raise ValueError("targets: found none; write at least one, like {local: {path: /srv/backup}}")
        if self.drill is not None and self.drill.target is not None and self.drill.target not in self.targets:
            raise ValueError(f"drill.target: {self.drill.target!r} is none of the targets: {', '.join(self.targets)}")
        for part, argvs in (("before", self.hooks.before), ("after", self.hooks.after),
                            ("on_error", self.hooks.on_error)):  # fmt: skip
            if not all(argv and argv[0].startswith("/") for argv in argvs):
                raise ValueError(f"hooks.{part}: each is a list that begins with an absolute path")

    @property
    def plugin(self) -> Plugin:
        """The source's entry."""
        entry: Plugin = next(iter(self.source.values()))
        return entry

    @property
    def patience_s(self) -> float:
        """How long a run is waited for: its deadline, which the worker keeps itself, and what may come after that."""
        hooks = self.hooks
        count = len(hooks.before) + len(hooks.on_error) + len(hooks.after)
        return self.limits.deadline + GRACE_S + count * hooks.deadline

    @property
    def times(self) -> Schedule:
        """The schedule with all its options."""
        return Schedule(self.schedule) if isinstance(self.schedule, str) else self.schedule

    @property
    def drill_times(self) -> Schedule | None:
        """When it is drilled, with the other options of its own schedule; None for a job without drills."""
        return None if self.drill is None else replace(self.times, at=self.drill.schedule)

    def retention_of(self, target: str) -> Retention:
        """The rules for one target: its own, or the job's."""
        own = getattr(self.targets[target].common, "retention", None)
        return policy(self.retention if own is None else own)
