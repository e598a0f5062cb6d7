"""What does not work now, and loops that outlive what goes wrong in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Final, TypeVar

import structlog

from agent.core.clock import Clock
from agent.core.errors import VigilhostError

T = TypeVar("T")

AFTER_A_FAULT_S: Final = 5.0
_EXPECTED: Final = (sqlite3.Error, OSError, VigilhostError)  # TimeoutError is an OSError


class Troubles:
    """One sentence for each thing that may fail, from its failure until it works again. Belongs to the event loop."""

    def __init__(self, clock: Clock, room: str) -> None:
        """`room`: the name it logs under."""
        self._clock = clock
        self._log = structlog.get_logger(room)
        self._reasons: dict[tuple[str, str], str] = {}

    def __iter__(self) -> Iterator[str]:
        """The sentences, each once."""
        return iter(dict.fromkeys(self._reasons.values()))

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def fault(self, event: str, error: Exception, of: str = "") -> None:
        """Something that a person must see; the same again is not said again. `of`: one of several that may fail."""
        is_expected = isinstance(error, _EXPECTED)
        reason = str(error)
        if not is_expected:
            reason = f"{event}: it failed in itself: {type(error).__name__}: {error}"
        elif not reason:
            what = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            reason = f"{event}: {what}"
        if reason not in self._reasons.values():
            facts = {"of": of} if of else {}
            self._log.error(event, reason=reason, exc_info=None if is_expected else error, **facts)
        self._reasons[event, of] = reason

    def clear(self, event: str, of: str = "") -> None:
        """It works again."""
        self._reasons.pop((event, of), None)

    def keep_only(self, event: str, these: Collection[str]) -> None:
        """Of several that may fail only these are left."""
        for one in [one for one in self._reasons if one[0] == event and one[1] not in these]:
            del self._reasons[one]

    async def insist(self, event: str, step: Callable[[], Awaitable[T]], of: str = "") -> T:
        """Do the step until it succeeds, with a pause after each failure. It may be done twice: see that it can be."""
        while True:
            try:
                done = await step()
            except Exception as error:  # noqa: BLE001 - one that fails leaves the others running; `fault` logs it
                self.fault(event, error, of)
                await self._clock.sleep_until(self._clock.monotonic() + AFTER_A_FAULT_S)
            else:
                self.clear(event, of)
                return done

    async def keep_doing(self, event: str, step: Callable[[], Awaitable[None]], of: str = "") -> None:
        """Do the step again and again until cancelled, whatever it raises. It should wait first, then work."""
        while True:
            await self.insist(event, step, of)
