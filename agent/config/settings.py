"""The configuration as typed values. A new section is one field here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.config.address import check_address
from agent.config.hostname import check_not_empty, hostname_option
from agent.config.plugins import Entry
from agent.core.host import Host
from agent.core.options import option
from agent.http.options import HttpOptions
from alerting.options import AlertingOptions
from sinks.history.options import HistoryOptions
from sinks.journal.limits import Limits


def _check_root(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError("is not an absolute path; begin it with /")


@dataclass(frozen=True, slots=True)
class Log:
    """What the agent says about itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = option("info", "Least important events to show.")
    format: Literal["auto", "console", "json", "journal"] = option(
        "auto", "How a line looks; auto: journal under systemd, console elsewhere."
    )


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the host's own trees are; in a container they are mounted elsewhere."""

    proc: str = option("/proc", "The host's /proc.", check=_check_root)
    sys: str = option("/sys", "The host's /sys.", check=_check_root)
    root: str = option("/", "The host's root file system.", check=_check_root)

    @property
    def host(self) -> Host:
        """The same as collectors take it."""
        return Host(self.proc.rstrip("/"), self.sys.rstrip("/"), self.root.rstrip("/") or "/")


@dataclass(frozen=True, slots=True)
class Backup:
    """Who carries out the jobs of backup.d."""

    socket: str | None = option(
        None, "Socket of the helper that runs jobs as root; null: /run/vigilhost-backup.sock where it is there and the "
        "jobs are those of /etc/vigilhost, otherwise the agent runs them itself.", example="/run/vigilhost-backup.sock",
        check=_check_root,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured. Every option has a default: with no file at all the agent runs."""

    listen: str = option(
        "127.0.0.1:9811", "Address and port of /metrics, /health and the API; IPv6 as [::1]:9811.", check=check_address
    )
    state_dir: str = option(
        "/var/lib/vigilhost", "Directory for what must survive a restart; only one agent may use it.",
        check=check_not_empty,
    )  # fmt: skip
    hostname: str = hostname_option()
    tags: dict[str, str] = option(dict, "Tags added to everything that is sent.", example="{env: prod}",
                                  check=check_not_empty)  # fmt: skip
    log: Log = option(Log, "Log of the agent itself.")
    paths: Paths = option(Paths, "Where to find the host's files.")
    collectors: dict[str, Entry] = option(dict, "What is measured.", plugins="collectors")
    http: HttpOptions = option(HttpOptions, "Who may ask over HTTP.")
    journal: Limits = option(Limits, "Journal of what is on its way to the sinks.")
    history: HistoryOptions = option(HistoryOptions, "History this host keeps of itself.")
    sinks: dict[str, Entry] = option(dict, "Where readings are sent.", plugins="sinks")
    alerting: AlertingOptions = option(AlertingOptions, "What is judged and who is told.")
    backup: Backup = option(Backup, "Who carries out the jobs of backup.d.")
