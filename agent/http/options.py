"""Who may ask over HTTP, and how the connection is protected."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.core.options import option, required
from agent.core.secrets import Secret

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_.-]+|\[?[0-9A-Fa-f:.]+\]?", re.ASCII)
_SHORTEST_TOKEN = 16  # characters; a shorter one can be guessed


def _check_hash(text: str) -> None:
    if text and not _SHA256.fullmatch(text):
        raise ValueError("is not a SHA-256 in hexadecimal; printf %s TOKEN | sha256sum prints it")


def _check_host(text: str) -> None:
    if not _HOST.fullmatch(text):
        raise ValueError("is not a host name; write it like web1.example.org or *.example.org, without a port")


def _check_path(text: str) -> None:
    if text and not text.startswith("/"):
        raise ValueError("is not an absolute path; begin it with /")


@dataclass(frozen=True, slots=True)
class Token:
    """One who may ask, recognised by `Authorization: Bearer <token>` or as the password of basic authentication."""

    name: str = required("Who holds it; for the log.", example="grafana")
    sha256: str = option("", "SHA-256 of the token, in hexadecimal.", check=_check_hash)
    token: Secret | None = option(None, "The token itself, where its hash will not do.",
                                  example="{credential: grafana-token}")  # fmt: skip

    def __post_init__(self) -> None:
        if bool(self.sha256) == (self.token is not None):
            raise ValueError(f"token {self.name!r} has neither or both of sha256 and token; give one of them")
        if self.token is not None and len(self.token.reveal()) < _SHORTEST_TOKEN:
            raise ValueError(f"token {self.name!r} is shorter than {_SHORTEST_TOKEN} characters; make a longer one")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the token."""
        if self.token is not None:
            return hashlib.sha256(self.token.reveal().encode()).digest()
        return bytes.fromhex(self.sha256)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate of this agent, and whose certificates it wants to see."""

    cert: str = required("Certificate chain, PEM.", example="/etc/vigilhost/tls.crt", check=_check_path)
    key: str = required("Private key, PEM.", example="/etc/vigilhost/tls.key", check=_check_path)
    client_ca: str = option("", "Authority whose client certificates are demanded, PEM; empty: none is asked for.",
                            check=_check_path)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Who may ask over HTTP. On loopback anyone on this host may read; elsewhere a token or a certificate is needed."""

    tokens: list[Token] = option(list, "Who may read. With one, every request needs a token, on loopback too.")
    admin_tokens: list[Token] = option(list, "Who may read and change; without one, nothing changes over TCP.")
    tls: Tls | None = option(None, "HTTPS instead of HTTP.")
    allowed_hosts: list[str] = option(
        list, "Names this agent answers to besides its own, localhost and addresses; *.example.org for all below.",
        check=_check_host,
    )  # fmt: skip


def holder(tokens: Iterable[Token], given: str) -> str | None:
    """The name of who holds the given token, None when nobody does. Takes as long for a near miss as for a wide one."""
    digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token.name
    return found
