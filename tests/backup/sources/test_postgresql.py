"""PostgreSQL backed up, destroyed, restored and compared, on a real server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.assertions import Assertion
from backup.drill import drill
from backup.errors import BackupError, Damaged, Refused
from backup.sources.libpq import Login, choose, connected, conninfo, major_of
from backup.sources.postgresql import GLOBALS, _tolerant
from backup.sources.scratch import throwaway_name
from tests.backup.hosts import HOST, BackedUp
from tests.backup.sources.round import CANARY, Round, as_pipe, leaks, outcomes, reachable, unmet, watched_run
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import LOOPBACK

pytestmark = pytest.mark.server("postgresql")

SHOP = """
CREATE SCHEMA sales;
CREATE TABLE users (id int PRIMARY KEY, name text, at timestamptz NOT NULL DEFAULT now());
INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 2000) n;
INSERT INTO users VALUES (2001, E'back\\\\slash\\ttab ''quote'' \U0001f600', '2020-01-01');
CREATE TABLE sales.orders (id int, who int REFERENCES public.users, item bytea);
INSERT INTO sales.orders SELECT n, n, decode(md5(n::text), 'hex') FROM generate_series(1, 300) n;
CREATE VIEW named AS SELECT name FROM users;
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
ANALYZE;
"""
DIGEST = """SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM users u UNION ALL
SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM sales.orders o UNION ALL SELECT doubled(21)::text"""


@pytest.fixture
def shop(postgresql: PostgreSQL) -> Iterator[str]:
    yield from database(postgresql, "shop", SHOP)


def database(server: PostgreSQL, name: str, script: str = "", how: str = "") -> Iterator[str]:
    quoted = '"' + name + '"'
    server.sql(f"CREATE DATABASE {quoted} {how}")
    try:
        if script:
            server.sql(script, conninfo(name).removeprefix("dbname="))
        yield name
    finally:
        for found in names(server):
            if found.startswith((name, "vigilhost_drill_", "again")):
                server.sql(f'DROP DATABASE "{found}" WITH (FORCE)')


def names(server: PostgreSQL) -> list[str]:
    return [row[0] for row in server.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")]


def a_round(host: BackedUp, server: PostgreSQL, **options: Any) -> Round:
    source = {"server": LOOPBACK, "port": server.port, "password": server.password, "sslmode": "disable", **options}
    return Round(host, host.job(source={"postgresql": source}))


def test_a_database_that_was_dropped_comes_back_as_it_was(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    before = postgresql.sql(DIGEST, shop)
    round_ = a_round(host, postgresql, databases=[shop])
    manifest = round_.back_up()
    assert [(one.name, one.extension, one.level) for one in manifest.archives] == [
        (shop, "dump", 2), (GLOBALS, "sql", 2)
    ]  # fmt: skip
    assert manifest.versions["postgresql"].startswith("15.")
    assert dict(manifest.archives[0].row_estimates) == {"users": 2001, "sales.orders": 300}

    postgresql.sql(f"DROP DATABASE {shop}")
    round_.restore(shop, [shop])

    assert postgresql.sql(DIGEST, shop) == before
    assert [name for name in names(postgresql) if "drill" in name] == []


def test_the_printed_recipe_restores_without_us(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    before = postgresql.sql(DIGEST, shop)
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    postgresql.sql("CREATE DATABASE again TEMPLATE template0")
    login = {"PGHOST": str(postgresql.socket_dir), "PGPORT": str(postgresql.port), "PGUSER": "postgres"}
    round_.by_hand(shop, login, DATABASE="again")
    round_.by_hand(GLOBALS, login)
    assert postgresql.sql(DIGEST, "again") == before


def test_dumps_are_not_compressed_twice(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    manifest = a_round(host, postgresql, databases=[shop]).back_up()
    dump = manifest.archives[0]
    assert dump.argv[0][1:3] == ("--format=custom", "--compress=0")
    assert dump.stored_bytes < dump.raw_bytes / 2


def test_a_restore_onto_a_database_that_is_there_is_refused_and_with_force_keeps_the_old_one(
    host: BackedUp, postgresql: PostgreSQL, shop: str
) -> None:
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    before = postgresql.sql(DIGEST, shop)
    postgresql.sql("DELETE FROM sales.orders", shop)
    with pytest.raises(Refused, match="there is such a database"):
        round_.restore(shop, [shop])
    assert postgresql.sql("SELECT count(*) FROM sales.orders", shop) == [["0"]]

    round_.restore(shop, [shop], allow=["force"])

    assert postgresql.sql(DIGEST, shop) == before
    aside = next(name for name in names(postgresql) if name.startswith(f"{shop}_before_"))
    assert postgresql.sql("SELECT count(*) FROM sales.orders", aside) == [["0"]]


def test_a_restore_that_fails_half_way_leaves_no_database(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    content = round_.content(shop)
    with as_pipe(content[: len(content) * 2 // 3]) as plain, pytest.raises(BackupError, match="pg_restore exited 1"):
        round_.source.restore(shop, plain, "again", round_.work(), frozenset())
    assert [name for name in names(postgresql) if name.startswith(("again", "vigilhost"))] == []


def test_encoding_and_locale_of_a_database_come_back_too(host: BackedUp, postgresql: PostgreSQL) -> None:
    how = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    for name in database(postgresql, "bytes", "CREATE TABLE t (v text); INSERT INTO t VALUES (E'\\xff\\xfe')", how):
        round_ = a_round(host, postgresql, databases=[name], globals=False)
        round_.back_up()
        round_.restore("again")
        found = postgresql.sql("SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database"
                               " WHERE datname = 'again'")  # fmt: skip
        assert found == [["SQL_ASCII", "C"]]
        assert postgresql.sql("SELECT encode(v::bytea, 'hex') FROM t", "again") == [["fffe"]]


@pytest.mark.parametrize("name", ["host=evil", "it's \\odd", "-d", "dots.and/slashes", "übung"])
def test_a_name_is_a_name_whatever_it_looks_like(host: BackedUp, postgresql: PostgreSQL, name: str) -> None:
    for made in database(postgresql, name, "CREATE TABLE t AS SELECT 7 AS v"):
        round_ = a_round(host, postgresql, databases=[made], globals=False)
        assert [one.name for one in round_.back_up().archives] == [made]
        to = f"again {made}"
        round_.restore(to)
        with connected(Login(str(postgresql.socket_dir), postgresql.port, "postgres"), host.work()) as client:
            assert client.value("SELECT v FROM t", to) == "7"


def test_famous_failure_a_missing_database_is_no_small_archive(host: BackedUp, postgresql: PostgreSQL,
                                                               shop: str) -> None:  # fmt: skip
    a_round(host, postgresql, databases=["nosuchdb", shop])
    done = host.run()
    assert done.code == 1
    assert 'database "nosuchdb" does not exist' in done.result["error"]
    manifest = host.manifests()[0]
    assert [one.name for one in manifest.missing] == ["nosuchdb"]
    assert not manifest.is_complete  # and so no retention runs, and it is never the last good one
    assert [one.name for one in manifest.archives] == [shop, GLOBALS]
    assert not any("nosuchdb" in name for name in host.stored())


def test_famous_failure_listing_a_truncated_dump_succeeds_and_our_check_does_not(
    host: BackedUp, postgresql: PostgreSQL, shop: str, tmp_path: Path
) -> None:
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    content = round_.content(shop)
    assert round_.check(shop, content) is None
    cut = content[: len(content) * 2 // 3]
    (tmp_path / "cut").write_bytes(cut)
    listing = subprocess.run([postgresql.bin("pg_restore"), "--list", tmp_path / "cut"], capture_output=True)
    assert listing.returncode == 0
    assert isinstance(round_.check(shop, cut), Damaged)
    assert isinstance(round_.check(shop, b""), Damaged)


def test_roles_that_break_off_are_damaged(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    roles = round_.content(GLOBALS)
    assert round_.check(GLOBALS, roles) is None
    assert isinstance(round_.check(GLOBALS, roles[:-200]), Damaged)


def test_roles_come_back_to_a_server_that_has_some_of_them(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    postgresql.sql("CREATE ROLE \"o'clerk\" LOGIN PASSWORD 'x'; CREATE ROLE staff; GRANT staff TO \"o'clerk\"")
    try:
        round_ = a_round(host, postgresql, databases=[shop])
        round_.back_up()
        postgresql.sql('DROP ROLE "o\'clerk"')
        round_.restore("postgres", [GLOBALS])
        members = postgresql.sql("SELECT pg_has_role('o''clerk', 'staff', 'member'), rolpassword IS NOT NULL"
                                 " FROM pg_authid WHERE rolname = 'o''clerk'")  # fmt: skip
        assert members == [["t", "t"]]
    finally:
        postgresql.sql('DROP ROLE IF EXISTS "o\'clerk"; DROP ROLE staff')


def test_only_creating_a_role_may_fail() -> None:
    script = "CREATE ROLE \"a'b\";\nALTER ROLE x WITH LOGIN;\nCREATE TABLESPACE t LOCATION '/x';"
    first, *others = _tolerant(script).split("\n")
    assert first == "DO E'BEGIN CREATE ROLE \"a''b\"; EXCEPTION WHEN duplicate_object THEN NULL; END';"
    assert others == script.split("\n")[1:]


def test_a_drill_looks_at_a_database_that_is_gone_afterwards(host: BackedUp, postgresql: PostgreSQL,
                                                             shop: str) -> None:  # fmt: skip
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    postgresql.sql("DELETE FROM sales.orders", shop)  # the drill must not look here
    evidence = round_.drill(
        {"sql": "SELECT doubled(4)", "equals": "8", "min_rows": {"users": 2001, "sales.orders": 300},
         "newest_within": {"users.at": 3600.0}, "tolerance": 1.0},
    )  # fmt: skip
    assert evidence.is_passed, unmet(evidence)
    assert evidence.rto_s > 0
    assert [name for name in names(postgresql) if name.startswith("vigilhost_drill_")] == []


def test_a_drill_tells_what_is_not_so(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    round_ = a_round(host, postgresql, databases=[shop])
    round_.back_up()
    evidence = round_.drill(
        {"min_rows": {"users": 5000}},
        {"newest_within": {"sales.orders.id": 60.0}},
        {"sql": "SELECT nothing"},
        {"sql": "DELETE FROM users RETURNING 1"},
        {"file_exists": ["etc/passwd"]},
        {"archive": "other", "sql": "SELECT 1"},
        {"archive": GLOBALS, "sql": "SELECT 1 = 1"},
    )
    assert not evidence.is_passed
    found = outcomes(evidence, shop)
    assert [text for text, is_met in found.items() if is_met] == ["pg_restore ends without an error"]
    assert "read-only" in next(one.found for one in unmet(evidence) if "DELETE" in one.assertion)
    assert not any(outcomes(evidence, "other").values())
    assert outcomes(evidence, GLOBALS)["SELECT 1 = 1 = true"] is False


def test_a_drill_can_have_a_server_of_its_own(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    round_ = a_round(host, postgresql, databases=[shop], drill_on="server")
    round_.back_up()
    job = host.job("again", source={"postgresql": {"server": "/nowhere", "drill_on": "server"}}, user="postgres")
    with reachable("postgres") as scratch:
        other = Round(host, job, scratch)
        evidence = drill(round_.newest, host.target(), other.source, other.work(),
                         [Assertion(min_rows={"users": 2001})], now=time.time())  # fmt: skip
        assert list(scratch.iterdir()) == []
    assert evidence.is_passed, unmet(evidence)
    assert outcomes(evidence, GLOBALS) == {"roles can be restored": True}


def test_a_server_of_its_own_is_refused_to_root(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    round_ = a_round(host, postgresql, databases=[shop], drill_on="server")
    round_.back_up()
    with pytest.raises(Refused, match="set the job's user to postgres"):
        round_.drill()


def test_what_a_killed_drill_left_is_swept_and_nothing_else(host: BackedUp, postgresql: PostgreSQL,
                                                            shop: str) -> None:  # fmt: skip
    round_ = a_round(host, postgresql, databases=[shop])
    left, others = throwaway_name(HOST, "job"), throwaway_name(HOST, "another")
    for name in (left, others):
        postgresql.sql(f"CREATE DATABASE {name}")
    done = host.run()
    assert {"event": "swept", "what": f"database {left}"}.items() <= next(
        event for event in done.events if event["event"] == "swept"
    ).items()
    assert left not in names(postgresql)
    assert {others, shop} <= set(names(postgresql))
    assert round_.newest.is_complete


def test_all_databases_are_taken_but_those_excluded_and_those_of_drills(
    host: BackedUp, postgresql: PostgreSQL, shop: str
) -> None:
    for name in ("shop_test", throwaway_name(HOST, "another")):
        postgresql.sql(f"CREATE DATABASE {name}")
    manifest = a_round(host, postgresql, exclude=["*_test", "postgres"], globals=False).back_up()
    assert [one.name for one in manifest.archives] == [shop]


def test_a_database_that_was_half_dropped_does_not_fail_every_backup(
    host: BackedUp, postgresql: PostgreSQL, shop: str
) -> None:
    left = throwaway_name(HOST, "job")
    for name in ("shop_half", left):
        postgresql.sql(f"CREATE DATABASE {name}")
        postgresql.sql(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'")
    manifest = a_round(host, postgresql, exclude=["postgres"], globals=False).back_up()
    assert [one.name for one in manifest.archives] == [shop]
    assert left not in names(postgresql)  # swept all the same


def test_the_password_shows_nowhere(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    postgresql.sql(f"CREATE ROLE canary SUPERUSER LOGIN PASSWORD '{CANARY}'")
    try:
        a_round(host, postgresql, user="canary", password=CANARY, databases=[shop, "nosuchdb"])
        done, seen = watched_run(host)
        assert host.manifests()[0].archives
        assert any("pg_dump" in line for line in seen)
        assert leaks(host, done, seen) == []
    finally:
        postgresql.sql("DROP ROLE canary")


def test_a_wrong_password_says_so_and_not_what_it_is(host: BackedUp, postgresql: PostgreSQL, shop: str) -> None:
    a_round(host, postgresql, password=CANARY)
    done, seen = watched_run(host)
    assert "password authentication failed" in done.result["error"]
    assert leaks(host, done, seen) == []
    assert host.stored() == []


def test_a_server_that_is_away_fails_and_stores_nothing(host: BackedUp) -> None:
    host.job(source={"postgresql": {"server": str(host.directory), "port": 5432}})
    done = host.run()
    assert done.code == 1
    assert "No such file" in done.result["error"]
    assert host.stored() == []


@pytest.mark.parametrize(("installed", "server", "chosen"), [
    ({13: "a", 15: "b", 17: "c"}, 15, "b"),
    ({13: "a", 17: "c"}, 15, "c"),
    ({13: "a"}, 15, None),
    ({13: "a", 15: "b"}, None, "b"),
    ({}, None, None),
])  # fmt: skip
def test_the_programs_are_never_older_than_the_server(
    installed: dict[int, str], server: int | None, chosen: str | None
) -> None:
    assert choose(installed, server) == chosen


def test_small_words() -> None:
    assert major_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)") == 15
    assert conninfo("a'b\\c") == "dbname='a\\'b\\\\c'"
