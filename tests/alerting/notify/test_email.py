"""Email through a real SMTP server: encryption, login, both bodies, threads, and what its answers mean."""

from __future__ import annotations

import email
import email.policy
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from agent.core.errors import Rejected, Retryable
from agent.core.secrets import Secret
from alerting.notify.email import Email
from alerting.notify.message import Notification
from tests.alerting.notify.examples import DIGEST, FIRING, HUGE, RESOLVED
from tests.servers.certificates import Certificate, make_certificate
from tests.servers.process import free_port


class Mailbox:
    """Keeps what arrives; answers `to_reply` to each recipient, `reply` to the whole message, `quit_reply` to QUIT."""

    def __init__(self, reply: str = "250 OK", to_reply: str = "250 OK", quit_reply: str = "221 Bye") -> None:
        self.mails: list[EmailMessage] = []
        self.was_encrypted: list[bool] = []
        self.reply = reply
        self.to_reply = to_reply
        self.quit_reply = quit_reply

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any) -> str:  # noqa: N802
        if self.to_reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.reply.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            self.mails.append(message)
            self.was_encrypted.append(session.ssl is not None)
        return self.reply

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return self.quit_reply


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextmanager
def mail_server(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def mailer(port: int, certificate: Certificate | None = None, **options: Any) -> Email:
    authority = str(certificate.authority) if certificate else ""
    return Email(["ops@example.com", "boss@example.com"], "Vigilhost <v@host.example>", "127.0.0.1", port,
                 ca_file=authority, **options)  # fmt: skip


def received(note: Notification, *more: Notification) -> list[EmailMessage]:
    box = Mailbox()
    with mail_server(box) as port:
        for one in (note, *more):
            mailer(port, tls="none").send(one, None)
    return box.mails


def test_by_default_nothing_is_sent_unencrypted(certificate: Certificate) -> None:
    box = Mailbox()
    with mail_server(box, tls_context=certificate.server_context(), require_starttls=True) as port:
        mailer(port, certificate).send(FIRING, None)
    assert box.was_encrypted == [True]


def test_a_server_without_starttls_is_refused_rather_than_trusted() -> None:
    box = Mailbox()
    with mail_server(box) as port, pytest.raises(Retryable, match="does not offer") as caught:
        mailer(port).send(FIRING, None)
    assert caught.value.is_lasting, "it is tried again once somebody has mended it"
    assert box.mails == []


def test_implicit_tls(certificate: Certificate) -> None:
    box = Mailbox()
    with mail_server(box, ssl_context=certificate.server_context()) as port:
        mailer(port, certificate, tls="implicit").send(FIRING, None)
    assert len(box.mails) == 1


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_certificate_nobody_vouches_for_is_refused(certificate: Certificate, tls: str) -> None:
    context = certificate.server_context()
    options = {"ssl_context": context} if tls == "implicit" else {"tls_context": context}
    with (
        mail_server(Mailbox(), **options) as port,
        pytest.raises(Retryable, match="certificate is not valid") as caught,
    ):
        mailer(port, tls=tls).send(FIRING, None)
    assert caught.value.is_lasting


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    expired = make_certificate(tmp_path / "old", expired=True)
    with (
        mail_server(Mailbox(), tls_context=expired.server_context()) as port,
        pytest.raises(Retryable, match="certificate has expired"),
    ):
        mailer(port, expired).send(FIRING, None)


@pytest.mark.parametrize(("password", "is_right"), [("right", True), ("wrong-canary", False)])
def test_login_over_an_encrypted_session_only(certificate: Certificate, password: str, is_right: bool) -> None:
    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == b"right", handled=False)

    box = Mailbox()
    options = {"tls_context": certificate.server_context(), "authenticator": check, "auth_required": True}
    with mail_server(box, **options) as port:
        sender = mailer(port, certificate, username="me", password=Secret(password))
        if is_right:
            sender.send(FIRING, None)
        else:
            with pytest.raises(Retryable, match="credentials invalid") as caught:  # it is tried with the next password
                sender.send(FIRING, None)
            assert caught.value.is_lasting
            assert "canary" not in f"{caught.value}{caught.value.__cause__}"
    assert len(box.mails) == is_right
    with pytest.raises(ValueError, match="a password is not sent unencrypted"):
        Email(["a@b.c"], "a@b.c", tls="none", username="me", password=Secret("x"))


