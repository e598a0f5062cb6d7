"""Where each file of `systemd/` belongs on a host, and which units are enabled when the package is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_UNITS = "usr/lib/systemd/system"
_PLACES = {
    ".service": _UNITS,
    ".socket": _UNITS,
    ".timer": _UNITS,
    ".slice": _UNITS,
    ".target": _UNITS,
    ".sysusers": "usr/lib/sysusers.d",
    ".tmpfiles": "usr/lib/tmpfiles.d",
}
# Drop-ins are opt-in: an operator copies one to /etc/systemd/system/UNIT.d.
_OFFERED = "usr/share/doc/vigilhost"


def lay(source: Path, root: Path) -> list[str]:
    """Copy all of `source` to where it belongs under `root`. Return the units to enable. Raise SystemExit."""
    enabled = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source)
        if name.parent != Path():
            _copy(path, root / _OFFERED / name)
        elif path.suffix in (".sysusers", ".tmpfiles"):
            _copy(path, root / _PLACES[path.suffix] / f"{path.stem}.conf")
        elif path.suffix in _PLACES:
            _copy(path, root / _PLACES[path.suffix] / name)
            if _is_enabled(path):
                enabled.append(path.name)
        else:
            raise SystemExit(f"systemd/{name}: no place is known for a file {path.suffix}; see packaging/units.py")
    return enabled


def _is_enabled(unit: Path) -> bool:
    """A template is instantiated by others, a unit without [Install] started by them."""
    return "@" not in unit.name and re.search(r"^\[Install\]$", unit.read_text(), re.MULTILINE) is not None


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
