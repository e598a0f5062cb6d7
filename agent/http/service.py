"""What the endpoints share: asking history at the desk, sending an answer, dropping the question of who has left."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.core.clock import Clock
from agent.core.query import DEFAULT_LIMITS, Limits, Querier, QueryError, QueryTimeoutError
from agent.http import refusals
from agent.http.asked import Asked, asked_by
from agent.http.desk import BusyError, Desk
from agent.http.encoding import gathered
from agent.http.faces import HistoryFace
from agent.http.refusals import JSON, Refusal

T = TypeVar("T")
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_MOST_MESSAGES: Final = 3  # what is left of a body that has been read; a test's client may never run dry
_PIECE_DEADLINE_S: Final = 30.0  # for the other side to take one piece of an answer


class Allowance:
    """What a question may cost, however many queries it is made of."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._ends_at = monotonic() + seconds

    def now(self) -> Limits:
        """The limits of the next query. Raise QueryTimeoutError when no time is left."""
        left = self._ends_at - monotonic()
        if left <= 0:
            raise QueryTimeoutError(f"query took longer than {self._seconds:.3g} s; ask for less at a time")
        return replace(self._limits, deadline_s=left)

    def within(self, pieces: Iterable[T]) -> Iterator[T]:
        """The pieces of an answer, as long as time is left. Raise QueryTimeoutError."""
        for piece in pieces:
            self.now()
            yield piece


@dataclass(slots=True)
class Service:
    """The parts an endpoint works with. `history` is None where none is kept, and until it is open."""

    clock: Clock
    desk: Desk
    history: HistoryFace | None
    limits: Limits = DEFAULT_LIMITS

    def now_ms(self) -> int:
        return self.clock.wall_ns() // 1_000_000

    def must_history(self) -> HistoryFace:
        if self.history is None:
            raise Refusal("unavailable", "no history is kept here; history: {enabled: true} would be right")
        return self.history

    def querier(self, lookback_ms: int | None = None) -> Querier:
        """Who answers PromQL, with another lookback than usual where one is given."""
        return self.must_history().querier(lookback_ms)

    async def ask(self, work: Callable[[Allowance], T], deadline_s: float | None = None) -> T:
        """What `work` answers on the query thread. Raise Refusal."""
        most = self.limits.deadline_s
        wanted = most if deadline_s is None else min(deadline_s, most)
        try:
            return await self.desk.ask(lambda left: work(Allowance(self.limits, left)), wanted)
        except QueryError as error:
            raise refusals.of_query(error) from error
        except BusyError as error:
            raise Refusal("unavailable", str(error), {"Retry-After": "1"}) from error


def endpoint(answer: Callable[[Request, Asked], Awaitable[Response]]) -> Endpoint:
    """The function as Starlette calls it: parameters read, refusals answered."""

    @functools.wraps(answer)
    async def answered(request: Request) -> Response:
        try:
            asked = await asked_by(request)
            return await unless_gone(request, answer(request, asked))
        except Refusal as refusal:
            return refusals.answer(refusal)

    return answered


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """The answer; when the other side hangs up first, the question is dropped. Raise Refusal then."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Refusal("canceled", "the client went away")
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Return when the other side has hung up."""
    for _ in range(_MOST_MESSAGES):
        if (await receive())["type"] == "http.disconnect":
            return
    await asyncio.Event().wait()


class Pieces(Response):
    """An answer already encoded, sent piece by piece; a client that stops reading is let go."""

    def __init__(self, pieces: list[bytes], media_type: str = JSON, status: int = 200) -> None:
        super().__init__(None, status, media_type=media_type)
        del self.headers["content-length"]
        self.headers["content-length"] = str(sum(map(len, pieces)))
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            await send_piece(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Stream(Response):
    """An answer made while it is sent: `pieces` gives the next bytes."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async for piece in self._pieces:
                    await send_piece(send, piece)
                    if leaving.done():
                        return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            await self._pieces.aclose()


async def send_piece(send: Send, piece: bytes) -> None:
    """Send part of a body. Raise TimeoutError when the other side does not take it."""
    async with asyncio.timeout(_PIECE_DEADLINE_S):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


def json_answer(text: str) -> Response:
    """A small answer that is JSON text already."""
    return Pieces(gathered(iter((text,))))


def data_of(values: Iterator[str]) -> Iterator[str]:
    """JSON texts as a list."""
    yield "["
    comma = ""
    for value in values:
        yield comma + value
        comma = ","
    yield "]"
