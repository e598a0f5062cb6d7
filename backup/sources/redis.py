"""Redis: a snapshot as a replica gets it, or the files of its append-only log.

A snapshot put back under a server that keeps an append-only log is not read: it starts empty. What we restore is
therefore brought up once without the log, which is then turned on, so that either kind of server finds everything.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from agent.core.options import option
from agent.core.secrets import Secret
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Step
from backup.errors import BackupError, Damaged, Refused, SourceFailed
from backup.extract import RECIPE, copy, extract, fresh
from backup.source import Facts, Restored, Stream, Work
from backup.sources.files import tar_step
from backup.sources.scratch import Undo, cleaning_up, give, private_directory, server

SNAPSHOT = "dump"
LOG = "appendonly"
_LEAST_SNAPSHOT = 18  # bytes: the magic, the end mark and the checksum of one without keys
_REWRITE_S = 600.0
_POLL_S = 0.1
_COPIES = 3  # of a log that is written to meanwhile, until one is whole
_DATABASE = re.compile(r"db(\d+)")
_KEYSPACE = re.compile(r"db(\d+):keys=(\d+)")
_COUNT = re.compile(r'SELECT count\(\*\) FROM "([^"]*)"')
_LOOK = frozenset({"look"})
_SETTING = "auto-aof-rewrite-percentage"


@dataclass(slots=True)
class Redis:
    """Backs up a Redis server, its keys as a snapshot or the files of its append-only log (Redis 7).

    Restores to a data directory. A drill starts a server of its own; in assertions `sql` is a command (`DBSIZE`, `GET
    greeting`) and tables are `db0`, `db1`, ...
    """

    server: str = option("127.0.0.1", "Name or address of the server.")
    port: int = option(6379, "Port of the server.", minimum=1, maximum=65535)
    socket: str = option("", "Socket of the server; instead of its address.", example="/run/redis/redis.sock")
    user: str = option("", "User of the server's access list; empty: the default one.")
    password: Secret | None = option(None, "Its password; null: none is asked for.")
    method: Literal["snapshot", "log"] = option(
        "snapshot", "What is copied: a snapshot, or the append-only log, whose directory must be here."
    )
    job: str = ""
    host: str = ""  # ours, not the server's

    drills_apart: ClassVar[bool] = True

    def describe(self, work: Work) -> Facts:
        found = self._info(work, "server")
        role = self._info(work, "replication").get("role", "")
        cli = work.run("redis-cli", "--version").decode("utf-8", "replace").split()
        if self.method == "log" and self._info(work, "persistence").get("aof_enabled") != "1":
            raise SourceFailed("the server keeps no append-only log; use method: snapshot, or set appendonly yes")
        return Facts({"redis": found.get("redis_version", ""), "redis-cli": cli[1] if len(cli) > 1 else ""},
                     {"role": role, "server": self.socket or f"{self.server}:{self.port}"})  # fmt: skip

    def streams(self, work: Work) -> Iterator[Stream]:
        rows = {f"db{number}": int(keys) for number, keys in self._keys(work)}
        yield from self._snapshot(work, rows) if self.method == "snapshot" else self._log(work, rows)

    def _snapshot(self, work: Work, rows: Mapping[str, int]) -> Iterator[Stream]:
        with private_directory(work, "snapshot") as directory:
            file = os.path.join(directory, "dump.rdb")
            # To a file and not to a pipe: a server that is away leaves nothing at all in a pipe, without an error.
            work.run(*self._client("--rdb", file), environment=self._login())
            _check_snapshot(file, work, SourceFailed)
            yield Stream(SNAPSHOT, "rdb", (Step(("cat", file), user=work.user),), rows, least_bytes=_LEAST_SNAPSHOT)

    def _log(self, work: Work, rows: Mapping[str, int]) -> Iterator[Stream]:
        with private_directory(work, "log") as directory:
            self._copy_log(directory, work)
            yield Stream(LOG, "tar", (tar_step(directory, iter(["."]), user=work.user),), rows)

    def _copy_log(self, to: str, work: Work) -> None:
        """Copy the log's files while no rewrite replaces them."""
        data, name = self._setting("dir", work), self._setting("appenddirname", work)
        source = os.path.join(data, name)
        for _ in range(_COPIES):
            with self._without_rewrites(work):
                work.run("cp", "--archive", "--reflink=auto", "--", source, to)
            try:
                _check_log(os.path.join(to, name), work)
                return
            except Damaged as error:
                # The last command may have been half written at that moment.
                problem = error
                work.run("rm", "--recursive", "--", os.path.join(to, name))
        raise SourceFailed(f"{source}: no copy of {_COPIES} is whole: {problem}")

    @contextmanager
    def _without_rewrites(self, work: Work) -> Iterator[None]:
        entry = {"redis": _SETTING, "value": self._setting(_SETTING, work)}
        undo = Undo(work)
        undo.add(entry)
        try:
            self._ask(work, "CONFIG", "SET", _SETTING, "0")
            self._await_rewrite(work)
            yield
        finally:
            with cleaning_up(work, "redis") as cleanup:
                self._ask(cleanup, "CONFIG", "SET", _SETTING, str(entry["value"]))
            undo.done(entry)

    def _await_rewrite(self, work: Work) -> None:
        for _ in range(round(_REWRITE_S / _POLL_S)):
            found = self._info(work, "persistence")
            if found.get("aof_rewrite_in_progress") == "0" and found.get("aof_rewrite_scheduled") == "0":
                return
            work.guard.wait(_POLL_S)
        raise SourceFailed(f"the server has been rewriting its log for {_REWRITE_S:g} s; try again later")

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        with private_directory(work, "check") as directory:
            self._unpack(name, plain, directory, work, _LOOK)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Make the data directory `to`: a server started on it has the keys, with or without an append-only log.

        `allow`: `force` moves a directory that is there aside.
        """
        warnings = [f"give it to the server's user before you start the server: chown -R redis: {to}"]
        with fresh(to, force="force" in allow) as staging:
            self._unpack(name, plain, staging, work)
            if name == SNAPSHOT:
                try:
                    with _own_server(staging, work) as ask:
                        _turn_on_log(ask, work)
                except SourceFailed as error:
                    warnings.append(f"{error}; start the server with appendonly no, then CONFIG SET appendonly yes: "
                                    "with yes from the start it would be empty")  # fmt: skip
        return Restored(1, warnings=tuple(warnings))

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        with private_directory(work, "drill") as directory:
            self._unpack(name, plain, directory, work, _LOOK)
            with _own_server(directory, work, has_log=name == LOG) as ask:
                return [
                    Outcome("a server starts with it", is_met=True),
                    *judge_all(assertions, query=lambda said: _answer(said, ask), estimates=estimates),
                ]

    def _unpack(self, name: str, plain: int, directory: str, work: Work, allow: frozenset[str] = frozenset()) -> None:
        """Write an archive's files to a directory, for the job's user. Raise Damaged."""
        if name == SNAPSHOT:
            file = os.path.join(directory, "dump.rdb")
            copy(plain, file)
            give(file, work)
            give(directory, work)
            _check_snapshot(file, work, Damaged)
            return
        done = extract(plain, directory, guard=work.guard, allow=allow)
        if done.refused:
            raise Damaged(f"the log holds what it should not: {done.refused[0]}")
        for path, directories, files in os.walk(directory):
            for each in (path, *(os.path.join(path, one) for one in (*directories, *files))):
                give(each, work)
        for found in os.listdir(directory):
            _check_log(os.path.join(directory, found), work)

    def sweep(self, work: Work) -> list[str]:
        undone = []
        undo = Undo(work)
        for entry in undo.entries():
            if "redis" in entry:
                self._ask(work, "CONFIG", "SET", str(entry["redis"]), str(entry["value"]))
                undo.done(entry)
                undone.append(f"{entry['redis']} set to {entry['value']} again")
        return undone

    def recipe(self, name: str) -> str:
        if name == LOG:
            return f"{RECIPE}  # the server's data directory, the server stopped"
        return "cat > dump.rdb  # into the data directory; start with appendonly no, then CONFIG SET appendonly yes"

    # The server.

    def _client(self, *words: str) -> list[str]:
        where = ["-s", self.socket] if self.socket else ["-h", self.server, "-p", str(self.port)]
        return ["redis-cli", *where, *(["--user", self.user] if self.user else []), *words]

    def _login(self) -> dict[str, str]:
        return {} if self.password is None else {"REDISCLI_AUTH": self.password.reveal()}

    def _ask(self, work: Work, *command: str) -> str:
        return work.run(*self._client("-e", *command), environment=self._login()).decode("utf-8", "replace").strip()

    def _setting(self, name: str, work: Work) -> str:
        said = self._ask(work, "CONFIG", "GET", name).split("\n")
        if len(said) != 2:
            raise SourceFailed(f"redis: CONFIG GET {name} gives nothing; method: log takes Redis 7 or later")
        return said[1].strip()

    def _info(self, work: Work, section: str) -> dict[str, str]:
        lines = self._ask(work, "INFO", section).splitlines()
        return {name: value.strip() for name, mark, value in (line.partition(":") for line in lines) if mark}

    def _keys(self, work: Work) -> list[tuple[str, str]]:
        return _KEYSPACE.findall(self._ask(work, "INFO", "keyspace"))


def _check_snapshot(file: str, work: Work, kind: type[BackupError]) -> None:
    if os.path.getsize(file) < _LEAST_SNAPSHOT:
        raise kind(f"a snapshot of {os.path.getsize(file)} bytes is none")
    work.run("redis-check-rdb", file, kind=kind)


def _check_log(directory: str, work: Work) -> None:
    """Raise Damaged unless a log's directory is one that a server would load whole."""
    manifests = [name for name in os.listdir(directory) if name.endswith(".manifest")]
    if len(manifests) != 1:
        raise Damaged(f"a log with {len(manifests)} manifests is none")
    work.run("redis-check-aof", os.path.join(directory, manifests[0]), kind=Damaged)


