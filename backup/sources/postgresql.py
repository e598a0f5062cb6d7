"""PostgreSQL: one custom-format dump a database, and the roles and tablespaces of the whole server.

Dumps are taken uncompressed and compressed by zstd beside pg_dump: its own gzip takes four times as long.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.core.options import option
from agent.core.secrets import Secret
from agent.core.units import Seconds
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Step, user_ids
from backup.coding import DUMP_LEVEL
from backup.errors import BackupError, Damaged, Refused, SourceFailed
from backup.source import Facts, Inventory, Restored, Stream, Work, matching
from backup.sources import libpq
from backup.sources.libpq import Client, Login, conninfo, identifier, literal
from backup.sources.scratch import (
    cleaning_up,
    is_throwaway,
    private_directory,
    private_file,
    read_up_to,
    rejoined,
    remove_file,
    server,
    throwaway_name,
)

GLOBALS = "pg_globals"
_GLOBALS_END = b"-- PostgreSQL database cluster dump complete"
_MOST_GLOBALS = 64 << 20
_HEAD_BYTES = 4 << 20  # of a dump, in which its table of contents is looked for
_CAREFUL = ("--no-owner", "--no-privileges", "--exit-on-error")
_CREATE_ROLE = re.compile(r"CREATE ROLE (\S.*);")
_CREATE_DATABASE = re.compile(r"CREATE DATABASE .* WITH (TEMPLATE = template0 .*);")
# Rows that PostgreSQL believes to be there: since the last ANALYZE, or else as its statistics have counted;
# of the largest tables.
_ESTIMATES = """SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname,
CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint ELSE coalesce(pg_stat_get_live_tuples(c.oid), 0) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
AND position('.' in c.relname || n.nspname) = 0 ORDER BY c.relpages DESC, 1 LIMIT 2000"""

# A limit of -2 marks what an interrupted DROP DATABASE left: nobody can connect to it again.
_USABLE = "NOT datistemplate AND datallowconn AND datconnlimit <> -2"


@dataclass(slots=True)
class PostgreSQL:
    """Backs up the databases of a PostgreSQL server, each as one archive, and its roles as one more.

    A drill restores into a database of a random name beside the others, or into a server of its own.
    """

    server: str = option("/var/run/postgresql", "Name or address of the server, or the directory of its socket.")
    port: int = option(5432, "Port of the server.", minimum=1, maximum=65535)
    user: str = option("postgres", "Role that reads everything.")
    password: Secret | None = option(None, "Its password; null: none is asked for.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = option(
        "prefer", "How far the connection is encrypted, in libpq's words."
    )
    ca_file: str | None = option(None, "Certificate that the server's must be signed by, for verify-ca and -full.")
    maintenance_database: str = option("postgres", "Database that is asked for the list of the others.")
    databases: list[str] = option(list, "Databases; none: all that allow connections.", example="[orders, users]")
    exclude: list[str] = option(list, "Patterns of databases to leave out.", example='["test_*"]')
    globals: bool = option(True, "Whether roles and tablespaces are kept too.")
    role_passwords: bool = option(True, "Whether roles keep their passwords; reading them takes a superuser.")
    lock_wait: Seconds = option(300.0, "Most time to wait for a table that something else has locked.", minimum=1)
    drill_on: Literal["database", "server"] = option(
        "database", "What a drill restores into: a database on the same server, or a server of its own."
    )
    job: str = ""
    host: str = ""  # ours, not the server's
    # Of the programs that fit the server's version: it is asked once, because each question is a psql of its own.
    directory: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def drills_apart(self) -> bool:
        return self.drill_on == "server"

    def describe(self, work: Work) -> Facts:
        with self._connect(work) as client:
            (row,) = client.rows("SELECT current_setting('server_version'), pg_is_in_recovery()")
            version, is_standby = (value or "" for value in row)
            names = self._names(client)
            dump = client.version("pg_dump")
            if libpq.major_of(dump) < libpq.major_of(version):
                raise SourceFailed(f"pg_dump {dump} is older than the server, {version}; install the client programs "
                                   f"of PostgreSQL {libpq.major_of(version)}")  # fmt: skip
            if GLOBALS in names:
                raise SourceFailed(f"a database is called {GLOBALS}, like the archive of the roles; rename it")
            notes = {"databases": ", ".join(names), "server": f"{self.server}:{self.port}"}
            if is_standby == "t":
                notes["role"] = "standby"
        return Facts({"postgresql": version, "pg_dump": dump}, notes)

    def streams(self, work: Work) -> Iterator[Stream]:
        with self._connect(work) as client:
            names = self._names(client)
            if not names:
                raise SourceFailed("source.postgresql.databases: matches none on the server")
            for name in names:
                dump = client.step("pg_dump", "--format=custom", "--compress=0", "--no-password",
                                   f"--lock-wait-timeout={round(self.lock_wait * 1000)}",
                                   f"--dbname={conninfo(name)}")  # fmt: skip
                yield Stream(name, "dump", (replace(dump, is_wordy=True),), self._estimates(client, name),
                             level=DUMP_LEVEL)  # fmt: skip
            if self.globals:
                passwords = () if self.role_passwords else ("--no-role-passwords",)
                dump = client.step("pg_dumpall", "--globals-only", "--no-password", *passwords,
                                   f"--dbname={conninfo(self.maintenance_database)}")  # fmt: skip
                yield Stream(GLOBALS, "sql", (dump,))

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        """Have pg_restore read all of it: listing its contents would succeed on a dump that is cut off."""
        if name == GLOBALS:
            _read_globals(plain)
            return
        work.run(_newest("pg_restore"), "--file=/dev/null", stdin=plain, kind=Damaged)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Restore into the new database `to`; roles go to the server whatever `to` is.

        `allow`: `force` replaces a database of that name, which stays as `..._before_...`; `owners` keeps owners and
        privileges, whose roles must be there. Until all is restored the database has another name.
        """
        with self._connect(work) as client:
            if name == GLOBALS:
                _restore_globals(plain, client, work)
                return Restored(1, warnings=("roles that were there already keep their name and got the passwords "
                                             "and attributes of the backup",))  # fmt: skip
            known = self._all_names(client)
            if to in known and "force" not in allow:
                raise Refused(f"{to}: there is such a database; restore to another, or replace it with --force")
            staging = throwaway_name(self.host, self.job)
            with _restored(client, staging, plain, work, keeps_owners="owners" in allow):
                _put_in_place(client, staging, to, is_there=to in known)
        if "owners" in allow:
            return Restored(1)
        return Restored(1, warnings=(f"{to}: everything in it belongs to {self.user} and nobody else has a privilege; "
                                     "--allow owners keeps both, where the roles are there",))  # fmt: skip

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        with self._drill_client(work) as client:
            if name == GLOBALS:
                return [*self._drill_globals(plain, client, work), *judge_all(assertions)]
            scratch = throwaway_name(self.host, self.job)
            if scratch == name or scratch in self._all_names(client):
                raise Refused(f"{scratch}: there is such a database already; a drill never touches one that is there")
            with _restored(client, scratch, plain, work):
                return [
                    Outcome("pg_restore ends without an error", is_met=True),
                    *judge_all(assertions, estimates=estimates,
                               query=lambda sql: client.value(sql, scratch, is_read_only=True)),
                ]  # fmt: skip

    def sweep(self, work: Work) -> list[str]:
        removed = []
        try:
            with self._connect(work) as client:
                for name in self._all_names(client):
                    if is_throwaway(name, self.host, self.job):
                        _drop(client, name, work)
                        removed.append(f"database {name}")
        except SourceFailed as error:
            work.warn(f"databases that a killed drill may have left were not looked for: {error}")
        return removed

    def recipe(self, name: str) -> str:
        if name == GLOBALS:
            return "psql --no-psqlrc --dbname=postgres  # an error 'role ... already exists' does no harm"
        return f"pg_restore {' '.join(_CAREFUL)} --dbname=DATABASE  # an empty one: createdb -T template0 DATABASE"

    def inventory(self, work: Work) -> Inventory:
        with self._connect(work) as client:
            there = frozenset(name for name in self._all_names(client, _USABLE)
                              if not is_throwaway(name, self.host, self.job))  # fmt: skip
            # Every server has the last one, and next to nobody keeps anything in it.
            known = matching(there, self.exclude) | {*self._names(client), self.maintenance_database}
        return Inventory("database", f"PostgreSQL on port {self.port}", there, known)

    # The servers.

    @contextmanager
    def _connect(self, work: Work) -> Iterator[Client]:
        login = Login(self.server, self.port, self.user, self.maintenance_database, self.password, self.sslmode,
                      self.ca_file)  # fmt: skip
        with libpq.connected(login, work, directory=self.directory) as client:
            self.directory = client.directory
            yield client

    def _drill_client(self, work: Work) -> AbstractContextManager[Client]:
        return self._connect(work) if self.drill_on == "database" else own_server(work)

    def _all_names(self, client: Client, which: str = "NOT datistemplate") -> list[str]:
        rows = client.rows(f"SELECT datname FROM pg_database WHERE {which} ORDER BY 1")  # noqa: S608 - our own words
        return [row[0] for row in rows if row and row[0] is not None]

    def _names(self, client: Client) -> list[str]:
        """The databases to back up. A named one that is missing stays: its dump fails, and the backup says so."""
        usable = self._all_names(client, _USABLE)
        wanted = self.databases or [name for name in usable if not name.startswith("vigilhost_drill_")]
        return [name for name in wanted if not any(fnmatch.fnmatchcase(name, one) for one in self.exclude)]

    def _estimates(self, client: Client, name: str) -> dict[str, int]:
        try:
            rows = client.rows(_ESTIMATES, name)
        except SourceFailed:
            return {}  # what is wrong with this database is for pg_dump to say
        return {str(table): int(count or 0) for table, count in rows}

    def _drill_globals(self, plain: int, client: Client, work: Work) -> list[Outcome]:
        if self.drill_on == "server":
            _restore_globals(plain, client, work)
            return [Outcome("roles can be restored", is_met=True)]
        _read_globals(plain)
        return [Outcome("roles are all there", is_met=True, found="not restored: they would change this server")]


