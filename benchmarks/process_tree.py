"""What a process and its descendants cost, from /proc.

CPU comes from schedstat (nanoseconds on a CPU, per thread); utime and stime of stat are rounded to ticks of 10 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Use:
    """Used since the processes began."""

    cpu_ns: int
    switches: int  # voluntary and involuntary, of all threads
    written: int  # bytes the processes caused to be sent to the disk, page cache written later included

    def since(self, before: Use) -> Use:
        """What was used between `before` and now."""
        return Use(self.cpu_ns - before.cpu_ns, self.switches - before.switches, self.written - before.written)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes held now."""

    rss: int  # shared pages counted in each process
    pss: int  # shared pages divided among those who share them


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a CPU. Raise ValueError when the kernel does not tell."""
    return int(text.split()[0])


def parse_status(text: str) -> dict[str, int]:
    """The numbers of a `status` file by name; sizes in kB as the file has them."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


def switches_of(status: Mapping[str, int]) -> int:
    """Context switches of one thread."""
    return status.get("voluntary_ctxt_switches", 0) + status.get("nonvoluntary_ctxt_switches", 0)


class ProcessTree:
    """A process and its descendants. `look` often enough that no thread comes and goes unseen between two looks.

    What ended threads and processes had used when last seen stays counted.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self._pid = pid
        self._proc = proc
        self._cpu_ns: dict[tuple[int, int], int] = {}  # by process and thread id
        self._switches: dict[tuple[int, int], int] = {}
        self._written: dict[int, int] = {}

    def look(self) -> Use:
        """What has been used up to now. Raise ProcessLookupError when the first process has ended."""
        if not (self._proc / str(self._pid)).exists():
            raise ProcessLookupError(f"process {self._pid} has ended")
        for pid in [self._pid, *self._descendants()]:
            try:
                self._look_at(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
        return Use(sum(self._cpu_ns.values()), sum(self._switches.values()), sum(self._written.values()))

    def cpu_of_first(self) -> int:
        """Nanoseconds of the first process alone, without its descendants and without what has ended: a quick look."""
        threads = (self._proc / str(self._pid) / "task").iterdir()
        return sum(parse_schedstat((thread / "schedstat").read_text()) for thread in threads)

    def memory(self) -> Memory:
        """What the processes hold now."""
        rss = pss = 0
        for pid in [self._pid, *self._descendants()]:
            base = self._proc / str(pid)
            try:
                rss += parse_status((base / "status").read_text()).get("VmRSS", 0)
                pss += parse_status((base / "smaps_rollup").read_text()).get("Pss", 0)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
        return Memory(rss * 1024, pss * 1024)

    @property
    def threads(self) -> dict[tuple[int, int], int]:
        """CPU nanoseconds by process and thread id, ended ones included, as of the last look."""
        return dict(self._cpu_ns)

    def _descendants(self) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(self._pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _look_at(self, pid: int) -> None:
        base = self._proc / str(pid)
        for thread in (base / "task").iterdir():
            key = (pid, int(thread.name))
            try:
                self._cpu_ns[key] = parse_schedstat((thread / "schedstat").read_text())
                self._switches[key] = switches_of(parse_status((thread / "status").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread has just ended
        self._written[pid] = parse_status((base / "io").read_text())["write_bytes"]
