"""The same slow call for several targets at once, so that one that hangs does not hold up the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Semaphore, Thread
from time import monotonic
from typing import Generic, TypeVar

from agent.core.errors import SourceError
from agent.core.units import format_duration

A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 8  # threads; each costs 60 us to start and is gone when the round is over


class EachAlone(Generic[A, R]):
    """Calls each target with `call`, which returns or raises SourceError, once a round and never twice at a time.

    A call that has not come back after `within_s` seconds is left behind with its thread, which holds up neither the
    next round nor the end of the process: a name that does not resolve, a program on a dead mount.
    """

    def __init__(self, call: Callable[[A], R], targets: Sequence[A], within_s: float) -> None:
        self._call = call
        self._targets = targets
        self._within_s = within_s
        self._under_way: set[int] = set()

    def outcomes(self) -> Iterator[tuple[A, R | SourceError]]:
        """One round: each target with its result or the SourceError, in the order given."""
        if len(self._targets) <= 1:  # the usual case needs no thread
            yield from ((target, self._guarded(target)) for target in self._targets)
            return
        left_behind = self._under_way.copy()
        done = self._round(deque(at for at in range(len(self._targets)) if at not in left_behind))
        for at, target in enumerate(self._targets):
            if at in left_behind:
                yield target, SourceError("an earlier call has not come back")
            elif at not in done:
                yield target, SourceError(f"no answer within {format_duration(self._within_s)}")
            elif isinstance(outcome := done[at], Exception) and not isinstance(outcome, SourceError):
                raise outcome
            else:
                yield target, outcome

    def _round(self, waiting: deque[int]) -> dict[int, R | SourceError | Exception]:
        """What came of these targets in time, by their places."""
        done: dict[int, R | SourceError | Exception] = {}
        ended = Semaphore(0)

        def work() -> None:
            while waiting:
                try:
                    at = waiting.popleft()
                except IndexError:  # another thread was quicker
                    return
                self._under_way.add(at)
                try:
                    done[at] = self._guarded(self._targets[at])
                except Exception as error:  # noqa: BLE001 - raised again where the round was asked for
                    done[at] = error
                self._under_way.discard(at)
                ended.release()

        until = monotonic() + self._within_s
        for _ in range(min(AT_ONCE, count := len(waiting))):
            Thread(target=work, name="target", daemon=True).start()
        for _ in range(count):
            if not ended.acquire(timeout=max(0.0, until - monotonic())):
                break
        waiting.clear()  # a thread that comes back late is not to go on
        return done.copy()

    def _guarded(self, target: A) -> R | SourceError:
        try:
            return self._call(target)
        except SourceError as error:
            return error


def rounds(count: int) -> int:
    """How many calls may have to wait for each other, for working out a deadline."""
    return max(1, -(-count // AT_ONCE))
