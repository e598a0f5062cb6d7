"""Email: text and HTML, over STARTTLS unless told otherwise, one thread a group and day."""

from __future__ import annotations

import smtplib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import ClassVar, Literal

from agent.core.errors import Rejected, Retryable
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Seconds
from alerting.notify import mail_page, render
from alerting.notify.message import Notification, SentReceipt

_LONGEST_TEXT = 200_000
_LOGIN_CODES = frozenset({530, 534, 535, 538})  # RFC 4954: of a login that is missing or not taken


@dataclass(slots=True)
class Email:
    """A mail server and whom to write to."""

    to: list[str] = required("Whom to write to.", example="[ops@example.com]")
    sender: str = required("Address it comes from.", example="vigilhost@example.com")
    server: str = option("localhost", "Mail server.")
    port: int = option(
        587, "Port; 465 goes with `tls: implicit`, 25 with a relay on this host.", minimum=1, maximum=65535
    )
    tls: Literal["starttls", "implicit", "none"] = option("starttls", "Encryption: starttls, implicit or none.")
    username: str = option("", "Name to log in with; empty for no login.")
    password: Secret = option(Secret(""), "Password to log in with.")
    ca_file: str = option("", "Certificate authority to trust instead of the system's.")
    deadline: Seconds = option(30.0, "Longest wait for each answer of the server.", minimum=1.0)

    kind: ClassVar[str] = "email"
    can_summarize: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.tls == "none" and self.username:
            raise ValueError("email.tls: a password is not sent unencrypted; use starttls or implicit")
        if self.server.count(":") == 1:  # more of them are an IPv6 address
            raise ValueError(f"email.server: found {self.server!r}; a name or an address, and `port` apart from it")

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:  # noqa: ARG002
        message = self._message(notification)
        try:
            connection = self._connected()
            try:
                refused = connection.send_message(message)
            finally:
                _leave(connection)
        except (smtplib.SMTPException, OSError, ssl.SSLError) as error:
            raise self._failure(error) from error
        lost = f", but not by {', '.join(sorted(refused))}" if refused else ""
        return SentReceipt(message["Message-ID"], f"accepted by {self.server}{lost}")

    def preview(self, notification: Notification) -> str:
        return f"Subject: {render.title(notification)}\n\n{render.text(notification, _LONGEST_TEXT)}"

    def _connected(self) -> smtplib.SMTP:
        """A session, encrypted and logged in as configured."""
        context = ssl.create_default_context(cafile=self.ca_file or None)
        name = socket.gethostname()  # smtplib would ask the DNS for it, which may be what is broken
        if self.tls == "implicit":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                self.server, self.port, name, timeout=self.deadline, context=context
            )
        else:
            connection = smtplib.SMTP(self.server, self.port, name, self.deadline)
        try:
            if self.tls == "starttls":
                connection.starttls(context=context)
            if self.username:
                connection.login(self.username, self.password.reveal())
        except BaseException:
            connection.close()
            raise
        return connection

    def _failure(self, error: Exception) -> Retryable | Rejected:
        where = f"email: {self.server}:{self.port}"
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return Retryable(
                f"{where}: it does not offer what we need: {error}; set tls to what it has",
                kind="smtp_feature", is_lasting=True,
            )  # fmt: skip
        if isinstance(error, ssl.SSLCertVerificationError):
            return Retryable(
                f"{where}: its certificate is not valid: {error.verify_message}", kind="tls", is_lasting=True
            )
        codes = [error.smtp_code] if isinstance(error, smtplib.SMTPResponseException) else []
        reason = error.smtp_error if isinstance(error, smtplib.SMTPResponseException) else str(error)
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            codes = [code for code, _ in error.recipients.values()]
            reason = next((said for _, said in error.recipients.values()), "")
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        message = f"{where}: {render.one_line(text)}"
        if _LOGIN_CODES.intersection(codes):  # a password is changed, or an account unlocked: the mail can wait for it
            return Retryable(message, kind=f"smtp_{codes[0]}", is_lasting=True)
        if codes and all(500 <= code < 600 for code in codes):
            return Rejected(message, kind=f"smtp_{codes[0]}")
        return Retryable(message, kind=f"smtp_{codes[0]}" if codes else "network")

    def _message(self, notification: Notification) -> EmailMessage:
        domain = parseaddr(self.sender)[1].rpartition("@")[2] or "localhost"
        day = render.when(notification.at, notification.zone)[:10]
        thread = f"<{notification.thread_id}.{day}@{domain}>"
        message = EmailMessage()
        message["Subject"] = render.title(notification)
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        message["Date"] = format_datetime(datetime.fromtimestamp(notification.at, UTC))
        own_id = notification.message_id or f"{notification.thread_id}.{notification.at:.3f}"
        message["Message-ID"] = f"<{own_id}@{domain}>"
        message["In-Reply-To"] = thread
        message["References"] = thread
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(_text(notification))
        message.add_alternative(mail_page.page(notification), subtype="html")
        return message


def _leave(connection: smtplib.SMTP) -> None:
    """End the session. What the server says to that is no matter: it has taken the mail by now, or has not."""
    try:
        connection.quit()
    except (smtplib.SMTPException, OSError):
        connection.close()


def _text(notification: Notification) -> str:
    """What the page says, for those who read text."""
    footer = [f"Why now: {notification.reason}"]
    if command := render.silence_command(notification):
        footer.append(f"To be told no more for two hours: {command}")
    return "\n".join([render.text(notification, _LONGEST_TEXT), "", "-- ", *footer, notification.external_url]).rstrip()
