from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.debian_machine import need_machines
from tests.systemd.installed import Installed


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Installed]:
    """A machine on which the package was just installed and the service serves; one for the tests of a file."""
    need_machines()
    with Installed() as machine:
        machine.install(package)
        machine.await_serving()
        yield machine
