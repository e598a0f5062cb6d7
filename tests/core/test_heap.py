"""What the allocator keeps, seen in the mappings of a process with threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

THREADS = """
import threading
{first}
meeting = threading.Barrier(5)

def work():
    kept = [bytearray(2000) for _ in range(100)]
    meeting.wait()
    meeting.wait()

for _ in range(4):
    threading.Thread(target=work).start()
meeting.wait()
with open("/proc/self/maps") as file:
    spans = [line.split()[0].split("-") for line in file if " ---p " in line]
meeting.wait()
print(sum(32 << 20 <= int(end, 16) - int(start, 16) <= 64 << 20 for start, end in spans))  # reserved for an arena
"""


@pytest.mark.parametrize(
    ("first", "expected", "sentence"),
    [
        ("", 4, "left alone, each thread has an arena"),
        ("from agent.core import heap; heap.use_one_arena()", 0, "one arena serves all"),
    ],
    ids=["left alone", "one arena"],
)
def test_threads_share_one_heap(first: str, expected: int, sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(first=first)], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) == expected, sentence


GIVEN_BACK = """
from agent.core import heap

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

blocks = [bytearray(2000) for _ in range(20_000)]
last = bytearray(2000)  # keeps the heap from shrinking at its end
del blocks
before = rss()
heap.give_back()
print((before - rss()) // 1_000_000)
"""


def test_what_was_freed_goes_back_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 20
