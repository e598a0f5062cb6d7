"""MariaDB and MySQL: one SQL dump a database, and the accounts of the server."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from agent.core.clock import NS, SystemClock
from agent.core.options import option
from agent.core.secrets import Secret
from backup.assertions import Assertion, Outcome, Query, judge, judge_all
from backup.children import Step, user_ids
from backup.coding import DUMP_LEVEL
from backup.errors import BackupError, Damaged, Refused, SourceFailed
from backup.source import Facts, Inventory, Restored, Stream, Work, matching
from backup.sources import mysql_client
from backup.sources.mysql_client import Client, Login, installed, literal
from backup.sources.mysql_databases import drop, dump_step, heed_broken_off, load, pour, replace_database, restored
from backup.sources.scratch import (
    is_throwaway,
    private_directory,
    server,
    throwaway_name,
)

ACCOUNTS = "mysql_accounts"
_OWN = frozenset({"information_schema", "performance_schema", "sys", "mysql"})
_END = b"-- Dump completed"
_TAIL_BYTES = 4 << 10
_LOOK = "SET SESSION TRANSACTION READ ONLY; SET time_zone = '+00:00'"
# In the statements that we make up, names stand in double quotes, which is standard and not MySQL's default.
_QUOTES = f"{_LOOK}, sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')"
_ESTIMATES = """SELECT table_name, coalesce(table_rows, 0) FROM information_schema.tables WHERE table_schema = {}
AND table_type = 'BASE TABLE' AND position('.' in table_name) = 0 ORDER BY data_length DESC, 1 LIMIT 2000"""

_UNSAFE_TABLES = """SELECT table_name FROM information_schema.tables WHERE table_schema = {}
AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' LIMIT 5"""


