"""Metrics that scripts leave as files: every *.prom of one directory, in Prometheus' text format.

Write a file under another name and rename it, so that it is never read half written. A file that cannot be used (a bad
line, timestamps of its own, a metric whose type another file gives differently) is skipped whole and sets
node_textfile_scrape_error; a HELP text that differs from the first one sets it too, but costs nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from agent.core.errors import SourceError
from agent.core.host import Host, source_error
from agent.core.model import Failed, Group, Reading, gauge
from agent.core.options import option
from agent.core.units import Bytes, Seconds, format_size
from collectors.prom_text import Family, parse_prom_text
from collectors.samples import SampleGroups

MTIME = Group("textfile_mtime", (
    gauge("seconds", "seconds", "When the file was last written, Unix time.", prom="node_textfile_mtime_seconds"),
), tags=("file",))  # fmt: skip

SCRAPE_ERROR = Group("textfile", (
    gauge("scrape_error", "bool", "1 when a file could not be read or used.", type=int,
          prom="node_textfile_scrape_error"),
))  # fmt: skip


class _Content(NamedTuple):
    """A file as it was when last read; `identity` changes when it is written."""

    identity: tuple[int, int, int]
    families: list[Family]


@dataclass(slots=True)
class Textfile:
    """Metrics from *.prom files that scripts write."""

    name: ClassVar[str] = "textfile"
    groups: ClassVar[tuple[Group, ...]] = (MTIME, SCRAPE_ERROR)

    interval: Seconds = option(30.0, "Time between two readings.")
    directory: str = option("/var/lib/vigilhost/textfile", "Where the *.prom files are.")
    max_size: Bytes = option(4 << 20, "A larger file is not read.", minimum=1024)
    max_samples: int = option(20_000, "A file with more samples is skipped.", minimum=1)
    host: Host = field(default_factory=Host)
    _known: dict[str, _Content] = field(init=False, default_factory=dict)
    _series: SampleGroups = field(init=False, default_factory=SampleGroups)

    def collect(self) -> Iterator[Reading | Failed]:
        """Every usable file's metrics. Raise SourceMissing without the directory."""
        root = self.host.file(self.directory)
        try:
            names = sorted(name for name in os.listdir(root) if name.endswith(".prom"))
        except OSError as error:
            raise source_error(error) from error
        failures: list[Failed] = []
        merged: dict[str, Family] = {}
        fresh: dict[str, _Content] = {}
        for name in names:
            label = f"{self.directory}/{name}".encode(errors="replace").decode()
            try:
                content = fresh[name] = self._content(f"{root}/{name}", self._known.get(name))
                problem = _merge(merged, content.families, label)
            except SourceError as error:
                failures.append(Failed(label, str(error)))
                continue
            if problem:
                failures.append(Failed(label, problem))
            yield MTIME.row((label,), (content.identity[0] / 1e9,))
        self._known = fresh
        yield from self._series.readings(merged.values())
        self._series.forget_unused()
        yield SCRAPE_ERROR.row((), (int(bool(failures)),))
        yield from failures

    def _content(self, path: str, known: _Content | None) -> _Content:
        """The file's families, parsed anew only when it was written. Raise SourceError."""
        try:
            # O_NONBLOCK: opening a pipe somebody left here must not wait for its writer.
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                now = os.fstat(file.fileno())
                identity = (now.st_mtime_ns, now.st_size, now.st_ino)
                if known is not None and known.identity == identity:
                    return known
                if not stat.S_ISREG(now.st_mode):
                    raise SourceError("not a regular file")
                text = file.read(self.max_size + 1)
        except OSError as error:
            raise source_error(error) from error
        if len(text) > self.max_size:
            raise SourceError(f"larger than {format_size(self.max_size)}")
        families = parse_prom_text(text, self.max_samples)
        for family in families:
            if any(sample.has_timestamp for sample in family.samples):
                raise SourceError(f"{family.name} has timestamps of its own; leave them out")
        return _Content(identity, families)


def _merge(merged: dict[str, Family], families: list[Family], file: str) -> str:
    """Add a file's families to the others'; what is wrong but bearable, or "". Raise SourceError for another type."""
    for family in families:
        first = merged.get(family.name)
        if first is not None and first.type != family.type:
            raise SourceError(f"{family.name} is a {family.type} here and a {first.type} in an earlier file")
    problem = ""
    for family in families:
        first = merged.setdefault(
            family.name, Family(family.name, family.type, family.help or f"Metric read from {file}")
        )
        if family.help is not None and family.help != first.help:
            problem = f"HELP of {family.name} differs from that in an earlier file"
        first.samples.extend(family.samples)
    return problem
