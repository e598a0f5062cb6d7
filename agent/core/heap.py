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
    _of_glibc("mallopt", _M_ARENA_MAX, 1)


def give_back() -> None:
    """Return what is free to the kernel; about a millisecond. Without glibc it does nothing."""
    _of_glibc("malloc_trim", 0)


def _of_glibc(name: str, *arguments: int) -> None:
    if function := getattr(ctypes.CDLL(None), name, None):
        function(*arguments)
