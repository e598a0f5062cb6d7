"""PostgreSQL's own programs: where they are, how they log in with no password in an argument list, what they say."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.core.secrets import Secret
from backup.children import Step
from backup.errors import BackupError, SourceFailed
from backup.source import Work
from backup.sources.scratch import private_file, remove_file

# Where Debian and Red Hat keep one directory a version; pg_dump of PATH is a wrapper that may choose an older one.
_DIRECTORIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
_MAJOR = re.compile(r"(\d+)")
_NULL = "\x01null\x01"  # stands for NULL in psql's output; no value is likely to be this


def client_directories() -> dict[int, str]:
    """Major version to the directory of its programs, for the versions installed beside PATH."""
    found = {}
    for pattern in _DIRECTORIES:
        for directory in glob.glob(pattern):
            version = _MAJOR.search(directory)
            if version is not None and os.access(os.path.join(directory, "pg_dump"), os.X_OK):
                found[int(version[1])] = directory
    return found


def choose(installed: Mapping[int, str], server: int | None) -> str | None:
    """The directory of the oldest programs that can talk to a server of that major version, or of the newest.

    None: what PATH has must do. An older pg_dump refuses a newer server; a newer one may write what the server's own
    version cannot restore.
    """
    fitting = [major for major in installed if server is None or major >= server]
    if not fitting:
        return None
    return installed[min(fitting) if server is not None else max(fitting)]


def major_of(text: str) -> int:
    """Major version in `pg_dump (PostgreSQL) 15.18 (Debian ...)` or `15.18`. Raise SourceFailed."""
    match = _MAJOR.search(text)
    if match is None:
        raise SourceFailed(f"{text[:100]!r}: no version of PostgreSQL")
    return int(match[1])


def conninfo(database: str) -> str:
    """A database's name as a connection string: `host=evil` is a name, too, and stays one so."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Text as a string constant, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


@dataclass(frozen=True, slots=True)
class Login:
    """How a server is reached. `host`: a name, an address, or the directory of its socket.

    `database`: the one that is asked about the server itself.
    """

    host: str
    port: int
    user: str
    database: str = "postgres"
    password: Secret | None = field(default=None, repr=False)
    sslmode: str = "prefer"
    ca_file: str | None = None


def _passfile_word(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


class Client:
    """PostgreSQL's programs, logged in to one server. `directory`: where they are; None: in PATH."""

    def __init__(self, login: Login, work: Work, environment: Mapping[str, str], directory: str | None) -> None:
        self._database = login.database
        self._work = work
        self._environment = environment
        self.directory = directory

    def program(self, name: str) -> str:
        return name if self.directory is None else os.path.join(self.directory, name)

    def variables(self, *, is_read_only: bool = False) -> dict[str, str]:
        """The environment of a program that talks to the server."""
        more = {"PGOPTIONS": "-c default_transaction_read_only=on"} if is_read_only else {}
        return {**self._environment, **more}

    def step(self, name: str, *arguments: str) -> Step:
        return Step((self.program(name), *arguments), self.variables(), self._work.user)

    def version(self, name: str) -> str:
        """The version of a program, as `15.18`. Raise SourceFailed."""
        said = self._work.run(self.program(name), "--version").decode("utf-8", "replace")
        match = re.search(r"\d[\w.]*", said)
        return match[0] if match is not None else said.strip()

    def rows(self, sql: str, database: str | None = None, *, is_read_only: bool = False, work: Work | None = None,
             kind: type[BackupError] = SourceFailed) -> list[list[str | None]]:  # fmt: skip
        """What a statement answers, as text. `database`: None is the login's. Raise `kind` with the server's words."""
        where = conninfo(database or self._database)
        done = (work or self._work).run(
            self.program("psql"), "--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--csv",
            f"--pset=null={_NULL}", "--set=ON_ERROR_STOP=1", f"--dbname={where}", f"--command={sql}",
            # Here alone: pg_dump must take the bytes of a SQL_ASCII database for what they are.
            environment={**self.variables(is_read_only=is_read_only), "PGCLIENTENCODING": "UTF8"}, kind=kind,
        )  # fmt: skip
        found = csv.reader(io.StringIO(done.decode("utf-8", "replace"), newline=""))
        return [[None if value == _NULL else value for value in row] for row in found]

    def value(self, sql: str, database: str | None = None, *, is_read_only: bool = False) -> str | None:
        """The first value of the first row; None where it is NULL or there is no row. Raise BackupError."""
        found = self.rows(sql, database, is_read_only=is_read_only, kind=BackupError)
        return found[0][0] if found and found[0] else None


@contextmanager
def connected(login: Login, work: Work, *, directory: str | None = None) -> Iterator[Client]:
    """Log in. The password is in a file that only the job's user can read, and goes with it. Raise SourceFailed.

    `directory`: of the programs; None finds those that fit the server's version.
    """
    environment = {
        "PGHOST": login.host, "PGPORT": str(login.port), "PGUSER": login.user, "PGAPPNAME": "vigilhost",
        "PGSSLMODE": login.sslmode, "PGCONNECT_TIMEOUT": "10", "PGTZ": "UTC",
        "PGDATESTYLE": "ISO",
    }  # fmt: skip
    if login.ca_file is not None:
        environment["PGSSLROOTCERT"] = login.ca_file
    passfile = None
    try:
        if login.password is not None:
            line = f"*:*:*:{_passfile_word(login.user)}:{_passfile_word(login.password.reveal())}\n"
            passfile = private_file(work, f"pgpass-{secrets.token_hex(4)}", line)
            environment["PGPASSFILE"] = passfile
        if directory is None:
            installed = client_directories()
            first = Client(login, work, environment, choose(installed, None))
            directory = choose(installed, major_of(first.value("SHOW server_version") or ""))
        yield Client(login, work, environment, directory)
    finally:
        if passfile is not None:
            remove_file(passfile)
