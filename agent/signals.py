"""SIGTERM, SIGINT and SIGHUP, from the daemon's first moment to its last.

The event loop's own handlers end with the loop, and from then until the process is gone a second SIGTERM or a late
SIGHUP would kill it: a clean stop would look like a crash. These stay.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from agent.core.isolation import call_soon

_ENDING = (signal.SIGTERM, signal.SIGINT)


def ignore(*numbers: signal.Signals) -> None:
    """Have no signal of these (all three without one) do anything: before there is an agent, and after it."""
    for number in numbers or (*_ENDING, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def install(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Have the running loop call these when the signals come; call from the main thread."""
    loop = asyncio.get_running_loop()
    # The kernel may hand a signal to any thread; Python writes to this descriptor then, which wakes the loop.
    # Plain descriptors, never closed: a signal may come after the loop has let go of its reader.
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    loop.add_reader(woken, os.read, woken, 4096)
    for number in _ENDING:
        signal.signal(number, lambda *_: call_soon(loop, stop))
    signal.signal(signal.SIGHUP, lambda *_: call_soon(loop, reload))
