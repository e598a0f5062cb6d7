"""MariaDB: a new data directory, root with a password."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import LOOPBACK, Server, run


class MariaDB(Server):
    """`settings` are options of mariadbd, as name -> value: {"performance-schema": "on"}."""

    name = "mariadbd"
    user = "mysql"  # it refuses to run as root
    password = "correct-horse"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.settings = {"innodb-flush-log-at-trx-commit": "0", "innodb-buffer-pool-size": "16M", **(settings or {})}

    @property
    def url(self) -> str:
        return f"mysql://root:{self.password}@{LOOPBACK}:{self.port}/"

    @property
    def socket(self) -> Path:
        return self.data_dir / "s"

    def prepare(self) -> None:
        run(
            "mysql_install_db", "--no-defaults", f"--datadir={self.data_dir}/db", "--skip-test-db",
            "--skip-name-resolve", "--auth-root-authentication-method=normal", "--innodb-buffer-pool-size=16M",
            user=self.user,
        )  # fmt: skip
        # runs at each start, before the server listens
        (self.data_dir / "init.sql").write_text(
            f"ALTER USER root@localhost IDENTIFIED BY '{self.password}';\n"
            f"CREATE OR REPLACE USER root@{LOOPBACK} IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO root@{LOOPBACK} WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        return [
            self.name,
            "--no-defaults",
            f"--datadir={self.data_dir}/db",
            f"--socket={self.socket}",
            f"--pid-file={self.data_dir}/pid",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            f"--init-file={self.data_dir}/init.sql",
            *(f"--{name}={value}" for name, value in self.settings.items()),
        ]

    def ready(self) -> bool:
        return self.sql("SELECT 1") == [["1"]]

    def sql(self, statements: str) -> list[list[str]]:
        """Rows of some statements, as text, NULL as 'NULL'. Raise ServerError with the client's words."""
        done = run(
            "mariadb", "--no-defaults", "--batch", "--skip-column-names", f"--host={LOOPBACK}", f"--port={self.port}",
            "--user=root", f"--password={self.password}", stdin=statements,
        )  # fmt: skip
        return [line.split("\t") for line in done.splitlines()]
