from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.hosts import HOST, BackedUp
from tests.servers.programs import need


@pytest.fixture
def host(tmp_path: Path) -> BackedUp:
    """With one small file to back up, and a configuration of the agent."""
    need("tar", "zstd", "setpriv")
    found = BackedUp(tmp_path)
    (found.source / "file").write_text("hello\n")
    (tmp_path / "vigilhost.yaml").write_text(f"hostname: {HOST}\n")
    return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the service manager hears what it is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(5)
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener
