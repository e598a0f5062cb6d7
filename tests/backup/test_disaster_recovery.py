"""The commands of docs/disaster-recovery.md, run in their order on what was lost. LXD is a stand-in here.

tests/proof/lxd.py types its chapter into a real one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.core.secrets import Secret
from backup.targets.s3 import S3
from backup.targets.s3_request import Bucket, Keys, tag
from tests.backup.hosts import BackedUp, tree
from tests.backup.sources.test_lxd import StandIn
from tests.backup.sources.test_redis import started_on
from tests.servers.docker import Docker
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import need
from tests.servers.radosgw import RadosGw, need_radosgw
from tests.servers.redis import Redis

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "disaster-recovery.md").read_text()
OLD_HOST = "web1"


def chapters() -> dict[str, list[str]]:
    """Title to its blocks of commands, which stand as they are to be typed."""
    found = {}
    for chapter in PAGE.split("\n## ")[1:]:
        blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", chapter, re.MULTILINE | re.DOTALL)
        found[chapter.partition("\n")[0]] = [re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
                                             for indent, text in blocks]  # fmt: skip
    return found


CHAPTERS = chapters()


class Operator:
    """Types what the page says. Paths of the page lie below `root`; the shell stops at the first command that fails."""

    def __init__(self, directory: Path) -> None:
        self.host = BackedUp(directory / "host")
        self.root = directory / "root"
        self.typed = 0
        self.environment = {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "HOME": str(directory)}
        self.app = self.root / "srv/app"
        (self.app / "config").mkdir(parents=True)
        (self.app / "config" / "app.ini").write_text("[app]\n")
        (self.app / "config" / "app.ini").chmod(0o640)
        (self.root / "root/restored").mkdir(parents=True)
        self.is_called(OLD_HOST)
        command = directory / "bin" / "vigilhost"
        command.parent.mkdir()
        where = f"--config {directory}/vigilhost.yaml --jobs {self.host.directory}/backup.d"
        program = f"{sys.executable} -m agent.cli.main backup $sub {where} --state-dir {directory}/state"
        command.write_text(f'#!/bin/sh\nsub=$2; shift 2\nexec {program} "$@"\n')
        command.chmod(0o755)

    def is_called(self, name: str) -> None:
        """The name of the host that the commands are typed on."""
        (self.host.directory.parent / "vigilhost.yaml").write_text(f"hostname: {name}\n")

    def types(self, text: str) -> str:
        """What it printed; every command must succeed."""
        text = re.sub(r"(?<![\w.])/(srv/app|root)(?=/|\s|$)", rf"{self.root}/\1", text)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, check=False,
                              cwd=ROOT, env=self.environment, timeout=300)  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        self.typed += 1
        return done.stdout

    def backs_up(self, *jobs: str) -> None:
        for job in jobs:
            self.types(f"vigilhost backup run {job}")


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    need("tar", "zstd", "setpriv")
    (tmp_path / "host").mkdir()
    return Operator(tmp_path)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    """The server of the old host, and an empty one."""
    need("postgresql")
    with PostgreSQL() as old, PostgreSQL() as new:
        yield old, new


def with_a_shop(operator: Operator, server: PostgreSQL) -> None:
    """A database with an owner of its own, and the job `shop`."""
    reaches(operator, server)
    server.sql("CREATE ROLE merchant LOGIN PASSWORD 'secret'")
    make_shop(server)


def make_shop(server: PostgreSQL) -> None:
    server.sql("CREATE DATABASE shop OWNER merchant")
    server.sql("SET ROLE merchant; CREATE TABLE orders (id int PRIMARY KEY, what text);"
               " INSERT INTO orders SELECT i, md5(i::text) FROM generate_series(1, 500) i", "shop")  # fmt: skip


def reaches(operator: Operator, server: PostgreSQL) -> None:
    login = {"PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"}
    operator.environment.update(login)
    operator.host.job("shop", source={"postgresql": {"server": "127.0.0.1", "port": server.port,
                                                     "password": server.password, "databases": ["shop"]}})  # fmt: skip


def orders(server: PostgreSQL, database: str = "shop") -> list[list[str]]:
    """What is in the table, and whose it is."""
    owner = server.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", database)
    return owner + server.sql("SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders", database)


@pytest.fixture
def shop(operator: Operator, servers: tuple[PostgreSQL, PostgreSQL]) -> Iterator[PostgreSQL]:
    with_a_shop(operator, servers[0])
    yield servers[0]
    for server in servers:
        names = server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'shop%'")
        for (name,) in names:
            server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        server.sql("DROP ROLE IF EXISTS merchant")


def test_a_database_is_lost(operator: Operator, shop: PostgreSQL, servers: tuple[PostgreSQL, PostgreSQL]) -> None:
    look, gone, wrong, one_table, whole_server = CHAPTERS["A PostgreSQL database is lost"]
    before = orders(shop)
    operator.backs_up("shop")
    for block in CHAPTERS["First, always"]:
        operator.types(block)

    assert "500" in operator.types(look)
    shop.sql("DROP DATABASE shop")
    operator.types(gone)
    assert orders(shop) == before

    shop.sql("DELETE FROM orders", "shop")
    assert "shop_before_" in operator.types(wrong)
    assert orders(shop) == before

    shop.sql("UPDATE orders SET what = 'nonsense'", "shop")
    operator.types(one_table)
    assert orders(shop)[1] == before[1]

    new = servers[1]
    reaches(operator, new)
    operator.types(whole_server)
    assert orders(new) == before
    assert new.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'merchant'") == [["t"]]


@pytest.fixture
def blogs() -> Iterator[tuple[MariaDB, MariaDB]]:
    """The server of the old host, and an empty one."""
    need("mariadbd", "mariadb", "mariadb-dump")
    with MariaDB() as old, MariaDB() as new:
        yield old, new


def test_a_mariadb_database_is_lost(operator: Operator, blogs: tuple[MariaDB, MariaDB]) -> None:
    wrong, new_server = CHAPTERS["A MariaDB or MySQL database is lost"]
    old, new = blogs
    old.sql("CREATE DATABASE blog; USE blog; CREATE TABLE posts (id int PRIMARY KEY, what text);"
            " INSERT INTO posts SELECT seq, MD5(seq) FROM seq_1_to_300; CREATE USER author IDENTIFIED BY 'secret';"
            " GRANT SELECT ON blog.* TO author")  # fmt: skip
    before = old.sql("CHECKSUM TABLE blog.posts")
    blogs_on(operator, old)
    operator.backs_up("blog")
    old.sql("DELETE FROM blog.posts")
    assert "300" in operator.types(wrong)
    assert old.sql("CHECKSUM TABLE blog.posts") == before
    blogs_on(operator, new)
    operator.types(new_server)
    assert new.sql("CHECKSUM TABLE blog.posts") == before
    assert any("blog" in row[0] for row in new.sql("SHOW GRANTS FOR author"))


def blogs_on(operator: Operator, server: MariaDB) -> None:
    options = f"[client]\nuser=root\nsocket={server.socket}\npassword={server.password}\n"
    Path(operator.environment["HOME"], ".my.cnf").write_text(options)
    source = {"server": "127.0.0.1", "port": server.port, "password": server.password, "databases": ["blog"]}
    operator.host.job("blog", source={"mysql": source})


def test_redis_is_lost(operator: Operator) -> None:
    need("redis-server", "redis-cli")
    with Redis() as server:
        server.cli("SET", "greeting", "hello")
        operator.host.job("cache", source={"redis": {"port": server.port}})
        operator.backs_up("cache")
    operator.types(*CHAPTERS["Redis is lost"])
    for appendonly in ("no", "yes"):
        with started_on(operator.root / "root/restored/redis", "--appendonly", appendonly) as again:
            assert again.cli("GET", "greeting") == "hello"


def test_the_plain_commands_that_are_printed_bring_the_same_data(operator: Operator, shop: PostgreSQL) -> None:
    operator.host.job("files", source={"files": {"paths": [str(operator.app)]}})
    operator.backs_up("shop", "files")
    show, dry_run = CHAPTERS["Without Vigilhost at all"][0].splitlines()
    printed = operator.types(show).partition("without vigilhost:\n")[2]
    shop.sql("CREATE DATABASE shop_plain TEMPLATE template0")
    by_hand(operator, printed.replace("DATABASE", "shop_plain"))
    assert orders(shop, "shop_plain")[1] == orders(shop)[1]
    printed = operator.types(dry_run).partition("without vigilhost:\n")[2]
    by_hand(operator, printed.replace("DIRECTORY", str(operator.root / "root/restored")))
    assert tree(restored_app(operator, "root/restored")) == tree(operator.app)


def by_hand(operator: Operator, commands: str) -> None:
    """Each printed command; its checksum is the one beside it."""
    lines = [line for line in commands.splitlines() if line and not line.startswith("#")]
    for line in lines:
        said = operator.types(line)
        if "| sha256sum  # " in line:
            assert said.split()[0] == line.rpartition("# ")[2]


def restored_app(operator: Operator, to: str) -> Path:
    return operator.root / to / str(operator.app).lstrip("/")


def test_the_host_is_lost(operator: Operator, shop: PostgreSQL, servers: tuple[PostgreSQL, PostgreSQL]) -> None:
    list_, files, databases, go_on = CHAPTERS["The host is lost"]
    operator.host.job("files", source={"files": {"paths": [str(operator.app)]}})
    operator.backs_up("shop", "files")
    before, before_files = orders(shop), tree(operator.app)

    new = servers[1]
    operator.is_called("web2")
    shutil.rmtree(operator.host.directory.parent / "state")
    shutil.rmtree(operator.app / "config")
    reaches(operator, new)
    assert operator.types(list_).count(" level 2, ") == 2
    operator.types(in_the_archive(operator, files))
    assert tree(operator.app) == before_files
    operator.types(databases)
    assert orders(new) == before
    operator.types(go_on)
    assert sorted(path.name for path in operator.host.store.iterdir()) == ["web1", "web2"]


def in_the_archive(operator: Operator, text: str) -> str:
    """The paths that a restore makes are those of the files as they were: here below the test's own root."""
    return text.replace("/root/restored/files/srv/app/", f"/root/restored/files{operator.root}/srv/app/")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Docker]:
    need("dockerd", "docker", "busybox")
    with Docker() as server:
        server.make_image()
        yield server


