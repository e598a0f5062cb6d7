"""Fixture hosts for tests of one collector: read where they are, or with only the files it reads copied.

A big host has a thousand files; copying all of them for every test is what such tests would spend their time on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.core.host import Host
from tests.collectors.hosts import FIXTURES, HostTree


def host_at(path: Path) -> Host:
    return Host(proc_root=str(path / "proc"), sys_root=str(path / "sys"), root=str(path))


def fixed_host(name: str) -> Host:
    """The fixture itself, for tests that change nothing."""
    return host_at(FIXTURES / name)


class PartOfHost(HostTree):
    """A copy of these files and folders of a fixture host; those it does not have are missing in the copy as well."""

    def __init__(self, name: str, at: Path, *parts: str) -> None:
        self.name = name
        self.path = at / name
        self.path.mkdir()
        for part in parts:
            source, target = FIXTURES / name / part, self.path / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy(source, target)
        self.host = host_at(self.path)