@contextmanager
def own_server(work: Work) -> Iterator[Client]:
    """A PostgreSQL of the newest installed version in the scratch directory, reached by its socket alone.

    Raise Refused where it cannot be: PostgreSQL does not run as root.
    """
    if (user_ids(work.user)[0] if work.user else os.geteuid()) == 0:
        raise Refused("drill_on: server: PostgreSQL does not run as root; set the job's user to postgres")
    with private_directory(work, "postgresql") as data:
        cluster = os.path.join(data, "cluster")
        work.run(_newest("initdb"), f"--pgdata={cluster}", "--username=postgres", "--auth=trust", "--no-sync",
                 "--encoding=UTF8", "--locale=C.UTF-8", kind=BackupError)  # fmt: skip
        settings = {"listen_addresses": "", "unix_socket_directories": data, "fsync": "off", "autovacuum": "off",
                    "full_page_writes": "off", "max_connections": "10", "max_wal_size": "8GB"}  # fmt: skip
        run = Step((_newest("postgres"), "-D", cluster, *(f"--{name}={value}" for name, value in settings.items())),
                   user=work.user)  # fmt: skip
        login = Login(data, 5432, "postgres")
        with libpq.connected(login, work, directory=os.path.dirname(_newest("psql"))) as client, server(
            run, work, lambda: client.rows("SELECT 1"),
            lambda cleanup: cleanup.run(_newest("pg_ctl"), "stop", f"--pgdata={cluster}", "--mode=immediate"),
        ):  # fmt: skip
            yield client


