"""The agent with a probe on its event loop: `python -m benchmarks.loop_lag run ...`, options as for `vigilhost run`.

Each 5 ms a timer falls due. How late it was is what everything else on the loop waits too: collecting, /metrics,
notifications. LOOP_LAG_FILE names the file it is written to. A busy machine makes it late as well, so the CPU that the
agent itself has used meanwhile is written beside it: the agent's own part is at most that.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Final, NamedTuple

from agent.cli.main import main

EVERY_S: Final = 0.005
_KEPT: Final = 200  # written at a time: one second's


class Lag(NamedTuple):
    """One look, in seconds: monotonic time, how late, and the CPU all threads have used since the look before."""

    at: float
    late: float
    cpu: float

    @property
    def own(self) -> float:
        """What of the lateness the agent itself can have caused."""
        return min(self.late, self.cpu)


class _Probe:
    """A timer that notes its own lateness."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: int) -> None:
        self._loop = loop
        self._file = file
        self._noted = array("d")
        self._due = loop.time()
        self._cpu = time.process_time()
        loop.call_soon(self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        cpu = time.process_time()
        self._noted.extend((now, now - self._due, cpu - self._cpu))
        self._cpu = cpu
        if len(self._noted) >= 3 * _KEPT:
            os.write(self._file, self._noted.tobytes())
            del self._noted[:]
        self._due = now + EVERY_S
        self._loop.call_at(self._due, self._beat)


class _Probed(asyncio.DefaultEventLoopPolicy):
    """Loops with a probe."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        _Probe(loop, os.open(os.environ["LOOP_LAG_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return loop


def lags(file: Path) -> list[Lag]:
    """What a probe has written so far."""
    data = file.read_bytes()
    return [Lag(*row) for row in struct.iter_unpack("=3d", data[: len(data) // 24 * 24])]


if __name__ == "__main__":
    sys.argv[0] = "vigilhost"
    asyncio.set_event_loop_policy(_Probed())
    main()
