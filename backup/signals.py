"""SIGTERM and SIGINT, heard by a thread, for what must end whatever the main thread does.

Python runs a handler when the main thread comes to it. A signal that arrives just before that thread waits in the
kernel interrupts nothing, and its handler would run when the wait is over: of a dump that hangs, never. What the
interpreter writes to the wakeup descriptor comes at once, in whichever thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heeding(stop: Callable[[str], None]) -> Iterator[None]:
    """While the block runs each of these signals calls `stop`, on a thread, with what to say of it.

    For the main thread. When the block is left no call is under way any more.
    """
    woken, waker = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(waker, False)
    listener = threading.Thread(target=_listen, args=(woken, stop), name="signals", daemon=True)
    listener.start()
    outer = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _noted) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(outer)
        os.close(waker)
        listener.join()
        os.close(woken)


def _noted(_number: int, _frame: object) -> None:
    """A handler of Python's own must stand, or the descriptor gets nothing."""


def _listen(woken: int, stop: Callable[[str], None]) -> None:
    while numbers := os.read(woken, 64):
        for number in numbers:
            if number in ENDING:
                stop(f"ended by {signal.Signals(number).name}")
