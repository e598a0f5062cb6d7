"""`vigilhost init`: three questions, a small commented configuration, a test message."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import click

from agent.config import ConfigError, load
from agent.config.files import DEFAULT_FILE
from agent.config.write import quote
from agent.core.labels import labels_of
from alerting.attempts import Claimed, attempt
from alerting.notify.message import SentReceipt
from alerting.policy import Policy, sample_notification

_ASK_ALERTS = "Where shall alerts go? (mail address, web address of a channel, or empty for nowhere)"
_ASK_INFLUX = "Where is InfluxDB? (http://host:8086/org/bucket, or empty for none)"
_ASK_BACKUP = "What shall be backed up? (directories with spaces between, or empty for nothing)"
_ASK_TARGET = "Where shall the copies be kept? (a directory, best on another disk)"
_SECRET_MODE = 0o640  # the agent's group may read it
_WEBHOOK_HOSTS = (("hooks.slack.com", "slack"), ("discord.com", "discord"), ("discordapp.com", "discord"))
_MAIL = re.compile(r"[^@\s/:]+@[^@\s/]+\.[^@\s/]+")


@dataclass(slots=True)
class Files:
    """What is to be written: YAML by path, secrets by path. Paths are relative to the configuration's directory."""

    main: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    target: str | None = None  # where copies are kept, which the agent never makes: it may be an unmounted disk


@click.command(name="init")
@click.option("--config", default=DEFAULT_FILE, show_default=True, metavar="FILE", help="File to write.")
@click.option("--alerts", metavar="WHERE", help="Where alerts go; empty for nowhere. Asked when not given.")
@click.option("--mail-server", default="localhost", show_default=True, metavar="HOST[:PORT]",
              help="Mail server, for a mail address.")  # fmt: skip
@click.option("--influxdb", metavar="URL", help="http://host:8086/org/bucket; empty for none. Asked when not given.")
@click.option("--influxdb-token", metavar="TOKEN", envvar="INFLUX_TOKEN", help="Its token; asked when not given.")
@click.option("--backup", metavar="DIRS", help="Directories with spaces between; empty for none. Asked when not given.")
@click.option("--backup-to", metavar="DIR", help="Where copies are kept; asked when not given.")
@click.option("--no-test", is_flag=True, help="Send no test message.")
@click.option("--force", is_flag=True, help="Write over a configuration that is there.")
def init(
    config: str, alerts: str | None, mail_server: str, influxdb: str | None, influxdb_token: str | None,
    backup: str | None, backup_to: str | None, no_test: bool, force: bool,
) -> None:  # fmt: skip
    """Ask three questions, write a configuration, and send a test message.

    Every question can be answered by an option, so that a script can do it. Exit status 1 when the test message was
    not taken; the configuration is written all the same.
    """
    if _says_something(config) and not force:
        raise click.ClickException(f"{config} is there already; --force writes over it")
    written = f"# Written by `vigilhost init` on {time.strftime('%Y-%m-%d')}"
    files = Files([f"{written}; `vigilhost config sample` prints every option."])
    try:
        _ask(alerts, _ASK_ALERTS, lambda where: _alerts(where, mail_server, files))
        _ask(influxdb, _ASK_INFLUX, lambda where: _influxdb(where, influxdb_token, files))
        _ask(backup, _ASK_BACKUP, lambda what: _backup(what, backup_to, files))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    _write(config, files)
    try:
        loaded = load(config)
    except ConfigError as error:
        raise click.ClickException("\n".join(map(str, error.errors))) from error
    click.echo(f"written: {config}{''.join(f', {os.path.dirname(config)}/{name}' for name in files.jobs)}")
    receivers: Mapping[str, Any] = loaded.settings.alerting.receivers
    if receivers and not no_test:
        host = loaded.settings.hostname
        _try_out(next(iter(receivers)), loaded.settings.alerting.policy(host), host)
    click.echo("next: `systemctl reload vigilhost` where it is installed, else `vigilhost run`")


def _ask(given: str | None, question: str, use: Callable[[str], None]) -> None:
    """Use what an option says, else what a person answers, who may try again. Raise ValueError for the option."""
    if given is not None:
        use(given.strip())
        return
    while True:
        try:
            use(str(click.prompt(question, default="", show_default=False)).strip())
        except ValueError as error:
            click.echo(f"{error}", err=True)
        else:
            return


def _alerts(where: str, mail_server: str, files: Files) -> None:
    if not where:
        files.main += [
            "",
            "# No receiver: alerts are only shown by `vigilhost alerts`.",
            "alerting:",
            "  receivers: {}",
        ]
        return
    lines = _receiver(where, mail_server, files)
    files.main += [
        "",
        "# Who is told. Critical alerts go out at once, all others are gathered for 30 s; `route:` changes that.",
        "alerting:",
        "  receivers:",
        "    ops:",
        *(f"      {line}" for line in lines),
    ]


def _receiver(where: str, mail_server: str, files: Files) -> list[str]:
    """The options of the receiver that the answer describes. Raise ValueError."""
    if _MAIL.fullmatch(where):
        host = os.uname().nodename
        return [
            "type: email", f"to: [{quote(where)}]", f"sender: {quote(f'vigilhost@{host}')}",
            *_mail_server(mail_server),
        ]  # fmt: skip
    address = urlsplit(where)
    if address.scheme not in {"http", "https"} or not address.hostname:
        text = "is no mail address and no web address; write it like ops@example.com or https://..."
        raise ValueError(f"{where!r} {text}")
    if address.hostname.startswith("ntfy."):
        server = f"{address.scheme}://{address.netloc}"
        return ["type: ntfy", f"server_url: {quote(server)}", f"topic: {quote(address.path.strip('/'))}"]
    kind = next((kind for host, kind in _WEBHOOK_HOSTS if address.hostname == host), "webhook")
    files.secrets["secrets/alerts-url"] = where
    key = "url" if kind == "webhook" else "webhook_url"
    return [f"type: {kind}", f"{key}: {{file: secrets/alerts-url}}  # whoever knows it can write there"]


