"""Hosts made of files: a copy of `tests/fixtures/hosts/NAME`, which a test may age or damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from agent.core.host import Host
from agent.core.model import Failed, Reading, Value

FIXTURES = Path(__file__).parent.parent / "fixtures" / "hosts"
NAMES = ("small", "big", "container")


class HostTree:
    """One fixture host, copied so that kept descriptors see later changes."""

    def __init__(self, name: str, at: Path) -> None:
        self.name = name
        self.path = at / name
        shutil.copytree(FIXTURES / name, self.path, symlinks=True)
        self.host = Host(proc_root=str(self.path / "proc"), sys_root=str(self.path / "sys"), root=str(self.path))

    def write(self, name: str, text: str | bytes) -> None:
        """Replace a file's content in place (same inode), as the kernel's files change under an open descriptor."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def later(self) -> None:
        """Overlay `tests/fixtures/hosts/NAME.later`: the same host some seconds on."""
        overlay = FIXTURES / f"{self.name}.later"
        for source in sorted(path for path in overlay.rglob("*") if path.is_file()):
            self.write(str(source.relative_to(overlay)), source.read_bytes())


def readings(items: Iterable[Reading | Failed]) -> list[tuple[str, tuple[str, ...], dict[str, Value]]]:
    """Readings as (measurement, tags, present fields), for comparing with a picture."""
    return [(item.group.measurement, item.tags, item.as_dict()) for item in items if isinstance(item, Reading)]
