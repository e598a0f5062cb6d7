"""A request that gets no answer, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.responses import Response

from agent.core.query import ParseError, QueryError

JSON: Final = "application/json"

# Error types of Prometheus' HTTP API and their status codes.
_STATUS: Final[Mapping[str, int]] = {
    "bad_data": 400,
    "execution": 422,
    "timeout": 503,
    "canceled": 503,
    "unavailable": 503,
    "internal": 500,
    "not_found": 404,
    "unauthorized": 401,
    "forbidden": 403,
}


class Refusal(Exception):
    """A request that cannot be answered; the text goes to who asked. `kind` is an error type of Prometheus' API."""

    def __init__(self, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.headers = dict(headers or {})


def bad(name: str, message: str) -> Refusal:
    """A wrong parameter, said as Prometheus says it."""
    return Refusal("bad_data", f'invalid parameter "{name}": {message}')


def of_query(error: QueryError) -> Refusal:
    """A query without an answer; what cannot be parsed is said with its place first, where clients look for it."""
    if isinstance(error, ParseError):
        hint = f"; {error.hint}" if error.hint else ""
        return Refusal(error.kind, f"{error.line}:{error.column}: parse error: {error.message}{hint}")
    return Refusal(error.kind, str(error))


def answer(refusal: Refusal, status: int | None = None) -> Response:
    """The error as Prometheus' API has it."""
    body = msgspec.json.encode({"status": "error", "errorType": refusal.kind, "error": clean(str(refusal))})
    return Response(body, status or _STATUS.get(refusal.kind, 422), {"Content-Type": JSON, **refusal.headers})


def clean(text: str) -> str:
    """The text without what UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()
