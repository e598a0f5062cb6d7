"""A backup brought back, and the plain commands that do the same without us."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from backup.errors import Refused
from backup.manifest import Archive, Manifest
from backup.source import Restored, Source, Work
from backup.target import Target, safe_word
from backup.verify import decoded, fetch

KEY_PLACE = "/path/to/age-identity.txt"


@dataclass(frozen=True, slots=True)
class Part:
    """One archive and where it goes."""

    archive: Archive
    to: str


def parts(manifest: Manifest, to: str, only: Sequence[str] = (), *, is_directory: bool = True) -> list[Part]:
    """What is restored to where: the archives of a backup, or those named. Raise Damaged for a name it does not have.

    A single archive goes to `to` itself. Several go to directories of their names below `to`, which need not exist.
    """
    wanted = [manifest.archive(name) for name in only] if only else list(manifest.archives)
    if not wanted:
        raise Refused(f"{manifest.id}: holds no archive")
    if len(wanted) == 1:
        return [Part(wanted[0], to)]
    if not is_directory:
        names = ", ".join(one.name for one in wanted)
        raise Refused(f"{manifest.id}: holds several archives ({names}); write which, like --archive {wanted[0].name}")
    return [Part(one, os.path.join(to, safe_word(one.name))) for one in wanted]


def restore(wanted: Sequence[Part], target: Target, source: Source, work: Work, *, identity: str | None = None,
            allow: frozenset[str] = frozenset()) -> list[Restored]:  # fmt: skip
    """Prove each archive to be what was written, then let the source restore it. Raise Damaged, Refused, Stopped.

    `allow`: what the source may do beyond the careful default (`force`, `links`, `setuid`).
    """
    done = []
    for part in wanted:
        with fetch(part.archive, target, work) as file:
            if len(wanted) > 1:
                os.makedirs(os.path.dirname(part.to), mode=0o700, exist_ok=True)
            done.append(decoded(file, part.archive, lambda plain, part=part: source.restore(  # type: ignore[misc]
                part.archive.name, plain, part.to, work, allow), work, identity))  # fmt: skip
    return done


def recipe(manifest: Manifest, target: Target, source: Source) -> str:
    """Shell commands that prove and restore each archive with plain tools, for the day on which we are not there."""
    lines = [f"# {manifest.job} of {manifest.host}, {manifest.id}"]
    for archive in manifest.archives:
        fetching = shlex.join(target.fetch_command(archive.stored))
        lines += [f"# {archive.name}", f"{fetching} | sha256sum  # {archive.sha256}",
                  " | ".join([fetching, *_decoding(archive), source.recipe(archive.name)])]  # fmt: skip
    return "\n".join(lines) + "\n"


def _decoding(archive: Archive) -> list[str]:
    steps = [f"age --decrypt -i {KEY_PLACE}"] if archive.recipients else []
    return steps + (["zstd -d"] if archive.compression == "zstd" else [])
