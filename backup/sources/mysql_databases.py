"""Databases of MariaDB and MySQL: dumped, poured in, replaced, dropped."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from backup.children import Step
from backup.errors import BackupError, SourceFailed
from backup.extract import copy
from backup.lasting import fsync_directory
from backup.source import Work
from backup.sources.mysql_client import Client, first_line, identifier, without_sandbox
from backup.sources.scratch import Undo, cleaning_up, rejoined, remove_file

_DUMP = ("--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob",
         "--default-character-set=utf8mb4")  # fmt: skip


def dump_step(client: Client, name: str) -> Step:
    """The program that dumps a database, as of one moment."""
    more = () if "MariaDB" in client.version("mariadb-dump") else ("--set-gtid-purged=OFF",)
    return client.step("mariadb-dump", *_DUMP, *more, "--", name)


@contextmanager
def restored(client: Client, name: str, plain: int, work: Work, *, keep: bool = False) -> Iterator[None]:
    """The dump in a new database, dropped at the end unless all went well and it is to be kept. Raise BackupError."""
    is_whole = False
    client.rows(f"CREATE DATABASE {identifier(name)}", work=work, kind=BackupError)
    try:
        pour(client, name, plain, work)
        is_whole = True
        yield
    finally:
        if not (is_whole and keep):
            drop(client, name, work)


def load(client: Client, name: str, plain: int, work: Work) -> None:
    """The dump in a new database that stays, unless something went wrong. Raise BackupError."""
    with restored(client, name, plain, work, keep=True):
        pass


def drop(client: Client, name: str, work: Work) -> None:
    """Drop a database. What fails is a warning; a throw-away one is the next run's to sweep."""
    with cleaning_up(work, f"database {name}") as cleanup:
        try:
            client.rows(f"DROP DATABASE IF EXISTS {identifier(name)}", work=cleanup)
        except SourceFailed as error:
            work.warn(f"database {name}: is left behind: {error}")


def pour(client: Client, database: str, plain: int, work: Work) -> None:
    """Have the client run a dump, which it stops at the first error. Raise BackupError."""
    with rejoined(without_sandbox(first_line(plain)), plain, work) as whole:
        step = client.step("mariadb", "--batch", "--default-character-set=utf8mb4", f"--database={database}")
        work.run(*step.argv, stdin=whole, kind=BackupError)


Connect = Callable[[Work], AbstractContextManager[Client]]


def replace_database(client: Client, connect: Connect, name: str, throwaway: str, plain: int, work: Work) -> None:
    """Make a database what the dump says, or leave it as it is. Raise BackupError.

    It cannot be renamed, so the dump is loaded into a throw-away one first, for proof.
    """
    dump = os.path.join(work.scratch, "dump.sql")
    undo = Undo(work)
    before = {"database": name, "dump": undo.beside(f"before-{secrets.token_hex(4)}.sql")}
    try:
        copy(plain, dump, work.guard)
        with open(dump, "rb", buffering=0) as file:
            with restored(client, throwaway, file.fileno(), work):
                file.seek(0)
            undo.add(before)
            _keep(client, name, before["dump"], work)
            drop(client, name, work)
            load(client, name, file.fileno(), work)
    except BaseException as error:
        if os.path.exists(before["dump"]):
            _put_back(connect, before, undo, work, error)
        else:
            _forget(before, undo)
        raise
    finally:
        remove_file(dump)
    _forget(before, undo)


def heed_broken_off(work: Work) -> None:
    """Warn of databases whose replacement was killed, as long as what they held before is still kept."""
    undo = Undo(work)
    for entry in (one for one in undo.entries() if "dump" in one):
        name, file = entry["database"], entry["dump"]
        if os.path.exists(file):
            work.warn(f"database {name}: a restore over it was broken off; what it held before is in {file}: make the "
                      "database if it is gone and load that, or remove the file once it is not wanted:"
                      f" mariadb {shlex.quote(name)} < {shlex.quote(file)}")  # fmt: skip
        else:
            _forget(entry, undo)


def _forget(before: Mapping[str, str], undo: Undo) -> None:
    for file in (before["dump"], _unfinished(before["dump"])):
        remove_file(file)
    undo.done(before)


def _unfinished(file: str) -> str:
    return f"{file}.part"


def _keep(client: Client, name: str, file: str, work: Work) -> None:
    """Dump a database to a private file, which is there only when it is whole, and lastingly. Raise BackupError."""
    unfinished = _unfinished(file)
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as output:
            work.run(*dump_step(client, name).argv, stdout=output.fileno(), kind=BackupError)
            os.fsync(output.fileno())
        os.rename(unfinished, file)
        fsync_directory(os.path.dirname(file))
    finally:
        remove_file(unfinished)


def _put_back(connect: Connect, before: Mapping[str, str], undo: Undo, work: Work, error: BaseException) -> None:
    """Load what was kept, which is then gone. Raise BackupError where that fails too; the file stays."""
    name, file = before["database"], before["dump"]
    try:
        # Another connection: the one that failed goes with the work, which may have been stopped.
        with cleaning_up(work, f"database {name}") as cleanup, connect(cleanup) as client, open(file, "rb", 0) as kept:
            drop(client, name, cleanup)
            load(client, name, kept.fileno(), cleanup)
    except BackupError as worse:
        raise BackupError(f"{error}; what was in {name} could not be put back, and is in {file}: {worse}") from error
    _forget(before, undo)
