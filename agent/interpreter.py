"""How the interpreter divides itself between the event loop and the threads beside it."""

from __future__ import annotations

import gc
import sys
from typing import Final

from agent.core import heap

# How long a thread that computes keeps the interpreter from one that asks for it. Of the default, 5 ms, the loop waits
# all while a query runs, twice for an answer; with 1 ms half as long at no measurable cost (`benchmarks.queries`).
_SWITCH_S: Final = 0.001


def settle() -> None:
    """Call it once everything is imported and built.

    What is there by now stays for ever: the cyclic collector need not walk it again and again, which takes 35 ms of
    standing still each time and is brought about by every large query.
    """
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    heap.give_back()
