"""MariaDB backed up, destroyed, restored and compared, on a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.assertions import Assertion
from backup.drill import drill
from backup.errors import BackupError, Damaged, Refused
from backup.sources.mysql import ACCOUNTS
from backup.sources.mysql_client import cells, option_line, without_sandbox
from backup.sources.scratch import Undo, throwaway_name
from tests.agent.cli.test_backup_cmd import Operator
from tests.backup.hosts import HOST, REPOSITORY, BackedUp
from tests.backup.sources.round import CANARY, Round, as_pipe, leaks, outcomes, reachable, unmet, watched_run
from tests.servers.mariadb import MariaDB
from tests.servers.process import LOOPBACK

pytestmark = pytest.mark.server("mariadb")

SHOP = """SET NAMES utf8mb4;
CREATE TABLE users (id int PRIMARY KEY, name varchar(100), at timestamp NOT NULL DEFAULT now(), raw blob)
  DEFAULT CHARSET utf8mb4;
INSERT INTO users (id, name, raw) SELECT seq, CONCAT('user ', seq), UNHEX(MD5(seq)) FROM seq_1_to_2000;
INSERT INTO users VALUES (2001, 'back\\\\slash\\ttab ''quote'' \U0001f600', now(), X'00ff0a');
CREATE TABLE orders (id int PRIMARY KEY, who int, FOREIGN KEY (who) REFERENCES users (id));
INSERT INTO orders SELECT seq, seq FROM seq_1_to_300;
CREATE VIEW named AS SELECT name FROM users;
CREATE FUNCTION doubled(n int) RETURNS int DETERMINISTIC RETURN 2 * n;
CREATE TRIGGER tidy BEFORE INSERT ON orders FOR EACH ROW SET NEW.who = NEW.who;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM orders WHERE id < 0;
ANALYZE TABLE users, orders;
"""
DIGEST = """USE shop; CHECKSUM TABLE users, orders; SELECT doubled(21); SELECT count(*) FROM named;
SHOW CREATE TRIGGER tidy; SELECT event_name, status FROM information_schema.events WHERE event_schema = 'shop';
SELECT HEX(name), HEX(raw) FROM users WHERE id = 2001"""


@pytest.fixture
def shop(mariadb: MariaDB) -> Iterator[str]:
    try:
        mariadb.sql("CREATE DATABASE shop; USE shop;" + SHOP)
        yield "shop"
    finally:
        for name in names(mariadb):
            if name.startswith(("shop", "vigilhost_drill_", "again")):
                mariadb.sql(f"DROP DATABASE `{name}`")


def names(server: MariaDB) -> list[str]:
    return [row[0] for row in server.sql("SHOW DATABASES")]


def digest(server: MariaDB) -> list[list[str]]:
    # The time at which the trigger was made again is no part of it.
    return [row[:3] for row in server.sql(DIGEST)]


def a_round(host: BackedUp, server: MariaDB, **options: Any) -> Round:
    source = {"server": LOOPBACK, "port": server.port, "password": server.password, **options}
    return Round(host, host.job(source={"mysql": source}))


def test_a_database_that_was_dropped_comes_back_as_it_was(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    before = digest(mariadb)
    round_ = a_round(host, mariadb, databases=[shop])
    manifest = round_.back_up()
    assert [(one.name, one.level) for one in manifest.archives] == [(shop, 2), (ACCOUNTS, 2)]
    assert manifest.versions["server"].startswith("10.11.")
    assert manifest.archives[0].row_estimates.keys() == {"users", "orders"}

    mariadb.sql("DROP DATABASE shop")
    round_.restore(shop, [shop])

    assert digest(mariadb) == before


def test_the_printed_recipe_restores_without_us(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    mariadb.sql("CREATE DATABASE again")
    round_.by_hand(shop, {"MYSQL_HOST": LOOPBACK, "MYSQL_TCP_PORT": str(mariadb.port), "MYSQL_PWD": mariadb.password,
                          "USER": "root"}, DATABASE="again")  # fmt: skip
    sums = mariadb.sql("CHECKSUM TABLE shop.users, again.users, shop.orders, again.orders")
    assert (sums[0][1], sums[2][1]) == (sums[1][1], sums[3][1])


def test_the_sandbox_line_is_stripped_and_only_that(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    first = round_.content(shop).splitlines(keepends=True)[0]
    assert b"sandbox" in first  # as the installed mariadb-dump writes it
    assert without_sandbox(first) == b""
    assert without_sandbox(b"/*!999999\\- enable the sandbox mode */ \n") == b""
    assert without_sandbox(b"-- MariaDB dump 10.19\n") == b"-- MariaDB dump 10.19\n"
    assert "sandbox" in round_.source.recipe(shop)


def test_a_restore_onto_a_database_that_is_there_is_refused_unless_forced(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    before = digest(mariadb)
    mariadb.sql("USE shop; DELETE FROM orders; CREATE TABLE newer (id int)")
    with pytest.raises(Refused, match="there is such a database"):
        round_.restore(shop, [shop])
    assert mariadb.sql("SELECT count(*) FROM shop.orders") == [["0"]]
    round_.restore(shop, [shop], allow=["force"])
    assert digest(mariadb) == before
    assert mariadb.sql("SHOW TABLES IN shop LIKE 'newer'") == []
    with pytest.raises(Refused):
        round_.restore("mysql", [shop], allow=["force"])


# Its first load makes a table elsewhere, over which the second one stumbles.
ONCE = b"CREATE TABLE t (id int);\nCREATE TABLE elsewhere.once (id int);\n"
# Its second load takes away what a view needs, before it stumbles.
TWICE = (
    b"""INSERT INTO elsewhere.seen VALUES (1);
