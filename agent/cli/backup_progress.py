"""Progress of long work on backups, on standard error: phase, bytes, rate, time left. Nothing where no person looks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from agent.core.units import rough_size
from backup.catalogue import FORECAST_MARGIN
from backup.target import Target


class _Rate(ProgressColumn):
    """Bytes a second, in the units of the column beside it."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{rough_size(round(speed))}/s", style="progress.data.speed")


class _TimeLeft(TimeRemainingColumn):
    """How long it will still take; how long it took where nobody knows how much there will be."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text.assemble(TimeElapsedColumn().render(task), " so far")
        return Text.assemble(super().render(task), " left")


class Bar:
    """One bar; bytes are those that are stored or read back."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._total = 0.0
        self._done = 0.0
        self._of_archive: dict[str, int] = {}

    @property
    def is_shown(self) -> bool:
        """Whether a person looks; where nobody does, the result says everything once."""
        return self._progress.console.is_terminal

    def phase(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def expect(self, size: float) -> None:
        """How much there will be; 0 when nobody knows."""
        self._total = max(self._total, size)
        self._show()

    def add(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        self._show()

    def take(self, event: Mapping[str, Any]) -> None:
        """An event of a worker."""
        kind = event.get("event")
        if kind == "phase":
            of = event.get("archive") or event.get("target") or event.get("program") or ""
            self.phase(f"{event['job']}: {event['phase']} {of}".rstrip())
        elif kind == "forecast":
            self.expect(event["expected_bytes"] / FORECAST_MARGIN)
        elif kind == "progress":
            self._of_archive[event["archive"]] = event["stored_bytes"]
            self._done = sum(self._of_archive.values())
            self._show()
        elif kind == "heartbeat" and event.get("error"):
            self.say(f"warning: {event['error']}; the backup itself is not harmed")
        elif kind in ("warning", "target_failed", "archive_failed") and self.is_shown:
            self.say(f"{event.get('target') or event.get('archive') or 'warning'}: "
                     f"{event.get('text') or event.get('error')}")  # fmt: skip

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        # More than was expected: there is no honest time left.
        total = self._total if self._total >= self._done > 0 else None
        self._progress.update(self._task, total=total, completed=self._done)


@contextlib.contextmanager
def bar(text: str) -> Iterator[Bar]:
    """A bar while the block runs."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
               _Rate(), _TimeLeft())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(text, total=None))


class Counted:
    """A target whose objects tell how much of them was read."""

    def __init__(self, target: Target, told: Callable[[int], None]) -> None:
        self._target = target
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def open(self, name: str) -> BinaryIO:
        return _CountedFile(self._target.open(name), self._told)  # type: ignore[return-value]


class _CountedFile:
    def __init__(self, file: BinaryIO, told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _CountedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._told(len(chunk))
        return chunk
