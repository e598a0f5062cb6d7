"""The backups on a target, known from their manifests alone: nothing else has to survive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core.secrets import Secret
from backup.errors import Damaged, TargetFailed
from backup.manifest import FILE_NAME, MOST_BYTES, Manifest, is_backup_id, seal, unseal
from backup.target import Target

FORECAST_MARGIN = 1.1  # on the largest of the last backups
_FORECAST_FROM = 3


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The backups by the time they were finished, oldest first, and the manifests that cannot be believed."""

    manifests: tuple[Manifest, ...]
    damaged: tuple[str, ...]  # one sentence each

    def forecast(self) -> int:
        """Bytes that the next backup will probably take; 0 when nobody knows."""
        complete = [one.stored_bytes for one in self.manifests if one.is_complete]
        return round(FORECAST_MARGIN * max(complete[-_FORECAST_FROM:], default=0))

    def newest_verified(self) -> Manifest | None:
        return next((one for one in reversed(self.manifests) if one.is_verified), None)

    def find(self, wanted: str, at: float | None = None) -> Manifest:
        """`latest` (the newest complete one), an id, or with `at` the newest complete one finished by then.

        Raise TargetFailed when there is none.
        """
        if wanted == "latest":
            found = [one for one in self.manifests if one.is_complete and (at is None or one.finished_at <= at)]
            if found:
                return found[-1]
            raise TargetFailed("no complete backup" + (" of that time or before" if at is not None else ""))
        matching = [one for one in self.manifests if one.id == wanted or one.id.startswith(wanted)]
        if len(matching) == 1:
            return matching[0]
        raise TargetFailed(f"{wanted}: {'more than one backup begins so' if matching else 'no such backup'}")


def read(target: Target, prefix: str, key: Secret | None) -> Catalogue:
    """Every manifest below `prefix` (`host/job`, `host`, or "" for all). Raise TargetFailed."""
    return _catalogue(target, [name for name in target.names(prefix) if _is_manifest(name)], key)


def _catalogue(target: Target, names: Sequence[str], key: Secret | None) -> Catalogue:
    manifests: list[Manifest] = []
    damaged: list[str] = []
    for name in names:
        try:
            manifests.append(_manifest(target, name, key))
        except (Damaged, TargetFailed) as error:
            damaged.append(str(error))
    # Never by name or by the file's time: a copy of a disk changes both.
    manifests.sort(key=lambda one: (one.finished_at, one.id))
    return Catalogue(tuple(manifests), tuple(sorted(damaged)))


def _manifest(target: Target, name: str, key: Secret | None) -> Manifest:
    with target.open(name) as file:
        return unseal(file.read(MOST_BYTES + 1), key, name)


def again(target: Target, manifest: Manifest, key: Secret | None) -> Manifest | None:
    """The same backup as its manifest has it now, for whoever holds its job; None: it was deleted since it was read.

    Raise Damaged, TargetFailed.
    """
    if manifest.stored_name not in target.names(manifest.prefix):
        return None
    return _manifest(target, manifest.stored_name, key)


def write(target: Target, manifest: Manifest, key: Secret | None) -> None:
    """Store or replace a manifest: from here on the backup exists. Raise TargetFailed."""
    target.put(manifest.stored_name, seal(manifest, key))


def delete(target: Target, manifest: Manifest) -> None:
    """Remove a backup. The manifest goes first: what is left of a killed deletion is swept, not restored from."""
    target.delete(manifest.stored_name)
    for archive in manifest.archives:
        target.delete(archive.stored)


def sweep(target: Target, prefix: str) -> list[str]:
    """Remove what killed runs left below `prefix` (`host/job`), whose lock we hold; what was removed.

    A backup with a manifest is left alone, also when that manifest cannot be believed.
    """
    removed = target.sweep(prefix)
    names = list(target.names(prefix))
    finished = {name.rpartition("/")[0] for name in names if _is_manifest(name)}
    for name in names:
        words = name.removeprefix(f"{prefix}/").split("/")
        # Only what has the form that we give: host/job/id/file. Anything else somebody else has put there.
        if len(words) == 2 and is_backup_id(words[0]) and name.rpartition("/")[0] not in finished:
            target.delete(name)
            removed.append(name)
    return removed


def _is_manifest(name: str) -> bool:
    return name.rpartition("/")[2] == FILE_NAME
