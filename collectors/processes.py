"""Processes of the host: how many in which state, their threads, and the largest by name, from one scan of /proc.

/proc/PID/stat of every process is read through a kept descriptor, which costs half of opening it each time; a
descriptor also belongs to its process for ever, so that a reused PID cannot be mistaken. Processes beyond the limit of
descriptors are opened each time.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import nlargest
from operator import attrgetter
from typing import ClassVar

from agent.core.errors import SourceError
from agent.core.host import Host, KeptFile, source_error
from agent.core.model import Field, Group, Reading, gauge, tag
from agent.core.options import option
from agent.core.units import Seconds


def _state(name: str, help: str) -> Field:
    """Telegraf's word for a state; node_exporter has one series a letter."""
    return gauge(name, "count", help, influx=name, twin="node_processes_state")


PROCESSES = Group("processes", (
    _state("blocked", "Processes in uninterruptible sleep (D)."),
    _state("zombies", "Processes that ended and were not waited for (Z)."),
    _state("stopped", "Processes stopped by a signal or a debugger (T, t)."),
    _state("running", "Processes that run or could run (R)."),
    _state("sleeping", "Processes that wait (S)."),
    gauge("total", "count", "Processes.", influx="total", prom="node_processes_pids"),
    _state("unknown", "Processes in a state that has no name here."),
    _state("dead", "Processes on their way out (X)."),
    _state("paging", "Processes being paged in (W, kernels before 2.6)."),
    gauge("total_threads", "count", "Threads of all processes.", influx="total_threads", prom="node_processes_threads"),
    _state("idle", "Idle kernel threads (I)."),
    _state("parked", "Parked kernel threads (P); absent until one was seen."),
    gauge("max_processes", "count", "PIDs there can be.", prom="node_processes_max_processes"),
    gauge("max_threads", "count", "Threads there can be.", prom="node_processes_max_threads"),
))  # fmt: skip

STATE = Group("processes_state", (
    gauge("state", "count", "Processes in this state.", prom="node_processes_state"),
), tags=("state",))  # fmt: skip

THREAD_STATE = Group("processes_thread_state", (
    gauge("threads", "count", "Threads in this state.", prom="node_processes_threads_state"),
), tags=("thread_state",))  # fmt: skip

TOP = Group("procstat_top", (
    gauge("cpu_usage", "percent", "CPU time of all processes of this name since the last scan, 100 is one core; "
          "absent in the first scan.", influx="cpu_usage", prom="vigilhost_top_process_cpu_percent"),
    gauge("memory_rss", "bytes", "Resident memory of all processes of this name; shared pages count in each.",
          influx="memory_rss", prom="vigilhost_top_process_resident_memory_bytes"),
    gauge("num_threads", "count", "Threads of all processes of this name.",
          influx="num_threads", prom="vigilhost_top_process_threads"),
    gauge("pid_count", "count", "Processes of this name.",
          influx="pid_count", prom="vigilhost_top_process_processes"),
), tags=(tag("process_name", prom="name"),))  # fmt: skip

# Telegraf's words for the letters, in the order of the Group.
_LETTERS = (b"D", b"Z", b"Tt", b"R", b"S", None, None, b"X", b"W", None, b"I", b"P")
_KNOWN_LETTERS = frozenset(b"DZTtRSXWIP")
_PARKED = ord("P")
_PF_KTHREAD = 0x00200000
_SPARE_DESCRIPTORS = 256  # of the process's limit, left for sockets, databases and everybody else
_NOT_KNOWN = -1  # ticks of a process that could not be read at the last scan
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass(slots=True)
class Process:
    """What one line of /proc/PID/stat says; `ticks` are user and system time together."""

    name: str
    state: int  # the letter's code
    threads: int
    ticks: int
    started: int  # ticks after boot; with the PID it names a process for ever
    rss_pages: int
    is_kernel: bool


class _Known:
    """A process between two scans."""

    __slots__ = ("fd", "now", "raw", "ticks_before")

    def __init__(self) -> None:
        self.fd = -1  # of /proc/PID/stat, when kept
        self.raw = b""  # the line as last read; most processes sleep, and theirs does not change
        self.now: Process | None = None
        self.ticks_before = 0  # at the last scan, 0 when it did not live then


@dataclass(slots=True)
class _Sum:
    """All processes of one name."""

    name: str
    ticks: int = 0  # since the last scan
    rss_pages: int = 0
    threads: int = 0
    count: int = 0


