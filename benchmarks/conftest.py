"""pytest finds the bench files here: `pytest benchmarks --benchmark-only`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.model import Tick
from benchmarks.snapshot import ticks_of
from tests.collectors.hosts import HostTree


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if file_path.name.startswith("bench_") and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> list[Tick]:
    """All readings of a host with many processors and disks."""
    return ticks_of(HostTree("big", tmp_path_factory.mktemp("host")))