def test_a_volume_is_lost(operator: Operator, daemon: Docker) -> None:
    volume, to_look, files = CHAPTERS["A volume is lost"]
    operator.environment["DOCKER_HOST"] = f"unix://{daemon.socket}"
    daemon.cli("volume", "create", "shop_data")
    (daemon.files("shop_data") / "precious").write_text("yes")
    before = tree(daemon.files("shop_data"))
    operator.host.job("volumes", source={"docker_volume": {"socket": str(daemon.socket)}})
    operator.host.job("files", source={"files": {"paths": [str(operator.app)]}})
    before_files = tree(operator.app)
    operator.backs_up("volumes", "files")

    daemon.cli("volume", "rm", "shop_data")
    assert "precious" in operator.types(volume)
    assert tree(daemon.files("shop_data")) == before
    operator.types(to_look)
    assert tree(operator.root / "root/restored/shop_data") == before
    shutil.rmtree(operator.app / "config")
    operator.types(in_the_archive(operator, files))
    assert tree(operator.app) == before_files


@pytest.fixture
def gateway() -> Iterator[RadosGw]:
    need_radosgw()
    with RadosGw() as server:
        server.add_user("web1", "web1", "secret-of-web1")
        yield server


def named_like_an_option(target: S3, key: str, make: Callable[[], None]) -> None:
    """Make a version, again until its name begins with a dash: radosgw's do so one time in 64."""
    assert target.access_key is not None
    assert target.secret_key is not None
    bucket = Bucket(target.bucket_url, target.region, Keys(target.access_key, target.secret_key), 60)
    while True:
        make()
        version = tag(bucket.ask("GET", "", {"versions": "", "prefix": key}), "VersionId")  # the newest comes first
        if version.startswith("-"):
            return
        bucket.ask("DELETE", key, {"versionId": version})