SET @then = IF((SELECT count(*) FROM elsewhere.seen) > 1, 'DROP TABLE elsewhere.seen', 'DO 0');
EXECUTE IMMEDIATE @then;
"""
    + ONCE
)


@pytest.fixture
def elsewhere(mariadb: MariaDB) -> Iterator[None]:
    mariadb.sql("CREATE DATABASE elsewhere")
    yield
    mariadb.sql("DROP DATABASE IF EXISTS elsewhere")


@pytest.mark.usefixtures("elsewhere")
def test_a_database_is_put_back_when_the_dump_that_was_proved_cannot_be_loaded_again(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    source, before = a_round(host, mariadb).source, digest(mariadb)
    work = Round(host, host.job()).work()
    with as_pipe(ONCE) as plain, pytest.raises(BackupError, match="'once' already exists"):
        source.restore(shop, plain, shop, work, frozenset({"force"}))
    assert digest(mariadb) == before
    assert left_beside(work.scratch) == []


@pytest.mark.usefixtures("elsewhere")
def test_a_database_that_cannot_be_put_back_is_kept_as_a_dump(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    source, round_ = a_round(host, mariadb).source, Round(host, host.job())
    work = round_.work()
    mariadb.sql("CREATE TABLE elsewhere.seen (id int); CREATE VIEW shop.watcher AS SELECT * FROM elsewhere.seen")
    with as_pipe(TWICE) as plain, pytest.raises(BackupError, match="could not be put back, and is in") as caught:
        source.restore(shop, plain, shop, work, frozenset({"force"}))
    (kept,) = left_beside(work.scratch)
    assert str(kept) in str(caught.value)
    assert b"CREATE TABLE `orders`" in kept.read_bytes()
    source.describe(work)
    assert [str(kept) in one for one in round_.warnings] == [True]


# A restore over a database, killed between its drop and its second load.
KILLED = f"""
import os, signal, sys
from agent.config.backup_jobs import load_job
from backup.children import Guard
from backup.redact import Redactor
from backup.source import Work
from backup.sources import mysql_databases
from backup.workspace import undo_path, workspace
mysql_databases.load = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
file, state = sys.argv[1:]
job = load_job(file)[0]
with workspace(state, job.name, None) as scratch:
    work = Work(scratch, Guard(60), Redactor(), undo_path=undo_path(state, job.name))
    job.plugin.build(job=job.name, host={HOST!r}).restore("shop", 0, "shop", work, frozenset({{"force"}}))
