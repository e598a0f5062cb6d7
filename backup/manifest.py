"""What is known of one backup, as JSON beside its archives, sealed so that a change of any byte shows.

The seal is the last member: an HMAC-SHA256 of every byte before it where the job has a key, a plain SHA-256 where it
has none (which tells damage, not malice). Check it by hand:
`head -c -$(tail -n 2 manifest.json | wc -c) manifest.json | head -c -2 | openssl dgst -sha256 -hmac KEY`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.core.secrets import Secret
from backup.coding import Coding
from backup.errors import Damaged
from backup.target import check_name

VERSION = 1
FILE_NAME = "manifest.json"
MOST_BYTES = 16 << 20
_SEAL = re.compile(rb',\n  "seal": "((?:hmac-)?sha256):([0-9a-f]{64})"\n}\n\Z')
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Archive:
    """One stored stream. `level`: how far it was verified (0-3). Sizes in bytes, raw before compression."""

    name: str
    stored: str
    extension: str
    raw_bytes: int
    stored_bytes: int
    sha256: str
    compression: str = "none"
    recipients: tuple[str, ...] = ()
    argv: tuple[tuple[str, ...], ...] = ()
    statuses: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    row_estimates: dict[str, int] = field(default_factory=dict)
    level: int = 0

    @property
    def coding(self) -> Coding:
        return Coding(self.compression, self.recipients)


@dataclass(frozen=True, slots=True)
class Missing:
    """A stream that should be in the backup and is not."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup on one target. Times are Unix seconds; None: never.

    `level`: the lowest of its archives'. `rto_s`: how long its last drill took to restore.
    """

    id: str
    host: str
    job: str
    source: str
    started_at: float
    finished_at: float
    archives: tuple[Archive, ...]
    missing: tuple[Missing, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    level: int = 0
    verified_at: float | None = None
    drilled_at: float | None = None
    rto_s: float | None = None
    pinned: bool = False
    version: int = VERSION

    @property
    def prefix(self) -> str:
        """The directory of its objects on the target."""
        return f"{self.host}/{self.job}/{self.id}"

    @property
    def stored_name(self) -> str:
        return f"{self.prefix}/{FILE_NAME}"

    @property
    def is_complete(self) -> bool:
        """Every stream of the source is in it."""
        return bool(self.archives) and not self.missing

    @property
    def is_verified(self) -> bool:
        """What is stored was read back and was what had been sent."""
        return self.is_complete and self.level >= 1 and self.verified_at is not None

    @property
    def raw_bytes(self) -> int:
        return sum(archive.raw_bytes for archive in self.archives)

    @property
    def stored_bytes(self) -> int:
        return sum(archive.stored_bytes for archive in self.archives)

    def summary(self) -> dict[str, Any]:
        """What there is to tell of it in a few values, whatever is in it."""
        return {
            "id": self.id, "finished_at": self.finished_at, "raw_bytes": self.raw_bytes,
            "stored_bytes": self.stored_bytes, "complete": self.is_complete, "verified": self.is_verified,
            "level": self.level, "verified_at": self.verified_at, "drilled_at": self.drilled_at, "rto_s": self.rto_s,
            "pinned": self.pinned,
        }  # fmt: skip

    def archive(self, name: str) -> Archive:
        """The archive of that name. Raise Damaged when there is none."""
        for archive in self.archives:
            if archive.name == name:
                return archive
        known = ", ".join(archive.name for archive in self.archives) or "none"
        raise Damaged(f"{self.id}: has no archive {name!r}; there are: {known}")


def is_backup_id(text: str) -> bool:
    """Whether it has the form of a backup's id: the time in UTC, and a random part."""
    return _ID.fullmatch(text) is not None


def seal(manifest: Manifest, key: Secret | None) -> bytes:
    """The manifest as a file."""
    body = msgspec.json.format(msgspec.json.encode(dataclasses.asdict(manifest), order="sorted"), indent=2)
    content = body.removesuffix(b"\n}")
    return content + f',\n  "seal": "{_kind(key)}:{_mac(content, key)}"\n}}\n'.encode()


def unseal(content: bytes, key: Secret | None, stored_name: str) -> Manifest:
    """The manifest in a file found under `stored_name`. Raise Damaged with what is wrong."""
    match = _SEAL.search(content)
    if match is None or len(content) > MOST_BYTES:
        raise Damaged(f"{stored_name}: has no seal at its end; it is cut off, or no manifest")
    kind, mac = match[1].decode(), match[2].decode()
    if kind != _kind(key):
        found = "is sealed with a key, and the job has none" if key is None else "is not sealed with the job's key"
        raise Damaged(f"{stored_name}: {found}; see manifest_key")
    if not hmac.compare_digest(mac, _mac(content[: match.start()], key)):
        raise Damaged(f"{stored_name}: does not match its seal: it was changed, or sealed with another key")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise Damaged(f"{stored_name}: {error}") from error
    _check(manifest, stored_name)
    return manifest


def _check(manifest: Manifest, stored_name: str) -> None:
    """A manifest without a key is anybody's text: nothing in it may lead elsewhere."""
    if manifest.version > VERSION:
        raise Damaged(f"{stored_name}: is of version {manifest.version}; this program reads up to {VERSION}")
    if not is_backup_id(manifest.id) or manifest.stored_name != stored_name:
        raise Damaged(f"{stored_name}: belongs to {manifest.stored_name!r}; it was copied or moved")
    for archive in manifest.archives:
        directory, _, _ = archive.stored.rpartition("/")
        if directory != manifest.prefix or not _SHA256.fullmatch(archive.sha256):
            raise Damaged(f"{stored_name}: names an archive outside of its own backup: {archive.stored[:100]!r}")
        try:
            check_name(archive.stored)
        except ValueError as error:
            raise Damaged(f"{stored_name}: {error}") from error
        if min(archive.raw_bytes, archive.stored_bytes) < 0:
            raise Damaged(f"{stored_name}: gives {archive.name!r} a negative size")


def _kind(key: Secret | None) -> str:
    return "sha256" if key is None else "hmac-sha256"


def _mac(content: bytes, key: Secret | None) -> str:
    if key is None:
        return hashlib.sha256(content).hexdigest()
    return hmac.new(key.reveal().encode(), content, "sha256").hexdigest()
