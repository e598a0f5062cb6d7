"""Manifests made up for tests of what only looks at manifests."""

from __future__ import annotations

from typing import Any

from backup.manifest import Archive, Manifest, Missing

SHA = "0" * 64
DAY = 86400.0
NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC, a Tuesday


def archive(name: str = "files", prefix: str = "", **more: Any) -> Archive:
    given = {"extension": "tar", "raw_bytes": 1000, "stored_bytes": 100, "sha256": SHA, "level": 2, **more}
    return Archive(name=name, stored=f"{prefix}/{name}.tar", **given)


def manifest(number: int, finished_at: float, *, verified: bool = True, complete: bool = True, **more: Any) -> Manifest:
    """Backup number so-and-so of job `job`, finished then."""
    made = f"20231114T221320Z-{number:06x}"
    given = {
        "id": made, "host": "web1", "job": "job", "source": "files", "started_at": finished_at - 60,
        "finished_at": finished_at, "archives": (archive(prefix=f"web1/job/{made}"),),
        "missing": () if complete else (Missing("other", "it failed"),),
        "level": 2 if verified else 0, "verified_at": finished_at if verified else None, **more,
    }  # fmt: skip
    return Manifest(**given)
