"""The names of our sources and targets. A class is imported when a job uses it."""

from __future__ import annotations

from collections.abc import Mapping

SOURCES: Mapping[str, str] = {
    "files": "backup.sources.files:Files",
    "sqlite": "backup.sources.sqlite:SQLite",
    "command": "backup.sources.command:Command",
    "postgresql": "backup.sources.postgresql:PostgreSQL",
    "mysql": "backup.sources.mysql:MySQL",
    "redis": "backup.sources.redis:Redis",
    "docker_volume": "backup.sources.docker_volume:DockerVolume",
    "vm_image": "backup.sources.vm_image:VMImage",
    "lxd": "backup.sources.lxd:LXD",
    "snapshot": "backup.sources.snapshot:Snapshot",
}
TARGETS: Mapping[str, str] = {
    "local": "backup.targets.local:Local",
    "rsync": "backup.targets.rsync:Rsync",
    "s3": "backup.targets.s3:S3",
    "restic": "backup.targets.restic:Restic",
}
# Entry-point groups in which other packages offer more of each.
SOURCE_GROUP = "vigilhost.backup_sources"
TARGET_GROUP = "vigilhost.backup_targets"
