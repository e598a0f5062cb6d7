from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import __version__
from tests.packaging.built import built_deb
from tests.packaging.root import Root, need_overlay
from tests.servers.programs import need


@pytest.fixture(scope="session")
def dist(deb: Path) -> Path:
    """The directory of the built packages."""
    return deb.parent


@pytest.fixture(scope="session")
def deb() -> Path:
    need("dpkg-deb", "dpkg-shlibdeps", "strip")
    return built_deb()


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (package,) = dist.glob(f"vigilhost-{__version__}-*.whl")
    return package


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A machine without the package."""
    need_overlay()
    with Root(tmp_path / "root") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def installed(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A machine with it, for tests that leave it as it is."""
    need_overlay()
    with Root(tmp_path_factory.mktemp("installed") / "root") as machine:
        machine.run("dpkg", "--install", machine.put(deb))
        yield machine
