"""The changelog as Debian writes it, made from CHANGELOG.md and the lines that wait in changelog.d.

`python packaging/changelog.py` prints it.
"""

from __future__ import annotations

import calendar
import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate

import project

_RELEASE = re.compile(r"^## (?P<version>\S+) \((?P<date>\d{4}-\d\d-\d\d|unreleased)\)$", re.MULTILINE)
_ITEM = re.compile(r"^- (.+(?:\n  .+)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Release:
    """One version: what changed for operators, and when it came out, in seconds since 1970."""

    version: str
    at: int
    items: list[str]


def releases(changelog: str, waiting: list[str], now: int) -> list[Release]:
    """All of them, newest first. What waits belongs to the version that is unreleased. Raise SystemExit."""
    heads = list(_RELEASE.finditer(changelog))
    if not heads:
        raise SystemExit("CHANGELOG.md: no line like '## 1.2.3 (2026-01-31)' or '## 1.2.3 (unreleased)'")
    if waiting and heads[0]["date"] != "unreleased":
        text = f"changelog.d has lines, but {heads[0]['version']} is released; begin the next version"
        raise SystemExit(f"CHANGELOG.md: {text}")
    found = []
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(changelog)
        items = _items(changelog[head.end() : end])
        if number == 0:
            items += [item for text in waiting for item in _items(text)]
        released = head["date"] != "unreleased"
        at = calendar.timegm(time.strptime(head["date"], "%Y-%m-%d")) if released else now
        found.append(Release(head["version"], at, items))
    return found


def debian(found: list[Release]) -> Iterator[str]:
    """The lines of /usr/share/doc/vigilhost/changelog.gz."""
    for release in found:
        yield f"vigilhost ({project.debian_version(release.version)}) stable; urgency=medium"
        yield ""
        for item in release.items or ["No change for operators."]:
            yield from textwrap.wrap(item, 78, initial_indent="  * ", subsequent_indent="    ")
        yield ""
        yield f" -- {project.MAINTAINER}  {formatdate(release.at)}"
        yield ""


def read() -> list[Release]:
    """The releases of this source."""
    waiting = [path.read_text() for path in sorted((project.ROOT / "changelog.d").glob("*.md"))]
    found = releases((project.ROOT / "CHANGELOG.md").read_text(), waiting, project.epoch())
    if found[0].version != project.version():
        text = f"its newest version is {found[0].version}, agent/__init__.py says {project.version()}"
        raise SystemExit(f"CHANGELOG.md: {text}")
    return found


def _items(text: str) -> list[str]:
    return [re.sub(r"\n\s+", " ", item) for item in _ITEM.findall(text)]


if __name__ == "__main__":
    print("\n".join(debian(read())))