def test_a_thief_has_deleted_the_backups(operator: Operator, gateway: RadosGw, tmp_path: Path) -> None:
    markers, as_it_was, restore = CHAPTERS["A thief has deleted the backups"]
    gateway.make_aws(tmp_path / "bin", "web1", "secret-of-web1")
    operator.types("aws s3api create-bucket --bucket backups-locked --object-lock-enabled-for-bucket")
    key = tmp_path / "s3.key"
    key.write_text("secret-of-web1")
    key.chmod(0o600)
    vault = {"type": "s3", "bucket": "backups-locked", "endpoint": gateway.url, "access_key": "web1",
             "secret_key": {"file": str(key)}}  # fmt: skip
    files = {"source": {"files": {"paths": [str(operator.app)]}}}
    operator.host.job("files", **files, targets={"vault": vault})
    operator.backs_up("files")
    before = tree(operator.app)
    target = S3("backups-locked", endpoint=gateway.url, access_key="web1", secret_key=Secret("secret-of-web1"))
    named_like_an_option(target, "web1/files/other", lambda: target.put("web1/files/other", b"not of a backup"))
    names = set(target.names(""))
    target.put("web1/files/old", b"what retention has deleted")
    target.delete("web1/files/old")
    theft = datetime.now(UTC).isoformat()

    for name in names - {"web1/files/other"}:
        target.delete(name)
    named_like_an_option(target, "web1/files/other", lambda: target.delete("web1/files/other"))
    assert list(target.names("")) == []
    operator.types(markers.replace("2026-01-31T03:00", theft))
    assert set(target.names("")) == names

    for name in names:
        target.put(name, b"worthless")
    shutil.rmtree(operator.app / "config")
    operator.types(as_it_was.replace("2026-01-31T03:00", theft))
    restored = {"type": "local", "path": str(operator.root / "root/restored/vault")}
    operator.host.job("files", **files, targets={"vault": restored})
    operator.types(restore)
    assert tree(restored_app(operator, "root/restored/files")) == before


