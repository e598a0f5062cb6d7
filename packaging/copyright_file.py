"""The copyright file of the package: ours, and of every dependency its licence and where the text of it lies."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import environment
import project
import sbom


def text(site: Path) -> str:
    """The file as Debian's copyright format 1.0 writes it, for an installation under `site`."""
    return "\n".join(_lines(site)) + "\n"


def _lines(site: Path) -> Iterator[str]:
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    yield "Upstream-Name: vigilhost"
    yield f"Source: {project.HOMEPAGE}"
    yield ""
    yield "Files: *"
    ours = (project.ROOT / "LICENSE").read_text().split("\n\n")
    yield f"Copyright: {ours[1].removeprefix('Copyright (c) ')}"
    yield "License: Expat"
    yield from _indented("\n\n".join(ours[2:]))
    for one in sorted(distributions(path=[str(site)]), key=lambda one: one.name.lower()):
        if one.name != "vigilhost":
            yield from _dependency(site, one)


def _dependency(site: Path, one: Distribution) -> Iterator[str]:
    home = f"/{environment.SITE}"
    folder = next(path for path in site.glob("*.dist-info") if path.name.lower().startswith(_stem(one)))
    texts = sorted(path for path in folder.rglob("*") if path.name.startswith(("LICENSE", "COPYING", "NOTICE")))
    yield ""
    yield f"Files: {home}/{folder.name}/*"
    yield f"Copyright: the authors of {one.name}"
    yield f"Comment: and the modules that {one.name} {one.version} installs beside it"
    yield f"License: {sbom.licence(one)}"
    if texts:
        yield " Its text is in"
        yield from (f"  {home}/{path.relative_to(site)}" for path in texts)
    else:
        yield f" As its authors publish it with {one.name} {one.version}."


def _stem(one: Distribution) -> str:
    return f"{one.name.lower().replace('-', '_')}-{one.version}"


def _indented(text: str) -> Iterator[str]:
    for line in text.strip().split("\n"):
        yield f" {line}" if line else " ."
