"""Sources: files, SQLite databases, programs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.core.secrets import Secret
from backup.assertions import Assertion
from backup.drill import drill, drilled
from backup.errors import Refused, SourceFailed
from backup.restore import parts, restore
from backup.sources.command import Command
from backup.sources.files import Files, topmost
from backup.sources.sqlite import SQLite
from tests.backup.hosts import BackedUp, built_source, command_job, script, tree
from tests.backup.sources.round import Round

ALL = {"a", "a/x.tmp", "cache", "cache/y", "-odd name\n"}


def names_in(host: BackedUp, to: Path) -> set[str]:
    """What a backup of the job brings back, as paths below the source."""
    job = host.job_now
    (made,) = host.manifests()[-1:]
    restore(parts(made, str(to)), host.target(), built_source(job), host.work(), allow=frozenset({"links"}))
    root = to / str(host.source).lstrip("/")
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, ALL, id="everything"),
        pytest.param({"exclude": ["*.tmp"]}, {"a", "cache", "cache/y", "-odd name\n"}, id="without a kind of name"),
        pytest.param({"exclude": ["SOURCE/cache"]}, {"a", "a/x.tmp", "-odd name\n"}, id="without a path"),
        pytest.param({"exclude": ["/cache"]}, ALL, id="not one that only ends so"),
        pytest.param({"paths": ["SOURCE/a", "SOURCE/-odd name\n"]}, ALL - {"cache", "cache/y"}, id="only some paths"),
    ],
)  # fmt: skip
def test_files_are_taken_by_paths_and_excludes(
    host: BackedUp, tmp_path: Path, options: dict[str, list[str]], expected: set[str]
) -> None:
    for directory, name in (("a", "x.tmp"), ("cache", "y")):
        (host.source / directory).mkdir()
        (host.source / directory / name).touch()
    (host.source / "-odd name\n").touch()
    given = {key: [one.replace("SOURCE", str(host.source)) for one in value] for key, value in options.items()}
    host.job_now = host.job(source={"files": {"paths": [str(host.source)], **given}})
    assert host.run().result["status"] == "ok"
    assert names_in(host, tmp_path / "to") == expected


def test_a_path_inside_another_is_in_the_backup_once(host: BackedUp, tmp_path: Path) -> None:
    (host.source / "inner").mkdir()
    (host.source / "inner" / "file").write_text("x")
    before = tree(host.source)
    round_ = Round(host, host.job(source={"files": {"paths": [str(host.source), f"{host.source}/inner"]}}))
    round_.back_up()
    (restored,) = round_.restore(str(tmp_path / "again"))
    assert not restored.refused
    assert tree(tmp_path / "again" / str(host.source).lstrip("/")) == before


def test_what_tar_does_not_come_to_by_itself_is_named_to_it(tmp_path: Path) -> None:
    (tmp_path / "there" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("there")
    there, link = str(tmp_path / "there"), str(tmp_path / "link")
    assert topmost([f"{there}/in", there, f"{there}/"]) == [there]
    assert topmost([link, f"{link}/in"]) == [link, f"{link}/in"]
    assert topmost([there, f"{there}s"]) == [there, f"{there}s"]
    assert topmost(["/", "/proc", "/etc"]) == ["/"]
    assert topmost(["/", "/proc", "/etc"], one_file_system=True) == ["/", "/proc"]


def test_an_archive_of_links_that_lead_out_comes_back_when_trusted(host: BackedUp, tmp_path: Path) -> None:
    (host.source / "localtime").symlink_to("/usr/share/zoneinfo/UTC")
    job = host.job()
    host.run()
    (made,) = host.manifests()
    (done,) = restore(parts(made, str(tmp_path / "to")), host.target(), built_source(job), host.work())
    assert "links outside" in done.refused[0]
    host.job_now = job
    assert names_in(host, tmp_path / "trusted") == {"localtime"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Files([]), "paths: is empty"),
        (lambda: SQLite([]), "paths: names at least one"),
        (lambda: SQLite(["/a/x.db", "/b/x.db"]), "no two of the same name"),
        (lambda: Command(["dump"]), "absolute path"),
        (lambda: Command(["/bin/true"], check_argv=["true"]), "check_argv: begins with"),
    ],
)
def test_options_that_do_not_go_together(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


# SQLite


def database(path: Path, rows: int = 3) -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = wal")
        made.execute("CREATE TABLE users (name, seen)")
        made.executemany("INSERT INTO users VALUES (?, datetime('now'))", [(f"user {n}",) for n in range(rows)])
        made.commit()
    return path


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as found:
        return found.execute("SELECT name FROM users ORDER BY name").fetchall()


@pytest.mark.parametrize("compact", [False, True])
def test_a_sqlite_database_in_use_comes_back(host: BackedUp, tmp_path: Path, compact: bool) -> None:
    path = database(host.source / "app.db", 1000)
    job = host.job(source={"sqlite": {"paths": [str(path)], "compact": compact}})
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO users VALUES ('not committed', 0)")
        assert host.run().result["status"] == "ok"
        writer.execute("ROLLBACK")
    (made,) = host.manifests()
    assert made.archives[0].row_estimates == {"users": 1000}
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "app.db.restoring").write_bytes(b"of a restore that was killed")
    restore(parts(made, str(tmp_path / "to")), host.target(), built_source(job), host.work())
    assert rows_of(tmp_path / "to" / "app.db") == rows_of(path)
    assert os.listdir(tmp_path / "to") == ["app.db"]


def test_a_restore_over_a_database_needs_force_and_moves_it_aside_with_its_log(host: BackedUp) -> None:
    path = database(host.source / "app.db")
    job = host.job(source={"sqlite": {"paths": [str(path)]}})
    host.run()
    (made,) = host.manifests()
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("DELETE FROM users")
        writer.commit()
        assert os.path.exists(f"{path}-wal")
        with pytest.raises(Refused, match="--force"):
            restore(parts(made, str(path)), host.target(), built_source(job), host.work())
        restore(parts(made, str(path)), host.target(), built_source(job), host.work(), allow=frozenset({"force"}))
        assert not os.path.exists(f"{path}-wal")
        (aside,) = (one for one in path.parent.glob("app.db.before-*") if not one.name.endswith(("-wal", "-shm")))
        assert rows_of(aside) == []
    assert len(rows_of(path)) == 3


def test_a_database_that_is_missing_or_none_is_an_error_and_stays_missing(host: BackedUp) -> None:
    gone = host.source / "gone.db"
    host.job(source={"sqlite": {"paths": [str(gone)]}})
    assert "no such file" in host.run().result["error"]
    assert not gone.exists()
    gone.write_text("hello " * 1000)
    assert "not a database" in host.run().result["error"]
    assert host.stored() == []


# Drills


def drill_of(host: BackedUp, job: Any, *assertions: Assertion) -> Any:
    (made,) = host.manifests()[-1:]
    return drill(made, host.target(), built_source(job), host.work(), assertions, now=1.0)


def test_a_drill_proves_a_database_by_what_is_in_it(host: BackedUp) -> None:
    path = database(host.source / "app.db")
    job = host.job(source={"sqlite": {"paths": [str(path)]}})
    host.run()
    good = Assertion(sql="SELECT count(*) FROM users", equals="3", min_rows={"users": 3},
                     newest_within={"users.seen": 3600.0}, tolerance=0.0)  # fmt: skip
    passed = drill_of(host, job, good)
    assert [one.is_met for one in passed.archives["app.db"]] == [True] * 5
    assert passed.is_passed
    assert drilled(host.manifests()[0], passed).drilled_at == 1.0
    assert passed.report()["passed"] is True
    for bad in (Assertion(sql="SELECT 0"), Assertion(min_rows={"users": 4}), Assertion(min_rows={"nothing": 1}),
                Assertion(newest_within={"users.seen": -1.0}), Assertion(file_exists=["x"]),
                Assertion(archive="other.db", sql="SELECT 1")):  # fmt: skip
        failed = drill_of(host, job, bad)
        assert not failed.is_passed
        assert drilled(host.manifests()[0], failed).drilled_at is None


def test_a_drill_of_files_looks_for_them_and_leaves_nothing(host: BackedUp) -> None:
    (host.source / "etc").mkdir()
    (host.source / "etc" / "passwd").touch()
    job = host.job()
    host.run()
    inside = str(host.source).lstrip("/")
    assert drill_of(host, job, Assertion(file_exists=[f"{inside}/etc/passwd"])).is_passed
    wrong = [Assertion(file_exists=[f"{inside}/etc/shadow", "../../etc"]), Assertion(sql="SELECT 1 = 1")]
    assert [one.is_met for one in drill_of(host, job, *wrong).archives["files"]] == [True, False, False, False]
    assert os.listdir(host.work().scratch) == []


def test_a_drill_of_a_damaged_backup_fails(host: BackedUp) -> None:
    job = host.job()
    host.run()
    (made,) = host.manifests()
    (host.store / made.archives[0].stored).write_bytes(b"x")
    evidence = drill_of(host, job)
    assert not evidence.is_passed
    assert "1 bytes are stored" in evidence.archives["files"][0].found


# Programs


def test_a_program_restores_and_drills_what_a_program_dumped(host: BackedUp, tmp_path: Path) -> None:
    restorer = tmp_path / "restorer"
    restorer.write_text('#!/bin/sh\ncat > "$1"\n')
    driller = tmp_path / "driller"
    driller.write_text('#!/bin/sh\ncat > "$VIGILHOST_SCRATCH/it" && grep -q "$WANTED" "$VIGILHOST_SCRATCH/it"\n')
    for program in (restorer, driller):
        program.chmod(0o700)
    source = {"argv": script(host, "echo the whole dump"), "restore_argv": [str(restorer)],
              "drill_argv": [str(driller)], "environment": {"WANTED": "whole"}}  # fmt: skip
    job = host.job(source={"command": source})
    host.run()
    (made,) = host.manifests()
    restore(parts(made, str(tmp_path / "to")), host.target(), built_source(job), host.work())
    assert (tmp_path / "to").read_text() == "the whole dump\n"
    assert drill_of(host, job).is_passed
    job = host.job(source={"command": {**source, "environment": {"WANTED": "something else"}}})
    assert not drill_of(host, job, Assertion(file_exists=["it"])).is_passed


def test_what_is_asserted_of_a_programs_drill_is_looked_at(host: BackedUp, tmp_path: Path) -> None:
    driller = tmp_path / "driller"
    driller.write_text('#!/bin/sh\ncat > "$VIGILHOST_SCRATCH/it"\n')
    driller.chmod(0o700)
    job = host.job(source={"command": {"argv": script(host, "echo dumped"), "drill_argv": [str(driller)]}})
    host.run()
    assert drill_of(host, job, Assertion(file_exists=["it"])).is_passed
    evidence = drill_of(host, job, Assertion(file_exists=["nowhere"]), Assertion(sql="SELECT 1 = 1"))
    assert [(one.assertion, one.is_met) for one in evidence.archives["output"]] == [
        ("drill_argv exits 0", True), ("nowhere exists", False), ("SELECT 1 = 1 = true", False)
    ]  # fmt: skip
    driller.chmod(0o777)
    with pytest.raises(Refused, match="others can write to it"):
        drill_of(host, job)


def test_without_a_program_to_restore_it_becomes_a_file(host: BackedUp, tmp_path: Path) -> None:
    command_job(host, "echo dumped")
    host.run()
    (made,) = host.manifests()
    source = Command(["/bin/true"], extension="sql", environment={"X": Secret("hidden")})
    restore(parts(made, str(tmp_path / "to")), host.target(), source, host.work())
    assert (tmp_path / "to" / "output.sql").read_text() == "dumped\n"


def test_a_program_is_looked_at_before_it_is_run(host: BackedUp) -> None:
    with pytest.raises(Refused, match="no such file"):
        Command(["/nonexistent/dump"]).describe(host.work())
    with pytest.raises(SourceFailed, match="no such program"):
        host.work().run("surely-not-installed")