def test_a_port_in_the_server_s_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"email\.server: found 'mail:25'; a name or an address, and `port` apart"):
        Email(["a@b.c"], "a@b.c", server="mail:25")
    assert Email(["a@b.c"], "a@b.c", server="::1").server == "::1"


@pytest.mark.parametrize(
    ("answers", "kind", "text"),
    [
        ({"reply": "451 try later"}, Retryable, "try later"),
        ({"reply": "554 spam"}, Rejected, "spam"),
        ({"to_reply": "550 no such user"}, Rejected, "no such user"),
        ({"to_reply": "450 mailbox busy"}, Retryable, "mailbox busy"),
    ],
)
def test_what_the_servers_answers_mean(answers: dict[str, str], kind: type[Exception], text: str) -> None:
    with mail_server(Mailbox(**answers)) as port, pytest.raises(kind, match=text):
        mailer(port, tls="none").send(FIRING, None)


@pytest.mark.parametrize("answers", [{"to_reply": "530 log in first"}, {"reply": "535 no longer"}])
def test_a_mail_waits_for_a_login_that_is_missing(answers: dict[str, str]) -> None:
    with mail_server(Mailbox(**answers)) as port, pytest.raises(Retryable) as caught:
        mailer(port, tls="none").send(FIRING, None)
    assert caught.value.is_lasting


def test_how_a_session_ends_does_not_send_the_mail_again() -> None:
    box = Mailbox(quit_reply="421 too busy")
    with mail_server(box) as port:
        assert mailer(port, tls="none").send(FIRING, None).detail == "accepted by 127.0.0.1"
    assert len(box.mails) == 1


def test_nobody_there_is_retryable() -> None:
    with pytest.raises(Retryable, match="Connection refused"):
        mailer(free_port()).send(FIRING, None)


def test_a_mail_has_a_text_and_a_page_and_its_headers() -> None:
    (mail,) = received(FIRING)
    assert (mail["Subject"], mail["To"]) == ("[FIRING:2] DiskFull critical", "ops@example.com, boss@example.com")
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<7f3a@host.example>", "auto-generated")
    text, page = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert page is not None
    assert "FIRING: /var/lib on db1 is 97% full" in text.get_content()
    assert "-- \nWhy now: 2 new\nTo be told no more" in text.get_content().replace("\r\n", "\n")
    assert ">/var/lib on db1 is 97% full</div>" in page.get_content()


def test_mails_of_one_group_and_day_are_one_thread() -> None:
    next_day = replace(RESOLVED, at=RESOLVED.at + 86400, message_id="next")
    other = replace(FIRING, group_key="another", message_id="other")
    other_host = replace(FIRING, source="db2", message_id="db2")
    first, second, *others = received(FIRING, replace(RESOLVED, message_id="second"), next_day, other, other_host)
    assert first["References"] == second["References"] == second["In-Reply-To"]
    assert len({mail["References"] for mail in (first, *others)}) == 4
    assert len({mail["Message-ID"] for mail in (first, second, *others)}) == 5


def test_a_mail_sent_twice_is_the_same_mail() -> None:
    first, second = received(FIRING, FIRING)
    assert first["Message-ID"] == second["Message-ID"]


def test_hostile_labels_make_neither_headers_nor_scripts() -> None:
    (mail,) = received(HUGE)
    assert mail["Bcc"] is None
    page = mail.get_body(("html",))
    assert page is not None
    assert "<script" not in page.get_content()
    assert "... and 200 more" in page.get_content()


def test_a_digest_is_a_mail_too() -> None:
    (mail,) = received(DIGEST)
    assert mail["Subject"] == "Summary of 2023-11-14: 1 still firing, 4 fired, 1 failed"


def test_certificates_are_really_checked(certificate: Certificate) -> None:
    assert certificate.client_context().verify_mode == ssl.CERT_REQUIRED
