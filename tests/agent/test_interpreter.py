"""What `settle` changes, in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

SETTLED = """
import gc, sys
from agent.interpreter import settle

settle()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 100, sys.getswitchinterval())
"""


def test_what_is_there_is_not_walked_again_and_threads_take_turns_each_millisecond() -> None:
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "True", "0.001"]
