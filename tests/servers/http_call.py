"""One HTTP request with the standard library: what tests ask real servers with, apart from the product's client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.servers.process import ServerError


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    url: str,
    method: str = "GET",
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    timeout: float = 20.0,
) -> Answer:
    """One request on a connection of its own, any status returned. Raise OSError when nobody answers in time."""
    parts = urlsplit(url)
    query = "&".join(filter(None, [parts.query, urlencode(params or {})]))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        content = body.encode() if isinstance(body, str) else body
        connection.request(method, (parts.path or "/") + (f"?{query}" if query else ""), content, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} {url}: {error!r}") from error
    finally:
        connection.close()


def must(answer: Answer) -> Answer:
    """The answer itself. Raise ServerError with its text when the status is not 2xx."""
    if not 200 <= answer.status < 300:
        raise ServerError(f"http status {answer.status}: {answer.body[:2000].decode(errors='replace')}")
    return answer


def answers_ok(url: str) -> bool:
    """True when a GET gives a 2xx; a readiness probe."""
    return 200 <= call(url, timeout=2.0).status < 300
