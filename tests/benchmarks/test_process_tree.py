from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.process_tree import ProcessTree, parse_schedstat, parse_status, switches_of
from tests.servers.process import wait_until

STATUS = """Name:\tvigilhost: 1
VmRSS:\t   57348 kB
Threads:\t5
voluntary_ctxt_switches:\t120
nonvoluntary_ctxt_switches:\t7
"""


def test_a_status_file_gives_its_numbers_and_leaves_out_text() -> None:
    assert parse_status(STATUS) == {
        "VmRSS": 57348, "Threads": 5, "voluntary_ctxt_switches": 120, "nonvoluntary_ctxt_switches": 7
    }  # fmt: skip


def test_both_kinds_of_context_switches_count() -> None:
    assert switches_of(parse_status(STATUS)) == 127


def test_schedstat_begins_with_the_time_on_a_cpu() -> None:
    assert parse_schedstat("123456789 42 7\n") == 123456789


def test_a_kernel_without_schedstat_is_an_error_and_not_a_zero() -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_schedstat("")


def test_the_use_of_threads_that_have_ended_stays_counted() -> None:
    tree = ProcessTree(os.getpid())
    before, go = tree.look(), threading.Event()

    def work() -> None:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        seen.set()
        go.wait(20)

    seen = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    seen.wait(20)
    tree.look()
    go.set()
    thread.join()
    assert tree.look().since(before).cpu_ns >= 30_000_000


def test_descendants_count_as_their_parent() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**6)); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        tree = ProcessTree(parent.pid)

        def both() -> bool:
            tree.look()
            return len({pid for pid, _ in tree.threads}) == 2

        wait_until(both, "parent and child to be seen")
        one = Path(f"/proc/{parent.pid}/status").read_text()
        assert tree.memory().rss > parse_status(one)["VmRSS"] * 1024
        parent.communicate(b"\n")


def test_a_process_that_has_ended_cannot_be_looked_at() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    with pytest.raises(ProcessLookupError):
        ProcessTree(ended.pid).look()
