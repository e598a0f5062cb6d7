"""The fixture hosts where they lie, for tests that only read: copying a big one takes most of a second."""

from __future__ import annotations

from agent.core.host import Host
from tests.collectors.hosts import FIXTURES


def untouched(name: str) -> Host:
    """The host `tests/fixtures/hosts/NAME` itself."""
    at = FIXTURES / name
    return Host(proc_root=str(at / "proc"), sys_root=str(at / "sys"), root=str(at))
