"""The restore drill: a backup brought back into something thrown away, looked at, and timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

from backup.apart import Apart
from backup.assertions import Assertion, Outcome
from backup.errors import BackupError, Refused, Stopped, TargetFailed, reason
from backup.manifest import Archive, Manifest
from backup.source import Source, Work
from backup.target import Target
from backup.verify import decoded, fetch, speaks_against

LEVEL = 4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a drill found. `rto_s`: seconds in which the archives were read, restored and looked at.

    `target`: what the job calls the target that the copy was on.
    """

    backup: str
    job: str
    started_at: float
    rto_s: float
    archives: Mapping[str, Sequence[Outcome]]
    error: str | None = None
    target: str = ""

    @property
    def is_passed(self) -> bool:
        """Every archive was restored and everything asserted is so."""
        return self.error is None and all(one.is_met for found in self.archives.values() for one in found)

    def report(self) -> dict[str, Any]:
        """As JSON, to be kept."""
        return {"passed": self.is_passed, "level": LEVEL, **asdict(self)}


def drill(manifest: Manifest, target: Target, source: Source, work: Work, assertions: Sequence[Assertion], *,
          now: float, identity: str | None = None, apart: Apart | None = None) -> Evidence:  # fmt: skip
    """Drill every archive of a backup. What fails is in the evidence.

    Raise Refused when an archive could not be drilled and nothing was found against the others, and Stopped. `apart`:
    does it in a process without rights, for sources that need nothing but the archive; None: we do it here.
    """
    took_s = 0.0
    found: dict[str, Sequence[Outcome]] = {}
    wrong = [] if manifest.is_complete else [f"{manifest.id}: is not complete"]
    undone: Refused | None = None
    for archive in manifest.archives:
        mine = [one for one in assertions if (one.archive or manifest.archives[0].name) == archive.name]
        try:
            began = time.monotonic()
            with fetch(archive, target, work) as file:
                took_s += time.monotonic() - began
                if apart is not None and source.drills_apart:
                    found[archive.name], more_s = apart.drill(archive, file, work, mine, identity)
                else:
                    found[archive.name], more_s = _drill(archive, file, source, work, mine, identity)
            took_s += more_s
        except Stopped:
            raise
        except (BackupError, OSError) as error:
            work.guard.check()
            if _says_nothing(error, manifest, target):
                found[archive.name] = []
                undone = undone or Refused(f"{archive.name}: {reason(error)}")
            else:
                found[archive.name] = [Outcome("can be restored", is_met=False, found=str(error))]
    known = {archive.name for archive in manifest.archives}
    for one in assertions:
        if one.archive is not None and one.archive not in known:
            found[one.archive] = [Outcome("is in the backup", is_met=False)]
    evidence = Evidence(manifest.id, manifest.job, now, round(took_s, 3), found, "; ".join(wrong) or None)
    if undone is None:
        return evidence
    if evidence.is_passed:
        raise undone
    return replace(evidence, error="; ".join([*wrong, str(undone)]))  # what is damaged is told before what is not known


def _says_nothing(error: BackupError | OSError, manifest: Manifest, target: Target) -> bool:
    """Whether it is no word against the backup: nothing was done, or the way to it was in the way."""
    if isinstance(error, TargetFailed):
        return not speaks_against(error, manifest, target)
    return isinstance(error, Refused | OSError)


def _drill(archive: Archive, file: BinaryIO, source: Source, work: Work, assertions: Sequence[Assertion],
           identity: str | None) -> tuple[Sequence[Outcome], float]:  # fmt: skip
    began = time.monotonic()
    outcomes = decoded(
        file, archive, lambda plain: source.drill(archive.name, plain, work, assertions, archive.row_estimates),
        work, identity,
    )  # fmt: skip
    return outcomes, time.monotonic() - began


def drilled(manifest: Manifest, evidence: Evidence) -> Manifest:
    """The manifest after a drill: one that did not pass leaves it as it was."""
    if not evidence.is_passed:
        return manifest
    return replace(manifest, drilled_at=evidence.started_at, rto_s=evidence.rto_s)
