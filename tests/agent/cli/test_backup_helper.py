"""The program that runs as root for an agent that does not: whom it hears, what it believes, and how a run ends."""

from __future__ import annotations

import os
import pwd
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backup.worker import BUSY, lock
from backup.workspace import shared_prefix
from tests.backup.helper_process import AGENT, STRANGER, asked, helper_argv, say
from tests.backup.hosts import REPOSITORY, BackedUp, command_job, running
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import run, wait_until
from tests.servers.redis import Redis

ASLEEP = 5_000_000 + os.getpid()

pytestmark = pytest.mark.root("the helper is root's")


@pytest.fixture
def host(host: BackedUp) -> BackedUp:
    host.job()
    return host


@pytest.mark.parametrize("user", [AGENT, None], ids=["the agent", "root"])
def test_a_job_is_run_and_told_and_its_end_is_the_last_line(host: BackedUp, user: str | None) -> None:
    events, code = say(host, b"run job\n", user)
    assert code == 0
    assert events[-1] == {"event": "exit", "code": 0}
    assert (events[-2]["event"], events[-2]["status"], events[-2]["is_slot_done"]) == ("result", "ok", True)
    assert [made.job for made in host.manifests()] == ["job"]


LONG = b"run " + b"a" * 200


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        pytest.param(b"run nosuch\n", "nosuch: no such job in", id="no such job"),
        pytest.param(b"run ../x\n", "'../x' is no name of a job", id="a path upwards"),
        pytest.param(b"run /etc/passwd\n", "is no name of a job", id="a path"),
        pytest.param(b"run job.yaml\n", "is no name of a job", id="a file"),
        pytest.param(b"run Job\n", "is no name of a job", id="capitals"),
        pytest.param(b"run job\r\n", "is no name of a job", id="a line break of another kind"),
        pytest.param(b"run  job\n", "is no name of a job", id="two spaces"),
        pytest.param(b"run job --state-dir=/tmp\n", "is no name of a job", id="options"),
        pytest.param(b"run " + b"a" * 33 + b"\n", "is no name of a job", id="a name too long"),
        pytest.param(b"run \n", "'' is no name of a job", id="no name"),
        pytest.param(b"run j\xc3\xb6b\n", "is no name of a job", id="another alphabet"),
        pytest.param(b"\n", "'' is no request", id="nothing"),
        pytest.param(b"restore job\n", "'restore' is no request", id="another verb"),
        pytest.param(b"\0\0\0\0\n", "is no request", id="noise"),
        pytest.param(b"run job\nrun job\n", "more than one request", id="two requests"),
        pytest.param(LONG, "longer than", id="a line too long"),
        pytest.param(LONG + b"\n", "longer than", id="a line too long that ends"),
    ],
)
def test_what_is_no_request_gets_one_clear_answer(host: BackedUp, request_: bytes, said: str) -> None:
    events, code = say(host, request_, AGENT)
    assert [event["event"] for event in events] == ["result", "exit"]
    assert (events[0]["status"], events[0]["is_slot_done"]) == ("fail", False)
    assert said in events[0]["error"]
    assert (events[1]["code"], code) == (2, 2)
    assert host.stored() == []


def test_half_a_request_is_told_so(host: BackedUp) -> None:
    import socket

    with asked(host, b"run jo", AGENT) as one:
        one.mine.shutdown(socket.SHUT_WR)
        assert "no line break" in one.hear()[0]["error"]


def test_nobody_else_is_heard(host: BackedUp) -> None:
    events, code = say(host, b"run job\n", STRANGER)
    uid = pwd.getpwnam(STRANGER).pw_uid
    assert f"user {uid} may not have jobs run" in events[0]["error"]
    assert code == 2
    assert host.stored() == []


def test_somebody_who_closes_only_the_half_that_he_writes_to_still_gets_the_run(host: BackedUp) -> None:
    import socket

    with asked(host, b"run job\n", AGENT) as one:
        one.mine.shutdown(socket.SHUT_WR)
        assert one.hear()[-1] == {"event": "exit", "code": 0}


def _asleep(host: BackedUp) -> str:
    text = f"sleep {ASLEEP}"
    command_job(host, f"echo begun; exec {text}")
    return text


def test_somebody_who_goes_away_ends_the_run(host: BackedUp) -> None:
    text = _asleep(host)
    with asked(host, b"run job\n", AGENT) as one:
        wait_until(lambda: running(text), "the dump to hang")
        one.mine.close()
        one.process.wait(60)
        assert not running(text)
    assert host.stored() == []


def test_anything_after_the_request_ends_the_run_in_good_order(host: BackedUp) -> None:
    text = _asleep(host)
    with asked(host, b"run job\n", AGENT) as one:
        wait_until(lambda: running(text), "the dump to hang")
        one.mine.sendall(b"run job\n")
        events = one.hear()
    assert not running(text)
    assert (events[-2]["status"], events[-1]["code"]) == ("fail", 1)
    assert "ended by SIGTERM" in events[-2]["error"]


