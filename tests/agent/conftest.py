from __future__ import annotations

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