_Ask = Callable[..., str]


@contextmanager
def _own_server(directory: str, work: Work, *, has_log: bool = False) -> Iterator[_Ask]:
    """A Redis on a data directory, reached by a socket alone. Raise BackupError."""
    with private_directory(work, "socket") as place:
        socket = os.path.join(place, "s")
        log = []
        if has_log:
            (name,) = os.listdir(directory)
            manifest = next(one for one in os.listdir(os.path.join(directory, name)) if one.endswith(".manifest"))
            log = ["--appenddirname", name, "--appendfilename", manifest.removesuffix(".manifest")]
        run = Step(("redis-server", "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700",
                    "--dir", directory, "--dbfilename", "dump.rdb", "--save", "", "--daemonize", "no",
                    "--appendonly", "yes" if has_log else "no", *log), user=work.user)  # fmt: skip

        def ask(*command: str, using: Work = work) -> str:
            said = using.run("redis-cli", "-s", socket, "-e", *command, kind=BackupError)
            return said.decode("utf-8", "replace").rstrip("\n")

        def is_ready() -> None:
            ask("DBSIZE")  # PING answers while it still loads

        with server(run, work, is_ready, lambda cleanup: ask("SHUTDOWN", "NOSAVE", using=cleanup)):
            yield ask


def _turn_on_log(ask: _Ask, work: Work) -> None:
    """Have a server write all it has to an append-only log. Raise BackupError."""
    ask("CONFIG", "SET", "appendonly", "yes")
    for _ in range(round(_REWRITE_S / _POLL_S)):
        found = dict(line.split(":", 1) for line in ask("INFO", "persistence").split() if ":" in line)
        if found["aof_rewrite_in_progress"] == "0" and found["aof_rewrite_scheduled"] == "0":
            if found["aof_last_bgrewrite_status"] != "ok":
                raise BackupError("redis-server: could not write its append-only log")
            return
        work.guard.wait(_POLL_S)
    raise BackupError(f"redis-server: did not write its append-only log within {_REWRITE_S:g} s")


def _answer(said: str, ask: _Ask) -> str | None:
    """What a server answers to an assertion: a command, or the count of a database's keys. Raise Refused."""
    count = _COUNT.fullmatch(said)
    if count is not None:
        database = _DATABASE.fullmatch(count[1])
        if database is None:
            raise Refused(f"{count[1]}: is no database of Redis; write db0")
        return ask("-n", database[1], "DBSIZE")
    if said.startswith("SELECT max("):
        raise Refused("redis keeps no time of its keys; assert sql with a command, like GET last_seen")
    try:
        words = shlex.split(said)
    except ValueError as error:
        raise Refused(f"{said[:60]!r}: {error}") from error
    return ask(*words) or None