def test_by_stand_in_the_lxd_host_is_lost(operator: Operator, tmp_path: Path) -> None:
    old, new = StandIn(tmp_path / "old"), StandIn(tmp_path / "new")
    operator.host.job("lxd", source={"lxd": {"program": str(old.program)}})
    operator.backs_up("lxd")
    for gone in ("instances/web", "instances/mail", "volumes/fast/data"):
        (new.directory / gone).unlink()
    operator.host.job("lxd", source={"lxd": {"program": str(new.program)}})
    for block in CHAPTERS["The LXD host is lost"]:
        operator.types(block)
    for back in ("instances/web", "volumes/fast/data"):
        assert (new.directory / back).read_bytes() == (old.directory / back).read_bytes()
    assert sorted(path.name for path in (operator.root / "root/restored").iterdir()) == [
        "networks.json", "pools.json", "profiles.json",
    ]  # fmt: skip


def test_only_the_agent_is_lost(operator: Operator, shop: PostgreSQL) -> None:
    look, run = CHAPTERS["Only the agent is lost"]
    operator.backs_up("shop")
    shutil.rmtree(operator.host.directory.parent / "state")
    assert "level 2" in operator.types(look)
    operator.types(run)
    assert operator.types("vigilhost backup list shop").count(" level 2, ") == 2


def test_every_chapter_with_commands_is_run() -> None:
    tested: Sequence[str] = (
        "First, always", "A PostgreSQL database is lost", "A MariaDB or MySQL database is lost", "Redis is lost",
        "A volume is lost", "The host is lost", "A thief has deleted the backups", "The LXD host is lost",
        "Only the agent is lost", "Without Vigilhost at all",
    )  # fmt: skip
    assert [title for title, blocks in CHAPTERS.items() if blocks] == list(tested)
