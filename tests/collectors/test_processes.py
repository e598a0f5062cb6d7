from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Value
from collectors.processes import Processes, parse_stat
from tests.collectors.hosts import HostTree, readings
from tests.servers.process import wait_until

Found = dict[tuple[str, tuple[str, ...]], dict[str, Value]]
PAGE = resource.getpagesize()
HZ = os.sysconf("SC_CLK_TCK")


def line(pid: int, name: str, *, state: str = "S", ticks: int = 0, started: int = 100, rss: int = 10, threads: int = 1,
         flags: int = 0) -> str:  # fmt: skip
    return (
        f"{pid} ({name}) {state} 1 {pid} {pid} 0 -1 {flags} 0 0 0 0 {ticks} 0 0 0 20 0 {threads} 0 {started} "
        f"4096 {rss} 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"
    )


class Machine:
    """Processes that a test starts, changes and ends; its clock moves 10 s from scan to scan."""

    def __init__(self, path: Path, **options: int) -> None:
        self.proc = path / "proc"
        self.proc.mkdir()
        self.now = 1000.0
        self.collector = Processes(host=Host(proc_root=str(self.proc)), **options)
        self.collector._now = lambda: self.now

    def put(self, pid: int, text: str | bytes) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "stat").write_bytes(text.encode() if isinstance(text, str) else text)

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def scan(self) -> Found:
        self.now += 10
        return found(self.collector)

    def cpu(self) -> dict[str, Value]:
        """CPU percent of the largest, by name."""
        return {
            tags[0]: fields.get("cpu_usage") for (name, tags), fields in self.scan().items() if name == "procstat_top"
        }


def found(collector: Processes) -> Found:
    return {(name, tags): fields for name, tags, fields in readings(collector.collect())}


def largest(values: Found) -> dict[str, dict[str, Value]]:
    return {tags[0]: fields for (name, tags), fields in values.items() if name == "procstat_top"}


@pytest.mark.parametrize(
    "name",
    ["sh", "a b", "a) S (b", ")", "((", "two\nlines", "", "quote\"'", "ünï"],
)
def test_a_name_may_hold_anything(name: str) -> None:
    process = parse_stat(line(7, name, state="D", ticks=5, started=9, rss=3, threads=2).encode())
    assert (process.name, chr(process.state), process.ticks, process.started) == (name, "D", 5, 9)
    assert (process.rss_pages, process.threads) == (3, 2)


def test_a_name_that_is_not_utf8_comes_through() -> None:
    assert parse_stat(line(7, "@").encode().replace(b"@", b"\xff\xfe")).name == "\ufffd\ufffd"


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 200))
def test_any_bytes_give_a_process_or_a_source_error(noise: bytes, at: int, cut: int) -> None:
    text = line(7, "sh").encode()
    try:
        process = parse_stat(text[:at] + noise + text[at + cut :])
    except SourceError:
        return
    assert isinstance(process.name, str)
    assert isinstance(process.ticks, int)


def test_states_are_counted_in_both_dialects(tmp_path: Path) -> None:
    values = found(Processes(host=HostTree("small", tmp_path).host))
    assert values["processes", ()] == {
        "blocked": 1, "zombies": 1, "stopped": 1, "running": 1, "sleeping": 13, "total": 20, "unknown": 0, "dead": 0,
        "paging": 0, "total_threads": 57, "idle": 2, "parked": 1, "max_processes": 32768, "max_threads": 15738,
    }  # fmt: skip
    states = {tags[0]: fields["state"] for (name, tags), fields in values.items() if name == "processes_state"}
    assert states == {"D": 1, "Z": 1, "T": 1, "R": 1, "S": 13, "I": 2, "P": 1}


def test_limits_and_processes_that_are_hidden_are_absent(tmp_path: Path) -> None:
    values = found(Processes(host=HostTree("container", tmp_path).host))["processes", ()]
    assert values["total"] == 3
    assert "max_processes" not in values
    assert "parked" not in values


