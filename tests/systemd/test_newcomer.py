"""What a newcomer does with the README alone, on a fresh Debian: a mail, an answered dashboard, a verified backup."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.servers.http_call import call, must
from tests.servers.process import wait_until
from tests.systemd.installed import SERVICE, Installed

MAILBOX = "mailbox.service"
ANSWERS = "ops@example.org\n\n/etc\n/srv/backup\n"
RULE = """\
groups:
- name: first
  interval: 5s
  rules:
  - {alert: FirstAlert, expr: node_memory_MemTotal_bytes > 0, labels: {severity: critical}}
"""


@pytest.fixture(scope="module")
def configured(machine: Installed) -> Installed:
    """`vigilhost init` was answered; a mail server listens that prints what it is given."""
    machine.run("systemd-run", f"--unit={MAILBOX}", "python3", "-W", "ignore", "-u", "-m", "smtpd", "-n", "-c",
                "DebuggingServer", "127.0.0.1:25")  # fmt: skip
    wait_until(
        lambda: machine.attempt("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/25").returncode == 0, "the mail server"
    )
    machine.path("/etc/hosts").write_text("127.0.0.1 localhost\n")  # as Debian's installer leaves it
    machine.run("mkdir", "/srv/backup")
    machine.run("vigilhost", "init", stdin=ANSWERS)
    machine.run("systemctl", "reload", SERVICE)
    return machine


def test_an_alert_is_in_the_mailbox(configured: Installed) -> None:
    configured.run("sh", "-c", "cat >/etc/vigilhost/rules.d/first.yaml", stdin=RULE)
    configured.run("vigilhost", "rules", "check", "/etc/vigilhost/rules.d/first.yaml")
    configured.run("systemctl", "reload", SERVICE)
    wait_until(lambda: "FirstAlert" in mails(configured), "a mail about it", 60, every=0.5)
    assert "To: ops@example.org" in mails(configured)


def mails(machine: Installed) -> str:
    """Everything the mail server was given."""
    return machine.run("journalctl", "--no-pager", "--quiet", "--output=cat", f"--unit={MAILBOX}")


def test_every_question_of_the_dashboard_is_answered(configured: Installed) -> None:
    exported = configured.run("vigilhost", "dashboards", "export", "grafana", "--source", "vigilhost")
    expressions = [target["expr"] for panel in json.loads(exported)["panels"] for target in panel.get("targets", ())]
    answers = {expr: asked(configured, expr) for expr in expressions}
    assert {expr for expr, answer in answers.items() if answer["status"] != "success"} == set()
    assert sum(bool(answer["data"]["result"]) for answer in answers.values()) > len(answers) / 2


def asked(machine: Installed, expr: str) -> Any:
    """The answer now, with the dashboard's variables filled in as Grafana does it."""
    filled = expr.replace("$__rate_interval", "1m").replace("$host", ".+")
    return json.loads(must(call(f"{machine.url}/api/v1/query?query={quote(filled)}")).text)


def test_a_backup_is_made_and_verified(configured: Installed) -> None:
    (name,) = configured.run("sh", "-c", "cd /etc/vigilhost/backup.d && basename -s .yaml *").split()
    configured.run("vigilhost", "backup", "run", name, deadline=120)
    (kept,) = json.loads(configured.run("vigilhost", "backup", "list", "--json"))["backups"]
    assert kept["complete"]
    assert kept["level"] == 2, "it was read back and decoded"
