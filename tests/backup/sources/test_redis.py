"""Redis backed up, destroyed, restored and compared, on a real server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup.errors import Damaged, Refused, SourceFailed
from backup.sources.redis import LOG, SNAPSHOT
from tests.backup.hosts import BackedUp, ended
from tests.backup.sources.round import CANARY, Round, leaks, outcomes, unmet, watched_run
from tests.servers.process import LOOPBACK, wait_until
from tests.servers.redis import Redis

pytestmark = pytest.mark.server("redis")

# By default a server waits 5 s for more replicas before it makes a snapshot for one.
AT_ONCE = ["--repl-diskless-sync-delay", "0"]
LOGGING = ["--appendonly", "yes", "--aof-use-rdb-preamble", "yes"]


@pytest.fixture
def full() -> Iterator[Redis]:
    with Redis(AT_ONCE, password=CANARY) as server:
        fill(server)
        yield server


def fill(server: Redis) -> None:
    server.cli("SET", "greeting", 'hello "world"\r\n\x01')
    server.cli("EVAL", "for n = 1, 500 do redis.call('HSET', 'user:' .. n, 'name', string.rep('x', n)) end", "0")
    server.cli("-n", "3", "RPUSH", "queue", "a", "b")


def digest(server: Redis) -> str:
    return server.cli("DEBUG", "DIGEST")


def a_round(host: BackedUp, server: Redis, **options: Any) -> Round:
    source = {"server": LOOPBACK, "port": server.port, "password": server.password or None, **options}
    return Round(host, host.job(source={"redis": source}))


def started_on(directory: Path, *flags: str) -> Redis:
    """A server on a copy of a data directory."""

    class Copied(Redis):
        def prepare(self) -> None:
            shutil.copytree(directory, self.data_dir, dirs_exist_ok=True)

    return Copied(["--enable-debug-command", "yes", *flags])


@pytest.mark.parametrize("appendonly", ["no", "yes"])
def test_famous_failure_a_snapshot_comes_back_whether_or_not_the_server_keeps_a_log(
    host: BackedUp, tmp_path: Path, full: Redis, appendonly: str
) -> None:
    round_ = a_round(host, full)
    manifest = round_.back_up()
    assert [(one.name, one.extension, one.level) for one in manifest.archives] == [(SNAPSHOT, "rdb", 2)]
    assert dict(manifest.archives[0].row_estimates) == {"db0": 501, "db3": 1}
    assert manifest.versions["redis"].startswith("7.")

    done = round_.restore(str(tmp_path / "data"))

    assert "chown" in done[0].warnings[0]
    with started_on(tmp_path / "data", "--appendonly", appendonly) as again:
        assert (again.cli("DBSIZE"), again.cli("-n", "3", "LRANGE", "queue", "0", "-1")) == ("501", "a\nb")
        assert again.cli("GET", "greeting") == full.cli("GET", "greeting")
        assert again.cli("HGET", "user:499", "name") == "x" * 499


def test_a_bare_snapshot_under_a_log_would_have_started_empty(host: BackedUp, tmp_path: Path, full: Redis) -> None:
    round_ = a_round(host, full)
    round_.back_up()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dump.rdb").write_bytes(round_.content(SNAPSHOT))
    with started_on(bare, "--appendonly", "yes") as again:
        assert again.cli("DBSIZE") == "0"  # which is why a restore turns the log on itself


def test_the_log_comes_back_with_what_was_written_last(host: BackedUp, tmp_path: Path) -> None:
    with Redis(LOGGING, password=CANARY) as server:
        fill(server)
        server.cli("BGREWRITEAOF")
        server.cli("SET", "last", "one")
        round_ = a_round(host, server, method="log")
        manifest = round_.back_up()
        assert [(one.name, one.extension, one.level) for one in manifest.archives] == [(LOG, "tar", 2)]
        assert server.cli("CONFIG", "GET", "auto-aof-rewrite-percentage").split() == [
            "auto-aof-rewrite-percentage", "100"
        ]  # fmt: skip
    round_.restore(str(tmp_path / "data"))
    with started_on(tmp_path / "data", "--appendonly", "yes") as again:
        assert (again.cli("DBSIZE"), again.cli("GET", "last")) == ("502", "one")


def test_a_log_that_is_not_kept_is_an_error(host: BackedUp, full: Redis) -> None:
    a_round(host, full, method="log")
    assert "keeps no append-only log" in host.run().result["error"]


def test_famous_failure_a_dead_server_leaves_no_empty_archive(host: BackedUp) -> None:
    host.job(source={"redis": {"server": LOOPBACK, "port": 1}})
    done = host.run()
    assert done.code == 1
    assert "Could not connect" in done.result["error"]
    assert host.stored() == []


def test_a_server_that_dies_while_it_is_copied_leaves_no_archive(host: BackedUp, full: Redis) -> None:
    source = a_round(host, full).source
    full.kill()
    work = host.work()
    with pytest.raises(SourceFailed):
        next(source.streams(work))
    assert list(Path(work.scratch).iterdir()) == []


@pytest.mark.parametrize("damage", [
    lambda content: b"",
    lambda content: content[:-20],
    lambda content: content[: len(content) // 2],
    lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
], ids=["empty", "without its end", "half", "one bit"])  # fmt: skip
def test_a_damaged_snapshot_is_found(host: BackedUp, full: Redis, damage: Any) -> None:
    round_ = a_round(host, full)
    round_.back_up()
    content = round_.content(SNAPSHOT)
    assert round_.check(SNAPSHOT, content) is None
    assert isinstance(round_.check(SNAPSHOT, damage(content)), Damaged)


def test_a_drill_starts_a_server_of_its_own(host: BackedUp, full: Redis) -> None:
    round_ = a_round(host, full)
    round_.back_up()
    full.cli("FLUSHALL")  # the drill must not look here
    work = round_.work()
    evidence = round_.drill(
        {"min_rows": {"db0": 501, "db3": 1}, "tolerance": 0.0},
        {"sql": "HGET user:3 name", "equals": "xxx"},
        {"sql": "-n 3 LLEN queue", "equals": "2"},
    )
    assert evidence.is_passed, unmet(evidence)
    assert list(Path(work.scratch).iterdir()) == []


def test_a_drill_of_a_log_loads_the_log(host: BackedUp) -> None:
    with Redis(LOGGING) as server:
        fill(server)
        round_ = a_round(host, server, method="log")
        round_.back_up()
    evidence = round_.drill({"min_rows": {"db0": 501}})
    assert evidence.is_passed, unmet(evidence)


def test_a_drill_tells_what_is_not_so(host: BackedUp, full: Redis) -> None:
    round_ = a_round(host, full)
    round_.back_up()
    evidence = round_.drill(
        {"min_rows": {"db0": 5000, "users": 1}}, {"sql": "GET nothing"}, {"sql": "NOSUCHCOMMAND"},
        {"newest_within": {"db0.at": 60.0}},
    )  # fmt: skip
    found = outcomes(evidence, SNAPSHOT)
    assert [text for text, is_met in found.items() if is_met] == ["a server starts with it"]
    assert len(found) == 6


def test_a_restore_into_a_directory_with_something_in_it_is_refused(
    host: BackedUp, tmp_path: Path, full: Redis
) -> None:
    round_ = a_round(host, full)
    round_.back_up()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dump.rdb").write_bytes(b"precious")
    with pytest.raises(Refused):
        round_.restore(str(tmp_path / "data"))
    assert (tmp_path / "data" / "dump.rdb").read_bytes() == b"precious"


def test_after_a_kill_the_next_run_lets_the_server_rewrite_its_log_again(host: BackedUp) -> None:
    with Redis(LOGGING) as server:
        fill(server)
        a_round(host, server, method="log")
        # As a run leaves it that is killed between pausing and resuming.
        server.cli("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
        scratch = host.directory / "state" / "scratch"
        scratch.mkdir(parents=True)
        (scratch / "job.undo").write_text(json.dumps([{"redis": "auto-aof-rewrite-percentage", "value": "77"}]))
        done = host.run()
        assert [event["what"] for event in done.events if event["event"] == "swept"] == [
            "auto-aof-rewrite-percentage set to 77 again"
        ]
        assert server.cli("CONFIG", "GET", "auto-aof-rewrite-percentage").split()[1] == "77"
        assert list(scratch.iterdir()) == []


# A server whose log takes very long to be rewritten.
REWRITING = """
from backup.sources.redis import Redis
import time
Redis._await_rewrite = lambda self, work: time.sleep(600)
"""


def test_after_a_kill_of_a_job_with_a_user_the_next_run_finds_what_to_undo(host: BackedUp) -> None:
    with Redis([*LOGGING, "--auto-aof-rewrite-percentage", "77"]) as server:
        host.job(source={"redis": {"server": LOOPBACK, "port": server.port, "method": "log"}}, user="nobody")
        worker = host.start(prelude=REWRITING)
        wait_until(lambda: server.cli("CONFIG", "GET", "auto-aof-rewrite-percentage").endswith("\n0"), "the pause")
        worker.send_signal(signal.SIGKILL)
        ended(worker)
        done = host.run()
        assert [event["what"] for event in done.events if event["event"] == "swept"] == [
            "auto-aof-rewrite-percentage set to 77 again"
        ]
        assert server.cli("CONFIG", "GET", "auto-aof-rewrite-percentage").split()[1] == "77"
        assert list((host.directory / "state" / "scratch").iterdir()) == []


def test_a_log_that_is_written_to_all_the_time_is_copied_whole(host: BackedUp) -> None:
    with Redis([*LOGGING, "--auto-aof-rewrite-min-size", "1mb"]) as server:
        fill(server)
        writer = subprocess.Popen(["redis-benchmark", "-p", str(server.port), "-t", "set", "-r", "1000", "-d", "300",
                                   "-n", "100000000", "-q"], stdout=subprocess.DEVNULL)  # fmt: skip
        try:
            wait_until(lambda: int(server.cli("DBSIZE")) > 501, "the writer")
            round_ = a_round(host, server, method="log")
            round_.back_up()
        finally:
            writer.kill()
            writer.wait()
    assert round_.drill({"min_rows": {"db0": 502}}).is_passed


def test_the_password_shows_nowhere(host: BackedUp, full: Redis) -> None:
    a_round(host, full)
    done, seen = watched_run(host)
    assert done.code == 0
    assert any("redis-cli" in line for line in seen)
    assert leaks(host, done, seen) == []


def test_a_wrong_password_says_so(host: BackedUp, full: Redis) -> None:
    a_round(host, full, password="wrong-one")
    assert "NOAUTH" in host.run().result["error"]
