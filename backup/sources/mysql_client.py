"""MariaDB's and MySQL's own programs: which they are, how they log in, what they answer."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.core.secrets import Secret
from backup.children import PATH, Step
from backup.errors import BackupError, SourceFailed
from backup.source import Work
from backup.sources.scratch import private_file, remove_file

# The first line that mariadb-dump writes since 10.11.8: it forbids the client commands that could do harm. Older
# clients and MySQL's take it for an error.
SANDBOX = re.compile(rb"/\*M?!999999\\?- enable the sandbox mode \*/ *\r?\n?")
MOST_FIRST_LINE = 128
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"'}
_UNESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_UNESCAPE = re.compile(r"\\(.)")


def identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Text as a string constant, whatever NO_BACKSLASH_ESCAPES says."""
    return f"X'{text.encode().hex()}'" if text else "''"


def option_line(name: str, value: str) -> str:
    """One line of an option file, quoted: `#` would begin a comment, and spaces at the end would be lost."""
    return f'{name}="{"".join(_ESCAPES.get(char, char) for char in value)}"\n'


def cells(line: str) -> list[str | None]:
    """One line of the client's batch output. The text NULL cannot be told from no value."""
    return [None if cell == "NULL" else _UNESCAPE.sub(lambda m: _UNESCAPES.get(m[1], m[1]), cell)
            for cell in line.split("\t")]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Login:
    """How a server is reached: by its socket where there is one, or else by host and port."""

    user: str
    password: Secret | None = field(default=None, repr=False)
    host: str = ""
    port: int = 3306
    socket: str = ""

    def options(self) -> str:
        """As the content of an option file."""
        where = {"socket": self.socket} if self.socket else {"host": self.host, "port": str(self.port)}
        words = {"user": self.user, **where}
        if not self.socket:
            words["protocol"] = "tcp"  # the host `localhost` would mean a socket
        if self.password is not None:
            words["password"] = self.password.reveal()
        return "[client]\n" + "".join(option_line(name, value) for name, value in words.items())


class Client:
    """The programs, logged in to one server by an option file."""

    def __init__(self, work: Work, option_file: str) -> None:
        self._work = work
        self._option_file = option_file

    def step(self, name: str, *arguments: str) -> Step:
        # The first argument by its place: programs accept it nowhere else. It keeps root's own ~/.my.cnf out, too.
        return Step((installed(name), f"--defaults-file={self._option_file}", *arguments), user=self._work.user)

    def rows(self, sql: str, database: str | None = None, *, before: str = "", work: Work | None = None,
             kind: type[BackupError] = SourceFailed) -> list[list[str | None]]:  # fmt: skip
        """What a statement answers. `before`: statements without an answer, run first. Raise `kind`."""
        sql = f"{before}; {sql}" if before else sql
        step = self.step("mariadb", "--batch", "--skip-column-names", "--default-character-set=utf8mb4",
                         *([f"--database={database}"] if database is not None else []), f"--execute={sql}")  # fmt: skip
        done = (work or self._work).run(*step.argv, kind=kind).decode("utf-8", "replace")
        return [cells(line) for line in done.split("\n") if line]

    def value(self, sql: str, database: str | None = None, *, before: str = "") -> str | None:
        """The first value of the first row; None where it is NULL or there is no row. Raise BackupError."""
        found = self.rows(sql, database, before=before, kind=BackupError)
        return found[0][0] if found else None

    def version(self, name: str) -> str:
        """What a program says of its version, as `mariadb-dump 10.19 Distrib 10.11.19-MariaDB`."""
        said = self._work.run(installed(name), "--version").decode("utf-8", "replace").strip()
        return os.path.basename(said.partition(",")[0]).replace(" from ", " ").replace("  ", " ")


def installed(name: str) -> str:
    """MariaDB's program of that name, or MySQL's where that is what is installed."""
    if shutil.which(name, path=PATH) is None:
        others = {"mariadb": "mysql", "mariadb-dump": "mysqldump", "mariadbd": "mysqld"}
        return others.get(name, name)
    return name


@contextmanager
def connected(login: Login, work: Work) -> Iterator[Client]:
    """Log in. User and password are in a file that only the job's user can read, and goes with it."""
    option_file = private_file(work, f"client-{secrets.token_hex(4)}.cnf", login.options())
    try:
        yield Client(work, option_file)
    finally:
        remove_file(option_file)


def first_line(plain: int) -> bytes:
    """The first line of a pipe, newline included, byte by byte so that nothing after it is taken."""
    line = b""
    while len(line) < MOST_FIRST_LINE and not line.endswith(b"\n") and (byte := os.read(plain, 1)):
        line += byte
    return line


def without_sandbox(line: bytes) -> bytes:
    """What is left of the first line of a dump."""
    return b"" if SANDBOX.fullmatch(line) is not None else line
