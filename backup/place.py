"""One target in one run: what is asked of it, how long that may take, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from backup import catalogue
from backup.catalogue import Catalogue
from backup.children import Guard
from backup.errors import BackupError
from backup.hand import Hand, Watch
from backup.job import Job
from backup.manifest import Archive, Manifest
from backup.retention import Retention
from backup.target import Target, Upload

T = TypeVar("T")
_MOST_KEPT = 300  # backups of a target that a result names, the newest
_SHARE = 0.25  # of a run's time that one target may take from the others
_RESERVE = 0.1  # of a run's time that is left to the others when a far one is given up
_LEAST_S = 60.0  # a disk that sleeps has to spin up
# Beyond the run's time, so that a stop still drops what it interrupts.
_DROP_S, _ABORT_S, _FREE_S = 20.0, 20.0, 5.0


def share_s(job: Job) -> float:
    """How long, in seconds, one target may hold up the others."""
    return job.limits.deadline * _SHARE


@dataclass(slots=True)
class Place:
    """A target in a run, asked on a thread of its own. `error`: why nothing more is sent there.

    What runs for it ends with `guard`, which ends with the run's.
    """

    name: str
    job: Job
    host: str
    guard: Guard
    rules: Retention = field(init=False)
    target: Target = field(init=False)
    hand: Hand = field(init=False)
    earlier: Catalogue = field(default_factory=lambda: Catalogue((), ()))
    archives: list[Archive] = field(default_factory=list)
    manifest: Manifest | None = None
    deleted: set[str] = field(default_factory=set)  # ids
    error: str | None = None

    def __post_init__(self) -> None:
        self.rules = self.job.retention_of(self.name)
        self.target = self._build(self.guard)
        self.hand = Hand(self.name)

    def _build(self, guard: Guard) -> Target:
        target: Target = self.job.targets[self.name].build(job=self.job.name, host=self.host, guard=guard)
        return target

    def ask(self, call: Callable[[], T], *, is_short: bool = False, is_alone: bool = False,
            watch: Watch | None = None) -> T:  # fmt: skip
        """Have the target do something; what it returns.

        What is near answers within `limits.stall`, or a minute. What is far has limits of its own; `is_short`: this
        should not take a large part of the run; `is_alone`: there is no other target, so that it may take all of it.
        Raise what the call raises, TargetFailed, Stopped.
        """
        self.guard.check()
        limit_s: float | None = max(self.job.limits.stall, _LEAST_S)
        if not self.target.is_near:
            limit_s = share_s(self.job) if is_short else None
            if not is_alone and self.guard.ends_at is not None:
                left_s = self.guard.ends_at - monotonic() - _RESERVE * self.job.limits.deadline
                limit_s = max(1.0, left_s if limit_s is None else min(limit_s, left_s))
        return self.hand.do(call, self.guard, limit_s, watch)

    def give_up(self, error: str) -> None:
        """Nothing more is sent there, for this reason. What does not come back is ended, where it is a program."""
        self.error = error
        if self.hand.is_stuck:
            self.guard.stop(f"{self.name}: was given up")

    def abort(self, upload: Upload) -> None:
        """Drop what was not committed; one that hangs is left alone."""
        self._try(upload.abort, self.guard, _ABORT_S)

    def drop(self, manifest: str) -> None:
        """Remove the archives of a run without a manifest.

        That one, stored as `manifest`, may have arrived although storing it failed. It goes first; where it cannot,
        what it names stays.
        """
        # Time of its own: the run's may be over, which is why there is something to drop.
        guard = Guard(_DROP_S, f"{self.name}: dropping what is not finished")
        names = [manifest, *(one.stored for one in self.archives)]

        def drop() -> None:
            target = self._build(guard)
            for name in names:
                target.delete(name)

        self._try(drop, guard, _DROP_S)
        guard.close()

    def _try(self, call: Callable[[], T], guard: Guard, limit_s: float) -> T | None:
        """What it returned; None when that failed, which the next run mends."""
        try:
            return self.hand.do(call, guard, limit_s)
        except (BackupError, OSError):
            return None

    def close(self) -> None:
        self.hand.close()
        self.guard.close()

    # What is known of it.

    def look(self, prefix: str) -> None:
        """Read what is kept there."""
        read = partial(catalogue.read, self.target, prefix, self.job.manifest_key)
        self.earlier = self.ask(read, is_short=True)

    def result(self) -> dict[str, Any]:
        """What became of it. Times are of its newest backups, this one included."""
        known = [*self.earlier.manifests, *([self.manifest] if self.manifest is not None else [])]
        kept = Catalogue(tuple(one for one in known if one.id not in self.deleted), ())
        complete = [one.finished_at for one in known if one.is_complete]
        verified = [one.verified_at for one in known if one.is_verified]
        return {
            "status": "ok" if self.error is None and self.manifest is not None else "fail", "error": self.error,
            "level": self.manifest.level if self.manifest else 0, "deleted": len(self.deleted),
            "stored_bytes": self.manifest.stored_bytes if self.manifest else 0,
            "last_success_at": max(complete, default=None),
            "last_verified_at": max(filter(None, verified), default=None),
            "last_drill_at": max((one.drilled_at for one in known if one.drilled_at is not None), default=None),
            "backups": len(kept.manifests), "kept": [one.summary() for one in kept.manifests[-_MOST_KEPT:]],
            # For the run after this one, so that somebody can make room before it begins.
            "expected_bytes": kept.forecast(), "free_bytes": self._try(self.target.free_bytes, Guard(), _FREE_S),
        }  # fmt: skip
