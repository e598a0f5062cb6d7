"""`vigilhost backup-drill-helper`: the process without rights in which an archive is restored for proof."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import BinaryIO

import click
import msgspec

from agent.config.backup_jobs import REGISTRIES
from agent.config.declared import options_of
from agent.config.registry import PluginError
from agent.config.schema import construct
from backup import apart, served
from backup.apart import Found, Task
from backup.children import Guard
from backup.errors import BackupError, Refused, Stopped, reason
from backup.redact import Redactor
from backup.signals import heeding
from backup.source import Source, Work
from backup.sources.scratch import private_file, remove_file
from backup.verify import decoded

EXIT_REFUSED = 2
_SET_NO_NEW_PRIVS = 38
_MOST_KEY = 64 << 10  # bytes


@click.command("backup-drill-helper", hidden=True)
@click.option("--connection", "number", type=int, metavar="FD", help="Descriptor of the connection; else systemd's.")
@click.option("--scratch", metavar="DIR", help="Empty directory of ours.  [default: a new one in /var/tmp]")
@click.option("--become", metavar="USER", help="User to become first.")
def backup_drill_helper(number: int | None, scratch: str | None, become: str | None) -> None:
    """Take one task with an archive's descriptor, restore that, look at it, and answer what was found."""
    os.umask(0o077)
    try:
        connection = served.handed_over() if number is None else socket.socket(fileno=number)
    except (BackupError, OSError) as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(EXIT_REFUSED)
    try:
        task, archive, key = apart.receive(connection)
        source = _source(task)  # imported while we may still read our own program, wherever it lies
        _give_up_rights(become)
    except (BackupError, ValueError, OSError) as error:
        click.echo(f"refused: {reason(error)}", err=True)
        _answer(connection, Found(error=reason(error), kind="refused"))
        sys.exit(EXIT_REFUSED)
    served.end_with(connection)
    guard = Guard(task.deadline_s, f"{task.job}: drill")
    with heeding(lambda _: guard.stop("who asked for the drill has gone")):
        found = _drill(task, source, archive, key, scratch, guard)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    click.echo(f"{task.job}: {task.archive.name}: {found.error or f'{len(found.outcomes)} looked at'}", err=True)
    _answer(connection, found)


def _answer(connection: socket.socket, found: Found) -> None:
    try:
        connection.sendall(msgspec.json.encode(found) + b"\n")
    except OSError:
        pass  # who asked has gone
    served.hang_up(connection)


def _source(task: Task) -> Source:
    """Raise ValueError, Damaged."""
    try:
        cls = REGISTRIES["backup_sources"].find(task.source)
    except PluginError as error:
        raise ValueError(str(error)) from error
    kinds = {option.field: option.kind for option in options_of(cls).values()}
    fields = cls.__dataclass_fields__
    given = {name: value for name, value in (("job", task.job), ("host", task.host)) if name in fields}
    source: Source = construct(cls, apart.options_from(task.options, kinds), **given)
    return source


def _give_up_rights(become: str | None) -> None:
    """Raise Refused unless nothing that root may do is left."""
    if become is not None and os.geteuid() == 0:
        try:
            user = pwd.getpwnam(become)
        except KeyError:
            raise Refused(f"{become}: no such user on this host") from None
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Refused(f"no_new_privs: {os.strerror(ctypes.get_errno())}")
    if 0 in os.getresuid():
        raise Refused("a drill does not run as root; name a user to become")


def _drill(task: Task, source: Source, archive: BinaryIO, key: BinaryIO | None, scratch: str | None, guard: Guard
           ) -> Found:  # fmt: skip
    warnings: list[str] = []
    place = scratch or tempfile.mkdtemp(prefix="drill-", dir="/var/tmp")
    work = Work(place, guard, Redactor(), warn=warnings.append)
    identity = None
    try:
        if key is not None:
            identity = private_file(work, "identity", key.read(_MOST_KEY))
        began = time.monotonic()
        outcomes = decoded(
            archive, task.archive,
            lambda plain: source.drill(task.archive.name, plain, work, task.assertions, task.archive.row_estimates),
            work, identity,
        )  # fmt: skip
        return Found(list(outcomes), round(time.monotonic() - began, 3), warnings)
    except (Refused, Stopped, OSError) as error:
        return Found(warnings=warnings, error=reason(error), kind="refused")
    except (BackupError, ValueError) as error:
        return Found(warnings=warnings, error=str(error))
    finally:
        guard.close()
        if identity is not None:
            remove_file(identity)
        if scratch is None:
            shutil.rmtree(place, ignore_errors=True)