def test_a_job_that_runs_already_is_busy(host: BackedUp) -> None:
    with lock(str(host.directory / "state"), "job") as is_ours:
        assert is_ours
        events, code = say(host, b"run job\n", AGENT)
    assert (events[-2]["status"], code) == ("busy", BUSY)


def test_a_wrong_job_is_said_with_its_file_and_line(host: BackedUp) -> None:
    file = host.directory / "backup.d" / "job.yaml"
    file.write_text("source: {files: {paths: [/etc]}}\ntargets: {disk: {type: local, pth: /srv}}\n")
    events, code = say(host, b"run job\n", AGENT)
    assert f"{file}:2:" in events[0]["error"]
    assert "did you mean 'path'" in events[0]["error"]
    assert code == 2


def _linked(host: BackedUp, file: Path) -> None:
    file.rename(host.directory / "elsewhere.yaml")
    file.symlink_to(host.directory / "elsewhere.yaml")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda host, file: os.chown(file, 1, -1), "owned by user 1", id="another owner"),
        pytest.param(lambda host, file: file.chmod(0o660), "others can write to it", id="a group that can write"),
        pytest.param(lambda host, file: file.chmod(0o606), "others can write to it", id="everybody can write"),
        pytest.param(_linked, "is a link; put the file itself there", id="a link"),
        pytest.param(lambda host, file: file.parent.chmod(0o777), "backup.d: others can write", id="the directory"),
        pytest.param(lambda host, file: os.chown(file.parent, 1, -1), "backup.d: owned by user 1", id="its owner"),
        pytest.param(lambda host, file: os.chown(host.directory, 1, -1), "owned by user 1", id="the one above"),
    ],
)  # fmt: skip
def test_a_job_that_somebody_else_could_have_written_is_not_run(host: BackedUp, spoil: object, said: str) -> None:
    spoil(host, host.directory / "backup.d" / "job.yaml")  # type: ignore[operator]
    events, code = say(host, b"run job\n", AGENT)
    assert said in events[0]["error"]
    assert code == 2
    assert host.stored() == []


def test_a_wrong_job_is_no_other_jobs_concern(host: BackedUp) -> None:
    (host.directory / "backup.d" / "other.yaml").write_text("nonsense: [\n")
    assert say(host, b"run job\n", AGENT)[1] == 0


def test_of_the_agents_configuration_only_the_name_of_the_host_matters(host: BackedUp) -> None:
    with asked(host, b"", AGENT) as one:
        (host.directory / "vigilhost.yaml").write_text(
            "hostname: web7\nsinks: {influxdb: {url: http://127.0.0.1:1, token: {credential: influx}}}\nnonsense: 1\n"
        )
        one.mine.sendall(b"run job\n")
        assert one.hear()[-1] == {"event": "exit", "code": 0}
    assert all(name.startswith("web7/job/") for name in host.stored())
    assert host.stored() != []


def test_the_programs_of_a_job_run_as_its_user(host: BackedUp) -> None:
    host.job(source={"command": {"argv": ["/usr/bin/id"]}}, user=STRANGER)
    assert say(host, b"run job\n", AGENT)[1] == 0
    (stored,) = (name for name in host.stored() if name.endswith(".zst"))
    plain = subprocess.run(["zstd", "-dc", host.store / stored], capture_output=True, text=True, check=True).stdout
    found = pwd.getpwnam(STRANGER)
    assert plain.startswith(f"uid={found.pw_uid}({STRANGER}) gid={found.pw_gid}")
    assert "root" not in plain


