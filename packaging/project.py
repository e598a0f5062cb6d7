"""What every packaging script asks about the project: version, maintainer, the moment that stands for "now".

`python packaging/project.py` prints the last, for SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAINTAINER = "Vigilhost maintainers <vigilhost@users.noreply.github.com>"
HOMEPAGE = "https://github.com/vigilhost/vigilhost"


def version() -> str:
    """The one version, that of `agent/__init__.py`, as PEP 440 writes it."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "agent/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit('agent/__init__.py: no line __version__ = "..."')
    return found[1]


def debian_version(pep440: str) -> str:
    """The same version as dpkg orders it: a pre-release sorts before its release only behind a tilde."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", pep440)


@cache
def epoch() -> int:
    """Seconds since 1970 that stand for "now" in all that is built: SOURCE_DATE_EPOCH, or the time of the commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    # In a container the checkout may belong to another user, which git takes for an attack unless told otherwise.
    argv = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the moment of this source is unknown; set SOURCE_DATE_EPOCH (git: {done.stderr.strip()})")
    return int(done.stdout)


if __name__ == "__main__":
    print(epoch())
