"""From a breach to a mail in the box, through a real agent and a real mail server."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

from alerting.notify.message import Notification
from tests.e2e.alert_site import watched_queue
from tests.servers.certificates import make_certificate
from tests.servers.process import wait_until
from tests.servers.smtp_sink import SmtpSink

ALERTING = """\
external_url: https://db1.example.com
receivers:
  ops:
    type: email
    to: [ops@example.com, boss@example.com]
    sender: Vigilhost <vigilhost@example.com>
    server: 127.0.0.1
    port: {port}
    username: vigilhost
    password: {{file: {directory}/mail.password}}
    ca_file: {authority}
outbox: {{first_retry: 500ms}}
route: {{receiver: ops, group_by: [alertname], group_wait: 0s}}
"""


def part(mail: EmailMessage, kind: str) -> str:
    """The body of that kind."""
    found = mail.get_body((kind,))
    assert found is not None
    return str(found.get_content())


def test_a_breach_becomes_a_mail_and_its_end_another_in_the_same_thread(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "certificate")
    secret = tmp_path / "mail.password"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    login = ("vigilhost", "correct horse")
    with SmtpSink(certificate, require_tls=True, login=login) as sink:
        alerting = ALERTING.format(port=sink.port, directory=tmp_path, authority=certificate.authority)
        with watched_queue(tmp_path, alerting) as site:
            sink.refuse("451 4.7.1 greylisted", "451 4.7.1 greylisted")
            site.queue(50)
            sink.wait_for(1, 60.0)
            site.queue(1)
            firing, resolved = sink.wait_for(2, 60.0)
            wait_until(lambda: "delivered to ops: 1 resolved" in site.log(), "the delivery is noted")
            assert site.log().count("delivered to ops") == 2
    assert sink.refusals == 2
    for one in (firing, resolved):
        assert (one.tls, one.user) == (True, "vigilhost")
        assert one.recipients == ["ops@example.com", "boss@example.com"]
        assert one.message["From"] == "Vigilhost <vigilhost@example.com>"
        assert one.message.get_content_type() == "multipart/alternative"
    first, second = firing.message, resolved.message
    assert first["Subject"] == "[FIRING] QueueLong db1 critical"
    assert second["Subject"] == "[RESOLVED] QueueLong db1 critical"
    assert first["Message-ID"] != second["Message-ID"]
    assert first["References"] == second["References"]
    thread = Notification("ops", '{}:{alertname="QueueLong"}', (), 0.0, source="db1").thread_id
    assert first["References"].startswith(f"<{thread}.")  # with the host in it, as hosts share a mailbox
    for mail, word in ((first, "FIRING"), (second, "RESOLVED")):
        assert f"{word}: 50 wait" in part(mail, "plain")
        assert "50 wait" in part(mail, "html")
        assert "https://db1.example.com" in part(mail, "html")