def test_a_state_once_seen_stays_and_a_strange_one_is_unknown(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put(1, line(1, "a", state="?"))
    machine.put(2, line(2, "b", state="t"))
    first = machine.scan()
    assert (first["processes", ()]["unknown"], first["processes", ()]["stopped"]) == (1, 1)
    machine.end(2)
    assert machine.scan()["processes_state", ("t",)] == {"state": 0}


def test_the_largest_are_grouped_by_name_without_kernel_threads(tmp_path: Path) -> None:
    assert largest(found(Processes(host=HostTree("big", tmp_path).host, top=2))) == {
        "java": {"memory_rss": 9_000_000 * PAGE, "num_threads": 412, "pid_count": 1},
        "ceph-osd": {"memory_rss": 4_400_000 * PAGE, "num_threads": 284, "pid_count": 4},
    }


def test_cpu_is_percent_of_one_core_since_the_last_scan(tmp_path: Path) -> None:
    tree = HostTree("small", tmp_path)
    collector = Processes(host=tree.host, top=3)
    clock = iter([100.0, 105.0])
    collector._now = lambda: next(clock)
    assert all("cpu_usage" not in fields for fields in found(collector).values())
    tree.later()
    shutil.rmtree(tree.path / "proc" / "2202")
    cpu = {name: fields["cpu_usage"] for name, fields in largest(found(collector)).items()}
    assert cpu == {
        "java": pytest.approx(100 * 450 / HZ / 5),
        "nginx": pytest.approx(100 * 200 / HZ / 5),
        "postgres": pytest.approx(100 * 30 / HZ / 5),
    }


@pytest.mark.parametrize("descriptors", [0, 1000], ids=["opened each time", "kept open"])
def test_a_reused_pid_is_another_process(tmp_path: Path, descriptors: int) -> None:
    machine = Machine(tmp_path, descriptors=descriptors)
    machine.put(5, line(5, "old", ticks=10 * HZ, started=100))
    machine.scan()
    machine.put(5, line(5, "new", ticks=2 * HZ, started=900))
    assert machine.cpu() == {"new": pytest.approx(20.0)}
    machine.put(5, line(5, "new", ticks=3 * HZ, started=900))
    assert machine.cpu() == {"new": pytest.approx(10.0)}


@pytest.mark.parametrize(
    ("ticks", "percent", "why"),
    [
        ([None, 5, 5], [None, 50.0, 0.0], "all a new process used, it used since the last scan"),
        ([3, 3, 4], [None, 0.0, 10.0], "what was used before the first scan is not known"),
        ([3, "", 9, 10], [None, None, 0.0, 10.0], "nor what was used before one that could not be read"),
        ([3, None, 1], [None, None, 10.0], "one that was gone is new"),
    ],
)
def test_cpu_over_a_processs_life(
    tmp_path: Path, ticks: list[int | str | None], percent: list[float], why: str
) -> None:
    machine = Machine(tmp_path)
    machine.put(1, line(1, "init"))
    seen, started = [], 100
    for used in ticks:
        if used is None:
            shutil.rmtree(machine.proc / "5", ignore_errors=True)
            started += 1
        else:
            machine.put(5, "" if used == "" else line(5, "it", ticks=int(used) * HZ, started=started))
        seen.append(machine.cpu().get("it"))
    assert seen == [None if value is None else pytest.approx(value) for value in percent], why


def test_no_more_descriptors_stay_open_than_allowed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, descriptors=3)
    for pid in range(1, 11):
        machine.put(pid, line(pid, f"p{pid}"))
    before = psutil.Process().num_fds()
    assert machine.scan()["processes", ()]["total"] == 10
    kept = psutil.Process().num_fds() - before
    assert kept == 3 + 1  # and /proc itself
    for pid in range(1, 6):
        machine.end(pid)
    for pid in range(20, 23):
        machine.put(pid, line(pid, "new"))
    assert machine.scan()["processes", ()]["total"] == 8
    machine.scan()
    assert psutil.Process().num_fds() - before <= 3 + 1
    machine.collector.close()
    assert psutil.Process().num_fds() == before


def test_when_descriptors_run_out_the_scan_gives_its_own_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for pid in range(1, 41):
        machine.put(pid, line(pid, "p"))
    machine.put(50, line(50, "init"))
    machine.scan()
    machine.put(60, line(60, "late"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # nothing can be opened now, nor /proc listed
    try:
        values = machine.scan()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert values["processes", ()]["total"] == 42


def test_without_proc_there_is_nothing_of_this_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file"):
        list(Processes(host=Host(proc_root=str(tmp_path / "none"))).collect())


def test_agrees_with_psutil_on_this_host() -> None:
    child = subprocess.Popen(["/bin/sleep", "100"])
    try:
        wait_until(lambda: psutil.Process(child.pid).name() == "sleep", "sleep to start")
        collector = Processes(top=100)
        values = found(collector)
        pids = psutil.pids()
        sleeping = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "sleep"]
        collector.close()
    finally:
        child.kill()
        child.wait()
    assert abs(int(values["processes", ()]["total"] or 0) - len(pids)) < 20
    mine = values.get(("procstat_top", ("sleep",)))
    if mine is not None:  # a busy host may have a hundred larger ones
        assert abs(int(mine["pid_count"] or 0) - len(sleeping)) < 10


def test_one_live_process_is_read_as_psutil_reads_it() -> None:
    child = subprocess.Popen(["/bin/sleep", "100"])
    try:
        oracle = psutil.Process(child.pid)
        wait_until(lambda: oracle.name() == "sleep" and oracle.status() == "sleeping", "sleep to sleep")
        process = parse_stat(Path(f"/proc/{child.pid}/stat").read_bytes())
        assert process.name == "sleep"
        assert chr(process.state) == "S"
        assert process.threads == oracle.num_threads()
        assert process.rss_pages * PAGE == pytest.approx(oracle.memory_info().rss, rel=0.3)
    finally:
        child.kill()
        child.wait()


def test_threads_are_counted_by_state_when_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, thread_states=True)
    machine.put(1, line(1, "single", state="S"))
    machine.put(2, line(2, "multi", state="S", threads=3))
    for thread, state in ((2, "S"), (3, "R"), (4, "D")):
        task = machine.proc / "2" / "task" / str(thread)
        task.mkdir(parents=True)
        (task / "stat").write_text(line(thread, "multi", state=state))
    values = machine.scan()
    threads = {
        tags[0]: fields["threads"] for (name, tags), fields in values.items() if name == "processes_thread_state"
    }
    assert threads == {"S": 2, "R": 1, "D": 1}


def test_top_zero_shows_none() -> None:
    assert not largest(found(Processes(top=0)))
