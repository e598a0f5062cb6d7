"""How little memory the allocator keeps for itself."""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h of glibc


def use_one_arena() -> None:
    """Let all threads share one heap. Call it before the first thread starts; without glibc it does nothing.

    glibc gives each of the dozen threads an arena, which keeps what was ever freed into it: 1 MB in all. They take
    turns at the interpreter anyway, so one lock more costs nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