@dataclass(slots=True)
class MySQL:
    """Backs up the databases of a MariaDB or MySQL server, each as one archive, and MariaDB's accounts as one more.

    A drill restores into a database of a random name beside the others, or into a server of its own.
    """

    server: str = option("127.0.0.1", "Name or address of the server.")
    port: int = option(3306, "Port of the server.", minimum=1, maximum=65535)
    socket: str = option("", "Socket of the server; instead of its address.", example="/run/mysqld/mysqld.sock")
    user: str = option("root", "Account that reads everything.")
    password: Secret | None = option(None, "Its password; null: none is asked for.")
    databases: list[str] = option(list, "Databases; none: all but the server's own.", example="[orders, users]")
    exclude: list[str] = option(list, "Patterns of databases to leave out.", example='["test_*"]')
    accounts: bool = option(True, "Whether accounts and their privileges are kept too; MariaDB only.")
    drill_on: Literal["database", "server"] = option(
        "database", "What a drill restores into: a database on the same server, or a server of its own."
    )
    job: str = ""
    host: str = ""  # ours, not the server's

    @property
    def drills_apart(self) -> bool:
        return self.drill_on == "server"

    def describe(self, work: Work) -> Facts:
        heed_broken_off(work)
        with self._connect(work) as client:
            version = client.value("SELECT version()") or ""
            names = self._names(client)
            if ACCOUNTS in names:
                raise SourceFailed(f"a database is called {ACCOUNTS}, like the archive of the accounts; rename it")
            for name in names:
                self._warn_of_engines(client, name, work)
            where = self.socket or f"{self.server}:{self.port}"
            return Facts({"server": version, "dump": client.version("mariadb-dump")},
                         {"databases": ", ".join(names), "server": where})  # fmt: skip

    def streams(self, work: Work) -> Iterator[Stream]:
        with self._connect(work) as client:
            names = self._names(client)
            if not names:
                raise SourceFailed("source.mysql.databases: matches none on the server")
            is_mariadb = "mariadb" in (client.value("SELECT version()") or "").lower()
            for name in names:
                dump = dump_step(client, name)
                yield Stream(name, "sql", (replace(dump, is_wordy=True),), self._estimates(client, name),
                             level=DUMP_LEVEL)  # fmt: skip
            if self.accounts and is_mariadb:
                yield Stream(ACCOUNTS, "sql", (client.step("mariadb-dump", "--system=users", "--insert-ignore"),))

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        """Read it to its last line, which mariadb-dump writes when all went well."""
        tail = b""
        while chunk := os.read(plain, 1 << 20):
            work.guard.check()
            tail = (tail + chunk)[-_TAIL_BYTES:]
        if not tail.rstrip().rpartition(b"\n")[2].startswith(_END):
            raise Damaged("the dump breaks off before its end")

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Restore into the new database `to`; accounts go to the server whatever `to` is.

        `allow`: `force` replaces a database of that name. It cannot be moved aside, so the dump is loaded into a
        throw-away one first, for proof, and the one that is there dropped only then. It is put back if that fails.
        """
        with self._connect(work) as client:
            if name == ACCOUNTS:
                pour(client, "mysql", plain, work)
                client.rows("FLUSH PRIVILEGES", kind=BackupError)
                return Restored(1, warnings=("accounts that were there already were left as they are",))
            is_there = to in self._all_names(client)
            if to in _OWN or (is_there and "force" not in allow):
                raise Refused(f"{to}: there is such a database; restore to another, or replace it with --force")
            if is_there:
                replace_database(client, self._connect, to, throwaway_name(self.host, self.job), plain, work)
            else:
                load(client, to, plain, work)
        return Restored(1)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        with self._drill_client(work) as client:
            if name == ACCOUNTS:
                return [*self._drill_accounts(plain, client, work), *judge_all(assertions)]
            if self.drill_on == "database":
                _refuse_events(client)
            scratch = throwaway_name(self.host, self.job)
            if scratch == name or scratch in self._all_names(client):
                raise Refused(f"{scratch}: there is such a database already; a drill never touches one that is there")
            with restored(client, scratch, plain, work):
                now = SystemClock().wall_ns() / NS
                outcomes = [Outcome("the dump ends without an error", is_met=True)]
                for one in assertions:
                    outcomes += judge(one, now=now, query=_asker(client, scratch, one), estimates=estimates)
        return outcomes

    def sweep(self, work: Work) -> list[str]:
        removed = []
        try:
            with self._connect(work) as client:
                for name in self._all_names(client):
                    if is_throwaway(name, self.host, self.job):
                        drop(client, name, work)
                        removed.append(f"database {name}")
        except SourceFailed as error:
            work.warn(f"databases that a killed drill may have left were not looked for: {error}")
        return removed

    def recipe(self, name: str) -> str:
        # Clients before 10.11.8, and MySQL's, take the first line for an error.
        return f"sed '1{{/999999.*sandbox/d}}' | mariadb {'mysql' if name == ACCOUNTS else 'DATABASE'}"

    # The servers.

    def _connect(self, work: Work) -> AbstractContextManager[Client]:
        return mysql_client.connected(Login(self.user, self.password, self.server, self.port, self.socket), work)

    def _drill_client(self, work: Work) -> AbstractContextManager[Client]:
        return self._connect(work) if self.drill_on == "database" else own_server(work)

    def _all_names(self, client: Client) -> list[str]:
        return [row[0] for row in client.rows("SHOW DATABASES") if row[0] is not None]

    def inventory(self, work: Work) -> Inventory:
        with self._connect(work) as client:
            there = frozenset(name for name in self._all_names(client) if name not in _OWN)
            known = matching(there, self.exclude) | frozenset(self._names(client))
        return Inventory("database", f"MySQL at {self.socket or self.port}", there, known)

    def _names(self, client: Client) -> list[str]:
        """The databases to back up. A named one that is missing stays: its dump fails, and the backup says so."""
        wanted = self.databases or [
            name for name in self._all_names(client) if name not in _OWN and not name.startswith("vigilhost_drill_")
        ]
        return [name for name in wanted if not any(fnmatch.fnmatchcase(name, one) for one in self.exclude)]

    def _estimates(self, client: Client, name: str) -> dict[str, int]:
        rows = client.rows(_ESTIMATES.format(literal(name)))
        return {str(table): int(count or 0) for table, count in rows}

    def _warn_of_engines(self, client: Client, name: str, work: Work) -> None:
        rows = client.rows(_UNSAFE_TABLES.format(literal(name)))
        if rows:
            tables = ", ".join(str(row[0]) for row in rows)
            work.warn(f"{name}: tables without transactions may be copied while they change: {tables}")

    def _drill_accounts(self, plain: int, client: Client, work: Work) -> list[Outcome]:
        if self.drill_on == "server":
            pour(client, "mysql", plain, work)
            return [Outcome("accounts can be restored", is_met=True)]
        self.decode_check(ACCOUNTS, plain, work)
        return [Outcome("accounts are all there", is_met=True, found="not restored: they would change this server")]


@contextmanager
def own_server(work: Work) -> Iterator[Client]:
    """A MariaDB in the scratch directory, reached by its socket alone, that runs no events."""
    if (user_ids(work.user)[0] if work.user else os.geteuid()) == 0:
        raise Refused("drill_on: server: MariaDB does not run as root; set the job's user to mysql")
    with private_directory(work, "mysql") as data:
        work.run("mariadb-install-db", "--no-defaults", f"--datadir={data}/db", "--skip-test-db",
                 "--auth-root-authentication-method=normal", "--skip-name-resolve", kind=BackupError)  # fmt: skip
        socket = os.path.join(data, "s")
        run = Step((installed("mariadbd"), "--no-defaults", f"--datadir={data}/db", f"--socket={socket}",
                    f"--pid-file={data}/pid", "--skip-networking", "--event-scheduler=OFF",
                    "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"), user=work.user)  # fmt: skip
        with mysql_client.connected(Login("root", socket=socket), work) as client, server(
            run, work, lambda: client.rows("SELECT 1"), lambda cleanup: client.rows("SHUTDOWN", work=cleanup)
        ):  # fmt: skip
            yield client


def _refuse_events(client: Client) -> None:
    """Raise Refused where restored events would start to run beside those of the source."""
    if (client.value("SELECT @@event_scheduler") or "").upper() in ("ON", "1"):
        raise Refused("the server runs events, and would run the restored ones too; drill with drill_on: server")


def _asker(client: Client, database: str, assertion: Assertion) -> Query:
    def ask(sql: str) -> str | None:
        return client.value(sql, database, before=_LOOK if sql == assertion.sql else _QUOTES)

    return ask