"""


def test_a_database_whose_replacement_was_killed_is_kept_and_told_of_until_it_is_taken_care_of(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    mariadb.sql("CREATE DATABASE again; CREATE TABLE again.t (id int)")
    a_round(host, mariadb, databases=["again"])
    before, job, state = digest(mariadb), host.directory / "backup.d" / "job.yaml", host.directory / "state"
    with as_pipe(b"CREATE TABLE t (id int);\n") as plain:
        killed = subprocess.run([sys.executable, "-c", KILLED, job, state], stdin=plain, check=False,
                                env={**os.environ, "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert shop not in names(mariadb)
    for _ in range(2):
        (warning,) = host.run().result["warnings"]
        assert warning.startswith("database shop: a restore over it was broken off; what it held before is in /")
    assert f"warn job: source: {warning}\n" in Operator(host).types("doctor", "job").stdout
    (host.directory / ".my.cnf").write_text(
        f"[client]\nuser=root\npassword={mariadb.password}\nhost={LOOPBACK}\nport={mariadb.port}\n"
    )
    command = warning.rpartition(": ")[2]
    mariadb.sql("CREATE DATABASE shop")
    subprocess.run(["bash", "-c", command], env={**os.environ, "HOME": str(host.directory)}, check=True)
    assert digest(mariadb) == before
    Path(command.partition(" < ")[2]).unlink()
    assert host.run().result["warnings"] == []
    assert list((state / "scratch").iterdir()) == []


def test_what_a_former_source_of_the_job_has_still_to_undo_is_left_to_it(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    source, work = a_round(host, mariadb).source, Round(host, host.job()).work()
    entry = {"redis": "save", "value": "3600 1"}
    Undo(work).add(entry)
    assert source.describe(work).notes["databases"] == shop
    assert Undo(work).entries() == [entry]


def left_beside(scratch: str) -> list[Path]:
    return list(Path(scratch).parent.glob("before-*"))


def test_a_restore_that_fails_half_way_leaves_no_database(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    source = a_round(host, mariadb).source
    with as_pipe(b"CREATE TABLE t (id int);\nSELECT nothing;\nCREATE TABLE u (id int);\n") as plain, pytest.raises(
        BackupError, match="Unknown column 'nothing'"
    ):  # fmt: skip
        source.restore(shop, plain, "again", Round(host, host.job()).work(), frozenset())
    assert "again" not in names(mariadb)


def test_a_dump_that_is_no_good_leaves_the_database_that_it_was_to_replace(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    source, before = a_round(host, mariadb).source, digest(mariadb)
    work = Round(host, host.job()).work()
    with as_pipe(b"CREATE TABLE t (id int);\nSELECT nothing;\n") as plain, pytest.raises(
        BackupError, match="Unknown column 'nothing'"
    ):  # fmt: skip
        source.restore(shop, plain, shop, work, frozenset({"force"}))
    assert digest(mariadb) == before
    assert [name for name in names(mariadb) if "drill" in name] == []
    assert os.listdir(work.scratch) == []


def test_famous_failure_a_missing_database_is_no_small_archive(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    a_round(host, mariadb, databases=["nosuchdb", shop])
    done = host.run()
    assert done.code == 1
    assert "Unknown database 'nosuchdb'" in done.result["error"]
    manifest = host.manifests()[0]
    assert [one.name for one in manifest.missing] == ["nosuchdb"]
    assert [one.name for one in manifest.archives] == [shop, ACCOUNTS]
    assert not any("nosuchdb" in name for name in host.stored())


@pytest.mark.parametrize("kept", [0, 0.3, 0.999])
def test_a_dump_that_breaks_off_is_damaged(host: BackedUp, mariadb: MariaDB, shop: str, kept: float) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    content = round_.content(shop)
    assert round_.check(shop, content) is None
    assert isinstance(round_.check(shop, content[: int(len(content) * kept)]), Damaged)


def test_a_name_is_a_name_whatever_it_looks_like(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    name = "--help it's /odd"
    mariadb.sql(f"CREATE DATABASE `{name}`; CREATE TABLE `{name}`.t AS SELECT 7 AS v")
    try:
        round_ = a_round(host, mariadb, databases=[name], accounts=False)
        round_.back_up()
        round_.restore(f"again {name}")
        assert mariadb.sql(f"SELECT v FROM `again {name}`.t") == [["7"]]
    finally:
        mariadb.sql(f"DROP DATABASE `{name}`")


def test_tables_without_transactions_are_a_warning(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    mariadb.sql("CREATE TABLE shop.old (id int) ENGINE MyISAM")
    a_round(host, mariadb, databases=[shop])
    assert host.run().result["warnings"] == [
        "shop: tables without transactions may be copied while they change: old"
    ]  # fmt: skip


def test_accounts_come_back_to_a_server_that_has_some_of_them(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    mariadb.sql("CREATE USER clerk@localhost IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO clerk@localhost")
    try:
        round_ = a_round(host, mariadb, databases=[shop])
        round_.back_up()
        before = mariadb.sql("SHOW GRANTS FOR clerk@localhost")
        mariadb.sql("DROP USER clerk@localhost")
        round_.restore("", [ACCOUNTS])
        assert mariadb.sql("SHOW GRANTS FOR clerk@localhost") == before
    finally:
        mariadb.sql("DROP USER IF EXISTS clerk@localhost")


def test_a_drill_looks_at_a_database_that_is_gone_afterwards(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    mariadb.sql("DELETE FROM shop.orders")  # the drill must not look here
    evidence = round_.drill(
        {"sql": "SELECT doubled(4)", "equals": "8", "min_rows": {"users": 2001, "orders": 300},
         "newest_within": {"users.at": 3600.0}, "tolerance": 20.0},
        {"sql": 'SELECT "text" = \'text\''},
    )  # fmt: skip
    assert evidence.is_passed, unmet(evidence)
    assert [name for name in names(mariadb) if "drill" in name] == []


def test_a_drill_tells_what_is_not_so(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    evidence = round_.drill(
        {"min_rows": {"users": 5000}},
        {"sql": "DELETE FROM users"},
        {"sql": "SELECT NULL"},
        {"file_exists": ["etc/passwd"]},
        {"archive": ACCOUNTS, "min_rows": {"user": 1}},
    )
    found = outcomes(evidence, shop)
    assert [text for text, is_met in found.items() if is_met] == ["the dump ends without an error"]
    assert "READ ONLY" in next(one.found for one in unmet(evidence) if "DELETE" in one.assertion)
    assert outcomes(evidence, ACCOUNTS) == {"accounts are all there": True, "user has at least 1 rows": False}


def test_a_drill_never_lets_restored_events_run(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    mariadb.sql("SET GLOBAL event_scheduler = ON")
    try:
        with pytest.raises(Refused, match="drill_on: server"):
            round_.drill()
    finally:
        mariadb.sql("SET GLOBAL event_scheduler = OFF")
    assert [name for name in names(mariadb) if "drill" in name] == []


def test_a_drill_can_have_a_server_of_its_own(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    round_ = a_round(host, mariadb, databases=[shop])
    round_.back_up()
    job = host.job("again", source={"mysql": {"server": "127.0.0.1", "port": 1, "drill_on": "server"}}, user="mysql")
    with reachable("mysql") as scratch:
        other = Round(host, job, scratch)
        evidence = drill(round_.newest, host.target(), other.source, other.work(),
                         [Assertion(min_rows={"users": 2001})], now=time.time())  # fmt: skip
        assert list(scratch.iterdir()) == []
    assert evidence.is_passed, unmet(evidence)
    assert outcomes(evidence, ACCOUNTS) == {"accounts can be restored": True}


def test_what_a_killed_drill_left_is_swept_and_nothing_else(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    left, others = throwaway_name(HOST, "job"), throwaway_name(HOST, "another")
    mariadb.sql(f"CREATE DATABASE {left}; CREATE DATABASE {others}")
    a_round(host, mariadb, databases=[shop])
    done = host.run()
    assert [event["what"] for event in done.events if event["event"] == "swept"] == [f"database {left}"]
    assert {others, shop} <= set(names(mariadb))


def test_all_databases_are_taken_but_the_servers_own_and_those_excluded(
    host: BackedUp, mariadb: MariaDB, shop: str
) -> None:
    mariadb.sql("CREATE DATABASE shop_test")
    manifest = a_round(host, mariadb, exclude=["*_test"], accounts=False).back_up()
    assert [one.name for one in manifest.archives] == [shop]


def test_the_password_shows_nowhere(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    password = f"{CANARY} #\\\"' "
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    mariadb.sql(f"CREATE USER canary@'127.0.0.1' IDENTIFIED BY '{escaped}'; GRANT ALL ON *.* TO canary@'127.0.0.1'")
    try:
        a_round(host, mariadb, user="canary", password=password, databases=[shop, "nosuchdb"])
        done, seen = watched_run(host)
        assert host.manifests()[0].archives
        assert any("mariadb-dump" in line for line in seen)
        assert leaks(host, done, seen) == []
    finally:
        mariadb.sql("DROP USER canary@'127.0.0.1'")


def test_a_server_that_is_away_fails_and_stores_nothing(host: BackedUp) -> None:
    host.job(source={"mysql": {"server": "127.0.0.1", "port": 1}})
    done = host.run()
    assert done.code == 1
    assert "Can't connect" in done.result["error"]
    assert host.stored() == []


def test_words_of_option_files_and_of_answers() -> None:
    assert option_line("password", 'a#b"c\\d ') == 'password="a#b\\"c\\\\d "\n'
    assert cells("a\\tb\tNULL\t\\\\N\t") == ["a\tb", None, "\\N", ""]


def test_its_inventory_has_every_database_but_the_servers_own(host: BackedUp, mariadb: MariaDB, shop: str) -> None:
    mariadb.sql("CREATE DATABASE again_1; CREATE DATABASE again_2")
    seen = a_round(host, mariadb, databases=[shop], exclude=["again_1"]).source.inventory(host.work())
    assert {"shop", "again_1", "again_2"} <= seen.there
    assert not {"mysql", "information_schema"} & seen.there
    assert "again_2" in seen.there - seen.known
    assert not {"shop", "again_1"} & (seen.there - seen.known)