def _newest(name: str) -> str:
    directory = libpq.choose(libpq.client_directories(), None)
    return name if directory is None else os.path.join(directory, name)


# Roles.


def _read_globals(plain: int) -> str:
    """The text of a globals archive. Raise Damaged unless it goes to its end."""
    content = read_up_to(plain, _MOST_GLOBALS)
    if _GLOBALS_END not in content[-1000:]:
        raise Damaged("the roles break off before their end")
    return content.decode("utf-8", "replace")


def _restore_globals(plain: int, client: Client, work: Work) -> None:
    """Roles that are there are no error: at least the one that we log in as is. Everything else is."""
    script = private_file(work, "globals.sql", _tolerant(_read_globals(plain)))
    try:
        work.run(client.program("psql"), "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1",
                 f"--dbname={conninfo('postgres')}", f"--file={script}", environment=client.variables(),
                 kind=BackupError)  # fmt: skip
    finally:
        remove_file(script)


def _tolerant(script: str) -> str:
    """The same script with each CREATE ROLE skipped where the role is there; pg_dumpall writes one on a line."""

    def rewritten(line: str) -> str:
        if _CREATE_ROLE.fullmatch(line) is None:
            return line
        return f"DO {literal(f'BEGIN {line} EXCEPTION WHEN duplicate_object THEN NULL; END')};"

    return "\n".join(rewritten(line) for line in script.split("\n"))


