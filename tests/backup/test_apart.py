"""A drill in a process without rights: what it may, what it sees, and that it ends with who asked for it."""

from __future__ import annotations

import io
import os
import pwd
import re
import socket
import sqlite3
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import pytest

from agent.core.secrets import Secret
from backup import apart
from backup.apart import Apart, behind, child, options_from
from backup.assertions import Assertion, Outcome
from backup.children import Guard
from backup.errors import BackupError, Damaged, Refused, Stopped
from backup.manifest import Archive
from backup.redact import Redactor
from backup.source import Work
from tests.backup.helper_process import Activated
from tests.backup.hosts import HOST, BackedUp, age_key
from tests.backup.made import archive
from tests.backup.sources.round import CANARY, HELPER, NOBODY, Round, outcomes, reachable, unmet
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import LOOPBACK, wait_until
from tests.servers.redis import Redis

pytestmark = pytest.mark.root("only root has rights to give up")


def _tar(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Drilling:
    """A drill that waits for the rest of its archive, which comes through a pipe."""

    def __init__(self, host: BackedUp, scratch: Path, deadline_s: float = 60.0) -> None:
        self.guard = Guard(deadline_s)
        self.work = Work(str(host.directory), self.guard, Redactor())
        self.outcomes: Sequence[Outcome] = ()
        self.took_s = 0.0
        self.error: BackupError | None = None
        read_end, self._write_end = os.pipe()
        self._apart = Apart(host.job(), HOST, partial(child, HELPER, str(scratch), NOBODY), "its standard error")
        self._file = os.fdopen(read_end, "rb", buffering=0)
        self._thread = threading.Thread(target=self._drill, args=(archive(compression="none"), self._file))
        self._thread.start()

    def _drill(self, made: Archive, file: BinaryIO) -> None:
        try:
            self.outcomes, self.took_s = self._apart.drill(made, file, self.work, [Assertion(file_exists=["a"])], None)
        except BackupError as error:
            self.error = error

    def process(self) -> psutil.Process:
        """The process, once it has given up its rights."""

        def found() -> psutil.Process | None:
            uid = pwd.getpwnam(NOBODY).pw_uid
            for one in psutil.Process().children(recursive=True):
                try:
                    if "backup-drill-helper" in one.cmdline() and one.uids().real == uid:
                        return one
                except psutil.NoSuchProcess:
                    continue
            return None

        made = wait_until(found, "the drill's process", 60)
        assert made is not None
        return made

    def finish(self, content: bytes = b"") -> None:
        with open(self._write_end, "wb") as pipe:
            pipe.write(content)
        self.wait()

    def wait(self) -> None:
        self._thread.join(60)
        self._file.close()
        assert not self._thread.is_alive()


@pytest.fixture
def scratch() -> Iterator[Path]:
    with reachable(NOBODY) as made:
        yield made


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_has_no_rights_and_nothing_open_but_the_archive(host: BackedUp, scratch: Path) -> None:
    drilling = Drilling(host, scratch)
    process = drilling.process()
    wait_until(lambda: _status(process.pid)["NoNewPrivs"] == "1", "no_new_privs")
    status = _status(process.pid)
    nobody = pwd.getpwnam(NOBODY)
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert status["Groups"] == ""
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    files = [os.readlink(f"/proc/{process.pid}/fd/{name}") for name in os.listdir(f"/proc/{process.pid}/fd")]
    assert not [name for name in files if str(host.store) in name or str(host.source) in name]
    assert process.environ().keys() <= {"PATH", "LANG", "PYTHONPATH", "LC_CTYPE"}
    drilling.finish(_tar(a=b"one"))
    assert [(one.assertion, one.is_met) for one in drilling.outcomes] == [
        ("members can be extracted", True), ("a exists", True)
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_it_ends_with_who_asked_or_is_missed(host: BackedUp, scratch: Path, how: str) -> None:
    drilling = Drilling(host, scratch)
    process = drilling.process()
    if how == "stopped":
        drilling.guard.stop("enough")
        drilling.wait()
        assert isinstance(drilling.error, Stopped)
        wait_until(lambda: not process.is_running(), "the drill's process to end")
    else:
        process.kill()
        drilling.wait()
        assert "ended without an answer; see its standard error" in str(drilling.error)


def test_a_drill_as_root_is_refused(host: BackedUp) -> None:
    as_root = Apart(host.job(), HOST, partial(child, HELPER, str(host.directory), None), "its standard error")
    with open(os.devnull, "rb") as file, pytest.raises(Refused, match="a drill does not run as root"):
        as_root.drill(archive(), file, host.work(), [], None)


def test_behind_a_socket_it_is_the_same(host: BackedUp, tmp_path: Path) -> None:
    (host.source / "file").write_text("hello\n")
    (host.source / "run-as-root").write_text("")
    (host.source / "run-as-root").chmod(0o4755)
    (host.source / "shut").mkdir()
    (host.source / "shut" / "inside").write_text("x")
    (host.source / "shut").chmod(0o000)
    recipient, key = age_key(host)
    round_ = Round(host, host.job(encryption={"recipients": [recipient]}))
    made = round_.back_up().archives[0]
    activated = Activated(tmp_path, [*HELPER, "--become", NOBODY])
    kept: list[Outcome] = []
    try:
        drilled = Apart(round_.job, HOST, partial(behind, activated.path), "the journal")
        with host.target().open(made.stored) as file:
            where = str(host.source).lstrip("/")
            paths = [f"{where}/file", f"{where}/run-as-root", f"{where}/shut/inside", "etc/shadow"]
            found, took_s = drilled.drill(made, file, round_.work(), [Assertion(file_exists=paths)], str(key))
            kept += found
    finally:
        activated.stop()
    assert [one.is_met for one in kept] == [True, True, True, True, False], kept
    assert took_s > 0
    assert not [name for name in os.listdir("/var/tmp") if name.startswith("drill-")]


def test_a_socket_that_is_away_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no such file or directory; systemctl start vigilhost-drill\.socket"), (
        behind(str(tmp_path / "gone"))
    ):  # fmt: skip
        pass


@contextmanager
def _talk(*parts: bytes, files: Sequence[int] = ()) -> Iterator[socket.socket]:
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with mine, its:
        if files:
            socket.send_fds(mine, [parts[0]], files)
        for part in parts[1 if files else 0 :]:
            mine.sendall(part)
        mine.shutdown(socket.SHUT_WR)
        yield its


@pytest.mark.parametrize(
    ("parts", "with_file", "said"),
    [
        ((b"",), False, "broke off"),
        ((b'{"source": "fil',), True, "broke off"),
        ((b"{}\n",), True, "is no task"),
        ((b"nonsense\n",), True, "is no task"),
        ((b"{}\n",), False, "no archive came"),
    ],
)
def test_what_is_no_task_is_refused(parts: tuple[bytes, ...], with_file: bool, said: str) -> None:
    with (
        open(os.devnull, "rb") as null,
        _talk(*parts, files=[null.fileno()] if with_file else []) as its,
        pytest.raises(Damaged, match=said),
    ):
        apart.receive(its)


def test_options_are_the_same_on_the_other_side_but_for_secrets(host: BackedUp) -> None:
    job = host.job(source={"redis": {"socket": "/run/redis.sock", "password": CANARY, "method": "log"}})
    assert isinstance(job.plugin.options["password"], Secret)
    told = apart._plain(job.plugin.options)
    assert CANARY not in repr(told)
    assert options_from(told, {"socket": str, "method": str, "server": str, "port": int, "user": str}) == {
        name: value for name, value in job.plugin.options.items() if name != "password"
    }
    assert options_from({"one": "a+", "some": [1.5]}, {"one": re.Pattern, "some": list[float]}) == {
        "one": re.compile("a+"), "some": [1.5]
    }  # fmt: skip
    for wrong in ({"port": "many"}, {"unknown": 1}):
        with pytest.raises(Damaged, match="not what they should be"):
            options_from(wrong, {"port": int})


# Each source that drills so, with the real programs.


def test_databases_of_sqlite(host: BackedUp) -> None:
    path = host.source / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t AS SELECT 1 AS x")
        database.commit()
    round_ = Round(host, host.job(source={"sqlite": {"paths": [str(path)]}}))
    round_.back_up()
    evidence = round_.drill_apart({"min_rows": {"t": 1}}, {"sql": "SELECT x = 2 FROM t"})
    assert list(outcomes(evidence, "app.db").values()) == [True, True, False]


@pytest.mark.server("postgresql")
def test_a_postgresql_of_its_own(host: BackedUp, postgresql: PostgreSQL) -> None:
    postgresql.sql("CREATE TABLE apart AS SELECT generate_series(1, 50) AS n")
    try:
        source: dict[str, Any] = {"server": LOOPBACK, "port": postgresql.port, "password": postgresql.password,
                                  "sslmode": "disable", "drill_on": "server", "databases": ["postgres"]}  # fmt: skip
        round_ = Round(host, host.job(source={"postgresql": source}))
        round_.back_up()
    finally:
        postgresql.sql("DROP TABLE apart")
    evidence = round_.drill_apart({"min_rows": {"apart": 50}, "sql": "SELECT current_user = 'postgres'"})
    assert evidence.is_passed, unmet(evidence)


@pytest.mark.server("mariadb")
def test_a_mariadb_of_its_own(host: BackedUp, mariadb: MariaDB) -> None:
    mariadb.sql("CREATE DATABASE apart")
    try:
        mariadb.sql("CREATE TABLE apart.t (n int); INSERT INTO apart.t VALUES (1), (2)")
        source = {"server": LOOPBACK, "port": mariadb.port, "password": mariadb.password,
                  "drill_on": "server", "databases": ["apart"]}  # fmt: skip
        round_ = Round(host, host.job(source={"mysql": source}))
        round_.back_up()
    finally:
        mariadb.sql("DROP DATABASE apart")
    evidence = round_.drill_apart({"min_rows": {"t": 2}})
    assert evidence.is_passed, unmet(evidence)


@pytest.mark.server("redis")
def test_a_redis_of_its_own(host: BackedUp, redis: Redis) -> None:
    round_ = Round(host, host.job(source={"redis": {"port": redis.port, "password": redis.password or None}}))
    round_.back_up()
    evidence = round_.drill_apart({"sql": "CONFIG GET port"})
    assert outcomes(evidence, "dump")["a server starts with it"], unmet(evidence)


def test_an_image_of_a_machine(host: BackedUp) -> None:
    image = host.source / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "2M"], check=True)
    round_ = Round(host, host.job(source={"vm_image": {"images": [str(image)]}}))
    made = round_.back_up().archives[0].name
    evidence = round_.drill_apart()
    assert outcomes(evidence, made) == {"every block can be read": True}