def parse_stat(line: bytes) -> Process:
    """One process from /proc/PID/stat. Its name may hold spaces, brackets and line feeds. Raise SourceError."""
    end = line.rfind(b")")
    values = line[end + 2 :].split(None, 22)
    try:
        return Process(
            line[line.index(b"(") + 1 : end].decode("utf-8", "replace"),
            values[0][0],
            int(values[17]),
            int(values[11]) + int(values[12]),
            int(values[19]),
            int(values[21]),
            int(values[6]) & _PF_KTHREAD != 0,
        )
    except (ValueError, IndexError) as error:
        raise SourceError(f"{line[:40]!r} is not a line of /proc/PID/stat") from error


@dataclass(slots=True)
class Processes:
    """Processes by state, threads, limits, and the largest by CPU and memory."""

    name: ClassVar[str] = "processes"
    groups: ClassVar[tuple[Group, ...]] = (PROCESSES, STATE, THREAD_STATE, TOP)

    interval: Seconds = option(5.0, "Time between two scans.")
    top: int = option(5, "How many process names to show by CPU and by memory; 0 shows none.", minimum=0, maximum=100)
    descriptors: int = option(1024, "Processes whose files stay open between scans.", minimum=0)
    thread_states: bool = option(False, "Count threads by state too: reads each thread of each process, 8 us a thread.")
    host: Host = field(default_factory=Host)
    _now: Callable[[], float] = field(init=False, default=time.monotonic)
    _proc_fd: int = field(init=False, default=-1)
    _known: dict[str, _Known] = field(init=False, default_factory=dict)
    _free: int = field(init=False, default=0)  # descriptors that may still be kept
    _scanned_at: float | None = field(init=False, default=None)
    _letters: dict[int, str] = field(init=False, default_factory=dict)  # every state seen so far
    _pid_max: KeptFile = field(init=False)
    _threads_max: KeptFile = field(init=False)
    _page_bytes: int = field(init=False)
    _ticks_a_second: int = field(init=False)

    def __post_init__(self) -> None:
        self._pid_max = KeptFile(self.host.proc("sys/kernel/pid_max"))
        self._threads_max = KeptFile(self.host.proc("sys/kernel/threads-max"))
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._ticks_a_second = os.sysconf("SC_CLK_TCK")
        self._free = min(self.descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS)

    def collect(self) -> Iterator[Reading]:
        """Scan /proc. Raise SourceError when it cannot be listed."""
        now = self._now()
        processes = self._scan()
        elapsed = None if self._scanned_at is None else now - self._scanned_at
        self._scanned_at = now
        yield from self._counts(processes)
        if self.thread_states:
            yield from self._thread_states()
        if self.top:
            yield from self._largest(processes, elapsed)

    def close(self) -> None:
        """Give all descriptors back."""
        for known in self._known.values():
            self._forget(known)
        self._known.clear()
        self._pid_max.close()
        self._threads_max.close()
        if self._proc_fd >= 0:
            os.close(self._proc_fd)
            self._proc_fd = -1

    def __del__(self) -> None:
        self.close()

    def _scan(self) -> list[_Known]:
        """Every process that can be read, with what it was at the last scan."""
        pids = self._pids()
        known = self._known
        found = []
        for pid in pids:
            process = known.get(pid)
            if process is None:
                process = known[pid] = _Known()
            elif process.now is not None:
                process.ticks_before = process.now.ticks
            raw = self._read(pid, process)
            if raw != process.raw:
                _update(process, raw)
            if process.now is not None:
                found.append(process)
        if len(known) != len(pids):
            for pid in known.keys() - pids:
                self._forget(known.pop(pid))
        return found

    def _pids(self) -> list[str]:
        try:
            if self._proc_fd < 0:
                self._proc_fd = os.open(self.host.proc_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return [name for name in os.listdir(self._proc_fd) if name.isdigit()]
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS and self._give_back_all():
                return self._pids()
            raise source_error(error) from error

    def _read(self, pid: str, process: _Known) -> bytes:
        """The line of /proc/PID/stat now; empty when the process is gone or hidden."""
        if process.fd >= 0:
            try:
                return os.pread(process.fd, 2048, 0)
            except OSError:  # it ended; the PID may be another's by now
                self._forget(process)
        try:
            fd = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc_fd)
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                if self._give_back_all():
                    return self._read(pid, process)
                raise SourceError("/proc: no file descriptors left to read processes with") from error
            return b""
        try:
            raw = os.pread(fd, 2048, 0)
        except OSError:
            os.close(fd)
            return b""
        if self._free > 0:
            self._free -= 1
            process.fd = fd
        else:
            os.close(fd)
        return raw

    def _forget(self, process: _Known) -> None:
        if process.fd >= 0:
            os.close(process.fd)
            process.fd = -1
            self._free += 1

    def _give_back_all(self) -> bool:
        """Keep no descriptors from now on: others in this program need them more. False when none was kept."""
        kept = [process for process in self._known.values() if process.fd >= 0]
        for process in kept:
            self._forget(process)
        self._free = 0
        return bool(kept)

    def _counts(self, processes: list[_Known]) -> Iterator[Reading]:
        letters: dict[int, int] = dict.fromkeys(self._letters, 0)
        threads = 0
        for process in processes:
            now = process.now
            assert now is not None
            letters[now.state] = letters.get(now.state, 0) + 1
            threads += now.threads
        for code in letters.keys() - self._letters:
            self._letters[code] = chr(code)
        values: list[int | None] = [sum(letters.get(code, 0) for code in codes) if codes else 0 for codes in _LETTERS]
        values[5] = len(processes)
        values[6] = sum(count for code, count in letters.items() if code not in _KNOWN_LETTERS)
        values[9] = threads
        if _PARKED not in letters:
            values[11] = None
        yield PROCESSES.row((), (*values, _limit(self._pid_max), _limit(self._threads_max)))
        for code, count in letters.items():
            yield STATE.row((self._letters[code],), (count,))

    def _thread_states(self) -> Iterator[Reading]:
        """Threads by state; a process with one thread needs no further look."""
        letters: dict[int, int] = {}
        for pid, process in self._known.items():
            if process.now is None:
                continue
            states = [process.now.state] if process.now.threads <= 1 else self._states_of_threads(pid)
            for code in states:
                letters[code] = letters.get(code, 0) + 1
        for code, count in letters.items():
            yield THREAD_STATE.row((chr(code),), (count,))

    def _states_of_threads(self, pid: str) -> list[int]:
        states = []
        try:
            names = os.listdir(f"{self.host.proc_root}/{pid}/task")
        except OSError:  # ended since the scan
            return []
        for name in names:
            try:
                with open(f"{self.host.proc_root}/{pid}/task/{name}/stat", "rb", buffering=0) as file:
                    states.append(parse_stat(file.read()).state)
            except (OSError, SourceError):
                continue
        return states

    def _largest(self, processes: list[_Known], elapsed: float | None) -> Iterator[Reading]:
        """The `top` names by CPU and those by memory; a name that is in both is one row."""
        sums: dict[str, _Sum] = {}
        for process in processes:
            now = process.now
            assert now is not None
            if now.is_kernel:
                continue
            total = sums.get(now.name)
            if total is None:
                total = sums[now.name] = _Sum(now.name)
            total.ticks += now.ticks - process.ticks_before
            total.rss_pages += now.rss_pages
            total.threads += now.threads
            total.count += 1
        chosen = {total.name: total for total in nlargest(self.top, sums.values(), key=attrgetter("rss_pages"))}
        scale = None
        if elapsed is not None and elapsed > 0:
            scale = 100.0 / (self._ticks_a_second * elapsed)
            busiest = nlargest(self.top, sums.values(), key=attrgetter("ticks", "rss_pages"))
            chosen |= {total.name: total for total in busiest}
        for total in chosen.values():
            cpu = None if scale is None else total.ticks * scale
            yield TOP.row((total.name,), (cpu, total.rss_pages * self._page_bytes, total.threads, total.count))


def _update(process: _Known, raw: bytes) -> None:
    """Take in a line that differs from the last one."""
    before = process.now
    process.raw = raw
    try:
        process.now = parse_stat(raw) if raw else None
    except SourceError:  # cut short by the process's end
        process.now = None
    now = process.now
    if now is None:
        process.ticks_before = _NOT_KNOWN
    elif before is None and process.ticks_before == _NOT_KNOWN:
        process.ticks_before = now.ticks
    elif before is not None and now.started != before.started:  # a new process under a used PID
        process.ticks_before = 0


def _limit(file: KeptFile) -> int | None:
    """A number of /proc/sys; None where the kernel does not show it."""
    try:
        return int(file.read())
    except (SourceError, ValueError):
        return None
