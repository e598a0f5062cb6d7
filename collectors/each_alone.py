"""The same slow call for several targets at once, so that one that hangs does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.core.errors import SourceError

A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 8  # threads; each costs 60 us to start and is gone when the round is over


def each_alone(call: Callable[[A], R], targets: Sequence[A]) -> Iterator[tuple[A, R | SourceError]]:
    """Each target with what `call` made of it, or with the SourceError it raised; in the order given."""

    def guarded(target: A) -> R | SourceError:
        try:
            return call(target)
        except SourceError as error:
            return error

    if len(targets) <= 1:  # the usual case needs no thread
        yield from ((target, guarded(target)) for target in targets)
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(targets)), "target") as pool:
        yield from zip(targets, pool.map(guarded, targets), strict=True)


def rounds(count: int) -> int:
    """How many calls may have to wait for each other, for working out a deadline."""
    return max(1, -(-count // AT_ONCE))
