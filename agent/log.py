"""Where log events go: structlog to a terminal, to JSON lines, or to the systemd journal with priority and fields.

The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) keeps an event's fields apart, so
`journalctl -u vigilhost COLLECTOR=cpu` works.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import structlog

Format = Literal["auto", "console", "json", "journal"]
Level = Literal["debug", "info", "warning", "error"]
Event = MutableMapping[str, Any]

_JOURNAL_SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
_COLOUR = {"debug": "\033[2m", "warning": "\033[33m", "error": "\033[31m", "critical": "\033[31m"}
_RESET = "\033[0m"


def configure(format: Format = "auto", level: Level = "info") -> None:
    """Set where events go from now on, those of libraries included (warnings and worse)."""
    write = _writer(format)

    def emit(_logger: Any, _method: str, event: Event) -> Event:
        write(event)
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _with_traceback, emit],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromStdlib()], level=logging.WARNING, force=True)


def warn_of_configuration(text: str) -> None:
    """Say what is doubtful about the configuration."""
    structlog.get_logger("config").warning("config.warning", message=text)


def line_of(event: Event) -> str:
    """`sink.write_failed sink=influxdb retry_in_s=4`: one line whatever the values hold."""
    shown = [str(event.get("event", ""))]
    shown += [f"{key}={_shown(value)}" for key, value in event.items() if key not in ("event", "level", "traceback")]
    return " ".join(shown)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value) if isinstance(value, list | tuple | dict) else str(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)


def _with_traceback(_logger: Any, _method: str, event: Event) -> Event:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["traceback"] = "".join(traceback.format_exception(error)).rstrip()
    return event


def _writer(format: Format) -> Callable[[Event], None]:
    if format == "auto":
        under_systemd = "JOURNAL_STREAM" in os.environ and os.path.exists(_JOURNAL_SOCKET)
        format = "journal" if under_systemd else "console"
    return {"console": _console, "json": _json, "journal": _journal}[format]


def _console(event: Event) -> None:
    level = event.get("level", "info")
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)(None, "", {})["timestamp"]
    colour, reset = (_COLOUR.get(level, ""), _RESET) if sys.stderr.isatty() else ("", "")
    _print(f"{stamp} {colour}{level:<7}{reset} {line_of(event)}")
    if "traceback" in event:
        _print(event["traceback"])


def _json(event: Event) -> None:
    stamp = structlog.processors.TimeStamper(fmt="iso")(None, "", {})["timestamp"]
    _print(json.dumps({"time": stamp, **event}, default=str))


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # the terminal is gone; the daemon goes on


def _journal(event: Event) -> None:
    """Send to journald; while it is not there, a prefixed line on standard error."""
    priority = _PRIORITY.get(event.get("level", "info"), 6)
    fields = {"MESSAGE": line_of(event), "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "vigilhost"}
    for key, value in event.items():
        fields[_field_name(key)] = str(value)
    if "traceback" in event:
        fields["MESSAGE"] += "\n" + event["traceback"]
    try:
        # A socket an event: events are rare, and journald may have been restarted since the last one.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
            channel.sendto(b"".join(_field(name, text) for name, text in fields.items()), _JOURNAL_SOCKET)
    except BlockingIOError:
        pass  # journald stands still; standard error leads there too, and waiting would stop the agent with it
    except OSError:
        _print(f"<{priority}>{line_of(event)}")


def _field_name(key: str) -> str:
    """Journal field names are upper case letters, digits and underscores, and do not begin with an underscore."""
    name = "".join(char if char.isascii() and char.isalnum() else "_" for char in key.upper()).lstrip("_0123456789")
    return name[:64] or "FIELD"


def _field(name: str, text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    if b"\n" in raw:
        return name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name.encode() + b"=" + raw + b"\n"


class _FromStdlib(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        method = log.error if record.levelno >= logging.ERROR else log.warning
        error = record.exc_info[1] if record.exc_info else None
        method("library", logger=record.name, message=record.getMessage(), exc_info=error)
