"""Asking mounts that may not answer. Here the call sleeps in a way that SIGKILL ends; tests/e2e/test_hung_mount.py has
the file system whose callers cannot be killed."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core import stat_helper
from agent.core.errors import SourceError
from agent.core.stat_helper import HELPER, StatHelper
from tests.servers.process import alive, wait_until
from tests.servers.vigilhost import ROOT

# The helper's own program, on a host where whatever lies below a directory named `hung` does not answer.
WITH_HUNG_MOUNTS = (
    "import os, time\n"
    "ask = os.statvfs\n"
    "os.statvfs = lambda path: time.sleep(1e6) if b'hung' in path else ask(path)\n" + HELPER
)


class Host:
    """A StatHelper of quick deadlines, its clock, and the processes it has."""

    def __init__(self, program: str = WITH_HUNG_MOUNTS, deadline: float = 0.5, most: int = 8) -> None:
        self.now = 1000.0
        self.stat = StatHelper(deadline, most, now=lambda: self.now, program=program)

    def pids(self) -> list[int]:
        """Of the helpers: children of this process that run a program of ours."""
        found = []
        for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
            if alive(int(pid)) and b"os.statvfs" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
        return found

    def refusal(self, path: str) -> str:
        with pytest.raises(TimeoutError) as caught:
            self.stat(path)
        return str(caught.value)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.stat.close()
    wait_until(lambda: host.stat.processes == 0, "the helpers to end")


def test_it_answers_like_os_statvfs(host: Host) -> None:
    for path in ("/proc", "/dev", "/sys"):
        assert host.stat(path) == os.statvfs(path)


@pytest.mark.parametrize("name", ["wide \u00e9", "new\nline", "not utf-8 \udcff", "x" * 255, "-c", " "])
def test_any_name_can_be_asked_for(host: Host, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    assert host.stat(str(path)).f_blocks == os.statvfs(path).f_blocks


def test_the_file_systems_error_is_passed_on(host: Host, tmp_path: Path) -> None:
    for path, code in ((tmp_path / "gone", errno.ENOENT), (tmp_path / ("x" * 5000), errno.ENAMETOOLONG)):
        with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
            host.stat(str(path))
        assert (caught.value.errno, caught.value.filename) == (code, str(path))
    assert host.stat("/proc"), "the helper goes on"


def test_one_process_serves_every_mount_that_answers(host: Host) -> None:
    assert host.pids() == [], "none before the first mount"
    host.stat("/proc")
    (first,) = host.pids()
    for path in ("/dev", "/sys", "/proc") * 10:
        host.stat(path)
    assert host.pids() == [first]


def test_it_shares_nothing_with_the_agent(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)  # as a careless library leaves its descriptors
        host.stat("/proc")
        (pid,) = host.pids()
        opened = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert opened.keys() == {"0", "1", "2"}
        assert (opened["0"][:5], opened["1"][:5], opened["2"]) == ("pipe:", "pipe:", "/dev/null")
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/", "it keeps no mount busy"
        assert Path(f"/proc/{pid}/environ").read_bytes() == b"", "no secret either"
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Threads:\t1\n" in status
        assert re.search(r"SigBlk:\t0+\n", status)


def test_a_mount_that_does_not_answer_holds_up_nobody_else(host: Host) -> None:
    host.stat("/proc")
    (first,) = host.pids()
    assert host.refusal("/hung/a") == "/hung/a: no answer within 0.5 s"
    assert not alive(first), "the process that asked is gone"
    assert host.stat("/proc") == os.statvfs("/proc")
    assert (host.stat.abandoned, host.stat.processes) == (1, 1)


def test_a_mount_that_did_not_answer_is_left_alone_for_a_while(host: Host) -> None:
    host.refusal("/hung/a")
    for path in ("/hung/a", "/hung/a/below"):
        assert host.refusal(path) == "/hung/a: no answer to an earlier call"
    assert host.refusal("/hung/ab").startswith("/hung/ab: no answer within"), "a neighbour is asked"
    assert host.stat.abandoned == 2
    host.now += stat_helper.REST_S
    assert host.refusal("/hung/a").startswith("/hung/a: no answer within")
    assert host.stat.abandoned == 3


def test_many_dead_mounts_share_two_deadlines(host: Host) -> None:
    words = [host.refusal(f"/hung/{n}").rpartition(" within ")[2] for n in range(6)]
    assert words == ["0.5 s", "0.5 s", "0.025 s", "0.025 s", "0.025 s", "0.025 s"]
    host.now += stat_helper.PARDON_S
    assert host.refusal("/hung/late").endswith("0.5 s")


def test_a_helper_that_was_ended_is_replaced_without_an_error(host: Host) -> None:
    host.stat("/proc")
    (first,) = host.pids()
    os.kill(first, 9)
    assert host.stat("/proc") == os.statvfs("/proc")
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "the old one to be reaped")
    assert host.stat.abandoned == 0


def test_a_helper_that_nobody_asks_ends_itself_and_leaves_no_zombie() -> None:
    host = Host(HELPER.replace(f"{stat_helper.IDLE_S}", "0.05"))
    host.stat("/proc")
    (first,) = host.pids()
    wait_until(lambda: not Path(f"/proc/{first}").exists(), "the idle helper to go")
    assert host.stat("/proc") == os.statvfs("/proc"), "and the next question starts another"
    host.stat.close()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(1)", "did not start"),
        ("import os; os.write(1, b'\\n')", "was ended"),
        ("import os; os.write(1, b'\\n'); os.read(0, 4); os.write(1, b'half')", "was ended"),
    ],
)
def test_a_helper_that_fails_is_told_apart_from_a_mount_that_does(program: str, reason: str) -> None:
    host = Host(program)
    with pytest.raises(SourceError, match=reason):
        host.stat("/proc")
    wait_until(lambda: not host.pids(), "the helpers to end")


def test_a_missing_interpreter_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(SourceError, match="/nowhere/python: cannot be started: no such file or directory"):
        StatHelper()("/proc")


def test_two_threads_take_turns(host: Host) -> None:
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(host.stat("/proc"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [os.statvfs("/proc")] * 8
    assert host.stat.processes == 1


def test_closing_ends_the_helper_and_a_call_under_way(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    host = Host(f"import os\nmark = lambda: open({str(asked)!r}, 'w').close()\n" + WITH_HUNG_MOUNTS.replace(
        "time.sleep(1e6)", "(mark(), time.sleep(1e6))"), deadline=60)  # fmt: skip
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(SourceError) as caught:
            host.stat("/hung")
        told.append(str(caught.value))

    caller = threading.Thread(target=ask)
    caller.start()
    wait_until(asked.exists, "the call to be under way")
    host.stat.close()
    caller.join(10)
    assert told == ["/hung: not asked, the agent is stopping"]
    assert host.stat.processes == 0
    with pytest.raises(SourceError, match="stopping"):
        host.stat("/proc")
    host.stat.close()


AGENT = """
import os
from agent.core.stat_helper import StatHelper
StatHelper()("/proc")
print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_it_ends_with_the_agent_however_that_ended() -> None:
    agent = subprocess.run([sys.executable, "-c", AGENT], stdout=subprocess.PIPE, cwd=ROOT, check=False)
    helper = int(agent.stdout)
    wait_until(lambda: not alive(helper), "the helper to see that nobody asks any more")