def _mail_server(text: str) -> list[str]:
    """Its options. A server on this host relays on port 25 without encryption, as Debian's do. Raise ValueError."""
    address = urlsplit(f"//{text}")
    try:
        host, port = address.hostname, address.port
    except ValueError:
        host, port = None, None
    if not host or address.path:
        raise ValueError(f"--mail-server: {text!r} is no mail server; write it like mail.example.com or localhost:25")
    is_here = host in {"localhost", "::1"} or host.startswith("127.")
    port = port or (25 if is_here else None)
    return [f"server: {quote(host)}", *([f"port: {port}"] if port else []), *(["tls: none"] if is_here else [])]


def _influxdb(where: str, token: str | None, files: Files) -> None:
    if not where:
        return
    address = urlsplit(where)
    parts = [part for part in address.path.split("/") if part]
    if address.scheme not in {"http", "https"} or not address.hostname or len(parts) != 2:
        raise ValueError(f"{where!r} is no such address; write it like http://127.0.0.1:8086/org/bucket")
    if token is None:
        token = str(click.prompt("Its token", hide_input=True, default="", show_default=False))
    files.main += [
        "",
        "# Readings wait on disk while it is away.",
        "sinks:",
        "  influxdb:",
        f"    url: {quote(f'{address.scheme}://{address.netloc}')}",
        f"    org: {quote(parts[0])}",
        f"    bucket: {quote(parts[1])}",
    ]
    if token:
        files.secrets["secrets/influxdb-token"] = token
        files.main.append("    token: {file: secrets/influxdb-token}")


def _backup(what: str, to: str | None, files: Files) -> None:
    paths = what.split()
    if not paths:
        return
    for path in paths:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is not an absolute path; begin it with /")
    _ask(to, _ASK_TARGET, lambda where: _job(paths, where, files))


def _job(paths: list[str], to: str, files: Files) -> None:
    if not to.startswith("/"):
        raise ValueError(f"{to!r} is not an absolute path; begin it with /")
    files.target = to
    inside = [path.strip("/") for path in paths if path.strip("/")]
    drill = [
        "drill:  # restores the newest copy into nothing, for proof",
        f"  {{schedule: monthly 1 05:00, assertions: [{{file_exists: [{', '.join(map(quote, inside))}]}}]}}",
    ]
    files.jobs["backup.d/files.yaml"] = "\n".join([
        "# A job of its own file; `vigilhost backup run files` runs it now.",
        "source:",
        f"  files: {{paths: [{', '.join(map(quote, paths))}]}}",
        "targets:",
        f"  local: {{path: {quote(to)}}}",
        "schedule: daily 03:00",
        "retention: 7d+monthly",
        "rpo: 26h  # an alert fires when the newest copy is older",
        *(drill if inside else []),
        "",
    ])  # fmt: skip


def _says_something(config: str) -> bool:
    """True when a file is there that holds more than comments; the one that the package brings has nothing else."""
    try:
        with open(config, encoding="utf-8") as file:
            return any(line.strip() and not line.startswith("#") for line in file)
    except FileNotFoundError:
        return os.path.islink(config)  # one that leads nowhere is not ours to replace
    except (OSError, UnicodeDecodeError):
        return True


def _write(config: str, files: Files) -> None:
    """All files, each whole or not at all. Raise click.ClickException."""
    base = os.path.dirname(os.path.abspath(config))
    try:
        os.makedirs(base, exist_ok=True)
        group = os.stat(base).st_gid
        for name, text in files.secrets.items():
            _put(os.path.join(base, name), text + "\n", _SECRET_MODE, group)
        for name, text in files.jobs.items():
            _put(os.path.join(base, name), text, 0o644, group)
        _put(config, "\n".join(files.main) + "\n", 0o644, group)
        if files.target is not None and not os.path.lexists(files.target):
            os.makedirs(files.target, mode=0o700)
            click.echo(f"made: {files.target}, for root alone" if os.geteuid() == 0 else f"made: {files.target}")
    except OSError as error:
        raise click.ClickException(f"{error.filename or config}: {(error.strerror or str(error)).lower()}") from error


def _put(path: str, text: str, mode: int, group: int) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        os.makedirs(directory, mode=0o750 if stat.S_IMODE(mode) == _SECRET_MODE else 0o755)
        _give(directory, group)
    fresh = f"{path}.{uuid.uuid4().hex[:8]}"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    _give(fresh, group)
    os.chmod(fresh, mode)
    os.rename(fresh, path)


def _give(path: str, group: int) -> None:
    """To the group of the configuration's directory, so that the agent's user can read it."""
    try:
        os.chown(path, -1, group)
    except PermissionError:
        pass  # not root: it stays with whoever runs this, and so will the agent


def _try_out(receiver: str, policy: Policy, hostname: str) -> None:
    labels = labels_of({"alertname": "Test", "severity": "info", "instance": hostname})
    note = sample_notification(receiver, policy, labels, time.time(), uuid.uuid4().hex)
    outcome = attempt(policy.notifiers[receiver], Claimed(0, note, None, 1))
    if isinstance(outcome, SentReceipt):
        click.echo(f"a test message was sent to {receiver}")
        return
    click.echo(f"the test message was not taken: {outcome}\n`vigilhost notify test {receiver}` tries again", err=True)
    sys.exit(1)
