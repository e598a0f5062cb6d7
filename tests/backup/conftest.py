from __future__ import annotations

from pathlib import Path

import pytest

from tests.backup.hosts import BackedUp
from tests.servers.programs import need


@pytest.fixture
def host(tmp_path: Path) -> BackedUp:
    need("tar", "zstd", "age", "setpriv")
    return BackedUp(tmp_path)
