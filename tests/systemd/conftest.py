from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.built import built_deb
from tests.servers.debian_machine import need_machines
from tests.systemd.installed import Installed


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb of this checkout, or that of $VIGILHOST_DEB."""
    need_machines()
    return Path(os.environ["VIGILHOST_DEB"]) if "VIGILHOST_DEB" in os.environ else built_deb()


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Installed]:
    """A machine on which the package was just installed and the service serves; one for the tests of a file."""
    with Installed() as machine:
        machine.install(package)
        machine.await_serving()
        yield machine
