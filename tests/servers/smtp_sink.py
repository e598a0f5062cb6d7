"""An SMTP server (aiosmtpd) in a thread of this process: keeps the messages, or refuses them as told."""

from __future__ import annotations

import email
import email.policy
import threading
from collections import deque
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.certificates import Certificate
from tests.servers.process import LOOPBACK, PORT_RACES, ServerError, free_port, wait_until


@dataclass(frozen=True, slots=True)
class Mail:
    """One accepted message; `tls` and `user` say how its session stood."""

    sender: str
    recipients: list[str]
    raw: bytes
    tls: bool
    user: str | None  # None without AUTH

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


class SmtpSink:
    """With a `certificate` it offers STARTTLS and, if `require_tls`, insists; with `login` it insists on that AUTH.

    `implicit_tls` speaks TLS from the first byte instead.
    """

    def __init__(
        self,
        certificate: Certificate | None = None,
        require_tls: bool = False,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.certificate = certificate
        self.require_tls = require_tls
        self.implicit_tls = implicit_tls
        self.login = login
        self.mails: list[Mail] = []
        self.refusals = 0
        self._answers: deque[str] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for _ in range(PORT_RACES):
            self.port = free_port()
            self._controller = self._controller_on(self.port)
            try:
                self._controller.start()
            except OSError:
                self._controller.stop(no_assert=True)
                continue
            return self
        raise ServerError(f"smtp sink: port {self.port} is taken")

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def url(self) -> str:
        return f"{'smtps' if self.implicit_tls else 'smtp'}://{LOOPBACK}:{self.port}"

    def refuse(self, *answers: str) -> None:
        """The next messages get these answers after DATA, one each: "451 4.7.1 try again later"."""
        with self._lock:
            self._answers.extend(answers)

    def wait_for(self, count: int, deadline: float = 20.0) -> list[Mail]:
        """The messages so far, as soon as there are `count`. Raise TimeoutError when they do not come."""
        wait_until(lambda: len(self.mails) >= count, f"{count} mails, saw {len(self.mails)}", deadline)
        return list(self.mails)

    def _controller_on(self, port: int) -> Controller:
        context = self.certificate.server_context() if self.certificate else None
        options: dict[str, Any] = {"ident": "vigilhost test sink"}
        if self.implicit_tls:
            options["ssl_context"] = context
        elif context:
            options |= {"tls_context": context, "require_starttls": self.require_tls}
        if self.login:
            options |= {"authenticator": self._authenticate, "auth_required": True, "auth_require_tls": bool(context)}
        return Controller(_Handler(self), hostname=LOOPBACK, port=port, **options)

    def _authenticate(self, server: SMTP, session: Session, envelope: Envelope, how: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == self.login
        # not "handled": aiosmtpd still has to say 535
        return AuthResult(success=good, handled=False, auth_data=data.login.decode() if good else None)


class _Handler:
    def __init__(self, sink: SmtpSink) -> None:
        self.sink = sink

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        with self.sink._lock:
            if self.sink._answers:
                self.sink.refusals += 1
                return self.sink._answers.popleft()
            raw = envelope.original_content or b""
            user: Any = session.auth_data  # what _authenticate put there
            tls = session.ssl is not None or self.sink.implicit_tls
            self.sink.mails.append(Mail(envelope.mail_from or "", list(envelope.rcpt_tos), raw, tls, user))
        return "250 2.0.0 kept"
