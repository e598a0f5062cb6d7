"""PostgreSQL: a new cluster, superuser `postgres` with a password over TCP and without over the socket."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import LOOPBACK, Server, run
from tests.servers.programs import program


class PostgreSQL(Server):
    """`settings` are lines of postgresql.conf, as name -> value."""

    name = "postgres"
    user = "postgres"  # it refuses to run as root
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for clients to leave
    password = "correct horse"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.settings = {"fsync": "off", "autovacuum": "off", "max_connections": "30", **(settings or {})}

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self.password.replace(' ', '%20')}@{LOOPBACK}:{self.port}/postgres"

    @property
    def dsn(self) -> str:
        """libpq words for TCP, password included."""
        return f"host={LOOPBACK} port={self.port} user=postgres dbname=postgres password='{self.password}'"

    @property
    def socket_dsn(self) -> str:
        """libpq words for the unix socket; no password asked."""
        return f"host={self.socket_dir} port={self.port} user=postgres dbname=postgres"

    @property
    def socket_dir(self) -> Path:
        return self.data_dir

    def bin(self, name: str) -> str:
        """Path of a program of the server's own version: pg_dump, pg_basebackup, pg_verifybackup, ..."""
        return str(Path(program("postgres")).resolve().with_name(name))

    def prepare(self) -> None:
        (self.data_dir / "password").write_text(self.password)
        run(
            "initdb", "-D", self.data_dir / "cluster", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8",
            "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.data_dir}/password", user=self.user,
        )  # fmt: skip

    def command(self) -> list[str]:
        settings = {
            **self.settings,
            "port": str(self.port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": str(self.socket_dir),
        }
        return [self.name, "-D", f"{self.data_dir}/cluster", *(f"--{name}={value}" for name, value in settings.items())]

    def ready(self) -> bool:
        return self.sql("SELECT 1") == [["1"]]

    def sql(self, statements: str, database: str = "postgres") -> list[list[str]]:
        """Rows of the last of some statements, as text, NULL as ''. Raise ServerError with psql's words."""
        done = run(
            "psql", "-XAtq", "--csv", "-v", "ON_ERROR_STOP=1", "-d", f"{self.socket_dsn} dbname={database}",
            stdin=statements,
        )  # fmt: skip
        return list(csv.reader(io.StringIO(done)))
