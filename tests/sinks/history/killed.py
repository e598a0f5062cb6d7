"""A process that writes history until it is killed: `killed.py DIRECTORY FIRST_SECOND`.

After each write that returned True it prints the last second that is now on disk.
"""

from __future__ import annotations

import signal
import sys

from tests.sinks.history.small import Clock, at, opened

# A slow parent must not find more than a day written by twenty lives: history would let the oldest go, as it should.
MOST_WRITES = 4


def main(directory: str, first: int) -> None:
    clock = Clock()
    history = opened(directory, clock)
    second = first
    for _ in range(MOST_WRITES):
        for _ in range(97):
            history.append(at(second, {"a": float(second), "b": 1.0, "c": second % 7 * 0.1}))
            second += 10
        clock.be_at(second)
        if history.write():
            sys.stdout.write(f"{second - 10}\n")
            sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