# Databases.


@contextmanager
def _restored(client: Client, name: str, plain: int, work: Work, *, keeps_owners: bool = False) -> Iterator[None]:
    """The dump in a new database, created as the dumped one was (encoding, locale).

    It is dropped at the end whatever happens, unless it has another name by then. Raise BackupError.
    """
    how = _CAREFUL[2:] if keeps_owners else _CAREFUL
    head = read_up_to(plain, _HEAD_BYTES)
    try:
        client.rows(f"CREATE DATABASE {identifier(name)} WITH {_like(head, client, work)}", kind=BackupError)
        with rejoined(head, plain, work) as whole:
            del head
            work.run(client.program("pg_restore"), "--no-password", *how, f"--dbname={conninfo(name)}", stdin=whole,
                     environment=client.variables(), kind=BackupError)  # fmt: skip
        yield
    finally:
        _drop(client, name, work)


def _drop(client: Client, name: str, work: Work) -> None:
    """Drop a throw-away database. What fails is a warning, and the next run's to sweep."""
    with cleaning_up(work, f"database {name}") as cleanup:
        try:
            client.rows(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)", work=cleanup)
        except SourceFailed as error:
            work.warn(f"database {name}: is left behind until the next run: {error}")


def _like(head: bytes, client: Client, work: Work) -> str:
    """The options with which the dumped database was created; the server's defaults where they cannot be seen."""
    file = private_file(work, "head.dump", head)
    try:
        said = work.run(client.program("pg_restore"), "--create", "--schema-only", "--file=-", file, kind=Damaged)
    except Damaged:
        work.warn("the dump's encoding and locale are not known; the server's own are used")
        return "TEMPLATE = template0"
    finally:
        remove_file(file)
    for line in said.decode("utf-8", "replace").splitlines():
        if (match := _CREATE_DATABASE.fullmatch(line)) is not None:
            return match[1]
    return "TEMPLATE = template0"


def _put_in_place(client: Client, staging: str, to: str, *, is_there: bool) -> None:
    """Give a restored database its name; one that has it is renamed first, its sessions ended."""
    statements = []
    if is_there:
        aside = f"{to[:40]}_before_{staging[-6:]}"
        statements = [
            f"ALTER DATABASE {identifier(to)} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {literal(to)}",  # noqa: S608 - quoted
            f"ALTER DATABASE {identifier(to)} RENAME TO {identifier(aside)}",
            f"ALTER DATABASE {identifier(aside)} ALLOW_CONNECTIONS true",
        ]
    for sql in [*statements, f"ALTER DATABASE {identifier(staging)} RENAME TO {identifier(to)}"]:
        client.rows(sql, kind=BackupError)
