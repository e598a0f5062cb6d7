"""What doctor finds on a host: real servers of this machine, and tables of the kernel as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.doctor.servers import Thing, found
from tests.agent.cli.test_backup_cmd import Operator
from tests.backup.hosts import BackedUp
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import need
from tests.servers.redis import Redis

UNIX = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 19741 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000003 00000000 00000000 0001 03 19742 /run/postgresql/.s.PGSQL.5433
0000000000000000: 00000002 00000000 00010000 0001 01 19743 /run/mysqld/mysqld.sock
0000000000000000: 00000002 00000000 00010000 0001 01 19744
"""


@pytest.mark.parametrize(
    ("source", "options", "covers"),
    [
        ("postgresql", {"port": 5432, "server": "/var/run/postgresql"}, True),
        ("postgresql", {"port": 5432, "server": "127.0.0.1"}, True),
        ("postgresql", {"server": "localhost"}, True),  # on the port that it has by default
        ("postgresql", {"port": 5433}, False),
        ("postgresql", {"port": 5432, "server": "db2.example.org"}, False),
        ("mysql", {"port": 5432}, False),
    ],
)
def test_a_job_covers_the_server_that_it_connects_to(source: str, options: dict[str, object], covers: bool) -> None:
    thing = Thing("PostgreSQL", "postgresql", {5432}, {"/run/postgresql/.s.PGSQL.5432"})
    assert thing.is_covered_by(source, options) is covers


def test_sockets_that_only_connect_are_no_servers(tmp_path: Path) -> None:
    (tmp_path / "proc" / "net").mkdir(parents=True)
    (tmp_path / "proc" / "net" / "unix").write_text(UNIX)
    assert [(one.what, one.where) for one in found(str(tmp_path))] == [
        ("PostgreSQL", "port 5432 and /run/postgresql/.s.PGSQL.5432"),
        ("MySQL or MariaDB", "/run/mysqld/mysqld.sock"),
    ]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        server.sql("CREATE DATABASE shop")
        server.sql("CREATE DATABASE forgotten")
        server.sql("CREATE DATABASE test_1")
        yield server


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    need("tar", "zstd", "setpriv")
    return Operator(BackedUp(tmp_path))


@pytest.mark.server("postgresql")
def test_a_database_in_no_job_is_named(operator: Operator, postgresql: PostgreSQL) -> None:
    where = f"port {postgresql.port}"
    assert f"PostgreSQL found ({where} and {postgresql.socket_dir}" in operator.types("doctor").stdout
    reach = {"server": "127.0.0.1", "port": postgresql.port, "password": postgresql.password}
    operator.host.job("shop", source={"postgresql": {**reach, "databases": ["shop"]}})
    said = operator.types("doctor").stdout
    assert f"found ({where}" not in said
    assert f"database forgotten (PostgreSQL on {where}) is in no job" in said
    operator.host.job("rest", source={"postgresql": {**reach, "exclude": ["test_*"]}})
    assert "is in no job" not in operator.types("doctor").stdout


@pytest.mark.server("redis")
def test_a_server_without_a_socket_is_found_by_its_port(operator: Operator) -> None:
    with Redis() as server:
        assert f"Redis found (port {server.port}" in operator.types("doctor").stdout
        operator.host.job("cache", source={"redis": {"port": server.port}})
        assert f"Redis found (port {server.port}" not in operator.types("doctor").stdout
