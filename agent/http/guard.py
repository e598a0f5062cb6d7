"""What stands before every endpoint: limits, the host allow-list, tokens, protective headers, and silence on errors."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.http import refusals
from agent.http.options import HttpOptions, holder
from agent.http.refusals import Refusal

HEADER_BYTES: Final = 8 * 1024
BODY_BYTES: Final = 64 * 1024
BODY_DEADLINE_S: Final = 5.0
_DRAINED_BYTES: Final = 32 * 1024 * 1024  # of a body too large, thrown away so that its sender reads the answer

_PROTECTIVE: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN_PATHS: Final = frozenset({"/-/ready"})  # says nothing but that the agent runs; load balancers have no token

log = structlog.get_logger("http")


class Guard:
    """Wraps the application. `is_read` tells of a method and path whether the request changes nothing."""

    def __init__(
        self, app: ASGIApp, options: HttpOptions, hosts: Iterable[str], is_read: Callable[[str, str], bool]
    ) -> None:
        self._app = app
        self._admins = options.admin_tokens
        self._readers = [*options.tokens, *options.admin_tokens]
        self._needs_token = bool(options.tokens)
        self._hosts = frozenset(name.lower() for name in (*hosts, *options.allowed_hosts, "localhost"))
        self._is_read = is_read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        has_started = False

        async def protected(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                for name, value in _PROTECTIVE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is not None:
                await refused(scope, receive, protected)
                return
            body = await _body(scope, receive)
            await self._app(scope, _replayed(body, receive), protected)
        except Refusal as refusal:
            await refusals.answer(refusal)(scope, receive, protected)
        except Exception:
            log.exception("http.failed", path=scope["path"])
            if has_started:
                return  # cut short, and so recognisably not whole; the server closes the connection
            await refusals.answer(Refusal("internal", "internal error; the agent's log has it"))(
                scope, receive, protected
            )

    def _refused(self, scope: Scope) -> Response | None:
        """The refusal of a request that is too large, misdirected or not allowed; None for any other."""
        headers = Headers(scope=scope)
        size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(k) + len(v) + 4 for k, v in headers.raw)
        if size > HEADER_BYTES:
            return _too_large()
        if not self._is_ours(headers.get("host")):
            return refusals.answer(
                Refusal("forbidden", "this agent does not answer to that host name; http.allowed_hosts names more"), 421
            )
        is_read = self._is_read(scope["method"], scope["path"])
        if is_read and (not self._needs_token or scope["path"] in _OPEN_PATHS):
            return None
        if not is_read and not self._admins:
            return refusals.answer(
                Refusal("forbidden", "nothing changes over HTTP here; http.admin_tokens would allow it")
            )
        given = _token(headers.get("authorization", ""))
        name = holder(self._readers if is_read else self._admins, given)
        if name is None:
            is_known = bool(given) and holder(self._readers, given) is not None
            return _unauthorized(is_known)
        if not is_read:
            log.info("http.change", path=scope["path"], method=scope["method"], token=name)
        return None

    def _is_ours(self, host: str | None) -> bool:
        """Is the Host an address or one of our names? A page in a browser can only name its own: DNS rebinding."""
        if not host:
            return True  # HTTP/1.0 without the header: no browser
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.lower().rstrip(".")
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            parents = name.split(".")
            return name in self._hosts or any(
                ".".join(("*", *parents[at:])) in self._hosts for at in range(1, len(parents))
            )
        return True


def _token(authorization: str) -> str:
    """The token of a bearer, or the password of basic authentication, which Grafana can send; "" for neither."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _unauthorized(is_known: bool) -> Response:
    if is_known:
        return refusals.answer(Refusal("forbidden", "this token may read only; changes need one of http.admin_tokens"))
    return refusals.answer(
        Refusal("unauthorized", "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
    )


def _too_large() -> Response:
    return PlainTextResponse(
        f"request line and headers are larger than {HEADER_BYTES >> 10} KiB; send a long query by POST\n", 431
    )


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raise Refusal when it is too large or too slow."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    is_large = int(length) > BODY_BYTES if length.isdecimal() and len(length) < 20 else True
    if is_large and "expect" in headers:
        raise _body_too_large()  # its sender waits for a word before sending
    if length == "0" and "transfer-encoding" not in headers:
        return b""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal("canceled", "the client went away")
                piece = message.get("body", b"")
                size += len(piece)
                if size <= BODY_BYTES:
                    parts.append(piece)
                if not message.get("more_body", False) or size > _DRAINED_BYTES:
                    break
    except TimeoutError:
        raise Refusal("bad_data", f"the body did not come within {BODY_DEADLINE_S:g} s", _CLOSE) from None
    if size > BODY_BYTES:
        raise _body_too_large()
    return b"".join(parts)


_CLOSE: Final = {"Connection": "close"}


def _body_too_large() -> Refusal:
    return Refusal("bad_data", f"request body is larger than {BODY_BYTES >> 10} KiB; ask for less at a time", _CLOSE)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body read before, then what follows it."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