def test_a_helper_that_is_killed_leaves_nothing_and_says_nothing(host: BackedUp) -> None:
    text = _asleep(host)
    with asked(host, b"run job\n", AGENT) as one:
        wait_until(lambda: running(text), "the dump to hang")
        one.process.send_signal(signal.SIGKILL)
        events = one.hear()
        wait_until(lambda: not running(text), "the dump to end")
    assert "exit" not in [event["event"] for event in events]


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}], ids=["none", "another's"])
def test_without_a_connection_it_says_what_starts_it(host: BackedUp, environment: dict[str, str]) -> None:
    done = subprocess.run(
        helper_argv(host), env={"PYTHONPATH": str(REPOSITORY), **environment}, capture_output=True, text=True,
        check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 2
    assert "vigilhost-backup.socket" in done.stderr


# With no more of root's rights than its unit leaves it.


def _as_its_unit_has_it() -> list[str]:
    unit = (REPOSITORY / "systemd" / "vigilhost-backup@.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    kept = [f"+{name.removeprefix('CAP_').lower()}" for name in line.partition("=")[2].split()]
    return ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set={','.join(['-all', *kept])}", "--"]


def say_shut_in(host: BackedUp, request: bytes) -> list[dict[str, Any]]:
    with asked(host, request, AGENT, _as_its_unit_has_it()) as one:
        return one.hear()


def test_what_only_root_and_its_owner_can_read_is_backed_up(host: BackedUp) -> None:
    private = host.source / "private"
    private.mkdir(mode=0o700)
    (private / "key").write_text("of somebody")
    (private / "key").chmod(0o400)
    for path in (private / "key", private, host.source):
        os.chown(path, 1, 1)
    events = say_shut_in(host, b"run job\n")
    assert (events[-2]["status"], events[-1]["code"]) == ("ok", 0), events[-2]


def test_it_cannot_write_where_root_could(host: BackedUp) -> None:
    """The destination is somebody's who let root in by being root's prey."""
    os.chown(host.store, 1, 1)
    events = say_shut_in(host, b"run job\n")
    assert "owned by user 1; it must belong to root" in events[-2]["error"]
    tried = subprocess.run([*_as_its_unit_has_it(), "touch", host.store / "x"], capture_output=True, check=False)
    assert tried.returncode != 0
    assert not (host.store / "x").exists()


def test_a_jobs_user_gets_a_directory_that_goes_whatever_was_made_in_it(host: BackedUp) -> None:
    """PostgreSQL's programs leave directories that only their user can enter."""
    path = host.source / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t AS SELECT 1 AS x")
        database.commit()
    host.job(source={"sqlite": {"paths": [str(path)]}}, user=STRANGER)
    prefix = shared_prefix(str(host.directory / "state"), "job")
    made = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    (made / "of" / "a" / "killed").mkdir(parents=True, mode=0o700)
    for each in (made / "of" / "a" / "killed", made / "of" / "a", made / "of", made):
        os.chown(each, pwd.getpwnam(STRANGER).pw_uid, -1)
    events = say_shut_in(host, b"run job\n")
    assert events[-2]["status"] == "ok", events[-2]
    assert [name for name in os.listdir("/var/tmp") if name.startswith(prefix)] == []


def test_a_program_of_the_jobs_user_is_ended_at_the_deadline(host: BackedUp) -> None:
    host.job(source={"command": {"argv": ["/usr/bin/sleep", str(ASLEEP)]}}, user=STRANGER, limits={"deadline": "1s"})
    events = say_shut_in(host, b"run job\n")
    assert "did not end within 1 s" in events[-2]["error"]
    assert not running(f"/usr/bin/sleep {ASLEEP}")


def test_a_drill_gives_up_what_is_left(host: BackedUp) -> None:
    path = str(host.source / "file").lstrip("/")
    host.job(drill={"assertions": [{"file_exists": [path]}]})
    assert say_shut_in(host, b"run job\n")[-1]["code"] == 0
    events = say_shut_in(host, b"drill job\n")
    assert (events[-2]["status"], events[-2]["passed"]) == ("ok", True), events[-2]
    assert (host.directory / "state" / "backup-drills").is_dir()


@pytest.mark.server("redis")
def test_a_job_with_a_user_is_verified_with_that_users_programs(host: BackedUp, redis: Redis) -> None:
    redis.cli("SET", "greeting", "hello")
    host.job(source={"redis": {"port": redis.port, "password": redis.password or None}}, user=STRANGER)
    events = say_shut_in(host, b"run job\n")
    assert (events[-2]["status"], events[-2]["level"]) == ("ok", 2), events[-2]


@pytest.mark.parametrize("compact", [False, True])
def test_a_database_with_a_log_that_nobody_has_open_is_copied_as_it_lies(host: BackedUp, compact: bool) -> None:
    """SQLite makes the log's files even to read, in a directory in which this root cannot."""
    path = host.source / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE t AS SELECT 42 AS x")
        database.commit()
    assert sorted(os.listdir(host.source)) == ["app.db", "file"]
    os.chown(host.source, 1, 1)
    os.chown(path, 1, 1)
    host.job(source={"sqlite": {"paths": [str(path)], "compact": compact}})
    events = say_shut_in(host, b"run job\n")
    assert (events[-2]["status"], events[-2]["error"], events[-2]["level"]) == ("ok", None, 2)
    assert host.manifests()[0].archives[0].row_estimates == {"t": 1}
    assert sorted(os.listdir(host.source)) == ["app.db", "file"]


class PeersOnly(PostgreSQL):
    """Lets in by the socket alone, and each user of the host only as the role of that name: Debian's way."""

    def prepare(self) -> None:
        super().prepare()
        rules = self.data_dir / "hba.conf"
        rules.write_text("local all all peer\n")
        rules.chmod(0o644)
        self.settings["hba_file"] = str(rules)

    def ready(self) -> bool:
        return run("psql", "-XAtqc", "SELECT 1", "-d", self.socket_dsn, user=self.user).strip() == "1"


@pytest.mark.server("postgresql")
def test_a_database_that_asks_who_is_there_is_dumped_by_its_own_user(host: BackedUp) -> None:
    with PeersOnly() as server:
        source = {"postgresql": {"server": str(server.socket_dir), "port": server.port}}
        host.job(source=source)
        assert 'Peer authentication failed for user "postgres"' in say_shut_in(host, b"run job\n")[-2]["error"]
        drill = {"assertions": [{"sql": "SELECT current_user = 'postgres'"}]}
        host.job(source=source, user="postgres", drill=drill)
        for verb in (b"run", b"drill"):
            told = say_shut_in(host, verb + b" job\n")[-2]
            assert (told["status"], told["error"]) == ("ok", None)
    assert host.manifests()[0].drilled_at is not None
