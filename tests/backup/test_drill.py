"""What a drill finds out, and when it has found out nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup.assertions import Assertion, Outcome
from backup.drill import drill
from backup.errors import Damaged, Refused
from backup.manifest import Manifest
from backup.source import Restored, Work
from backup.sources.sqlite import SQLite
from tests.backup.hosts import BackedUp, built_source
from tests.servers.programs import need


@dataclass(slots=True)
class Scripted(SQLite):
    """Archives of SQLite; the drill of some ends as told here."""

    ends: Mapping[str, Exception] = field(default_factory=dict)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        if name in self.ends:
            raise self.ends[name]
        return [Outcome("is there", is_met=True)]

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        raise AssertionError("a drill restores by itself")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/tmp/drill.db")


@pytest.fixture
def host(tmp_path: Path) -> BackedUp:
    need("zstd", "setpriv")
    found = BackedUp(tmp_path)
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(found.source / name)) as database:
            database.execute("CREATE TABLE t (x)")
    found.job(source={"sqlite": {"paths": [str(found.source / name) for name in ("a.db", "b.db")]}})
    return found


@pytest.mark.parametrize("first", [Refused("the key is another's"), FULL], ids=["refused", "a full disk"])
def test_what_is_damaged_is_told_before_what_could_not_be_drilled(host: BackedUp, first: Exception) -> None:
    (made,) = backed_up(host)
    source = Scripted(["/a.db", "/b.db"], ends={"a.db": first, "b.db": Damaged("is no database")})
    evidence = drill(made, host.target(), source, host.work(), [], now=time.time())
    assert not evidence.is_passed
    assert [one.found for one in evidence.archives["b.db"]] == ["is no database"]
    assert evidence.error is not None
    assert evidence.error.startswith("a.db: ")


@pytest.mark.parametrize(
    ("how", "said"),
    [(Refused("the key is another's"), "a.db: the key is another's"),
     (FULL, "a.db: /var/tmp/drill.db: no space left on device")],
    ids=["refused", "a full disk"],
)  # fmt: skip
def test_what_could_not_be_drilled_is_no_failed_drill(host: BackedUp, how: Exception, said: str) -> None:
    (made,) = backed_up(host)
    source = Scripted(["/a.db", "/b.db"], ends={"a.db": how})
    with pytest.raises(Refused) as refused:
        drill(made, host.target(), source, host.work(), [], now=time.time())
    assert str(refused.value) == said


def test_a_refusal_is_told_whatever_the_decoder_makes_of_its_end(host: BackedUp) -> None:
    """Who refuses reads nothing, so zstd writes into a pipe that nobody holds any more."""
    (host.source / "a.db").write_bytes(os.urandom(4 << 20))
    job = host.job(source={"command": {"argv": ["/bin/cat", str(host.source / "a.db")]}})
    (made,) = backed_up(host)
    with pytest.raises(Refused, match="drill_argv: is not set"):
        drill(made, host.target(), built_source(job), host.work(), [], now=time.time())


def test_a_target_that_is_away_is_no_failed_drill_and_an_archive_that_is_gone_is_one(host: BackedUp) -> None:
    (made,) = backed_up(host)
    source, target = Scripted(["/a.db", "/b.db"]), host.target()
    host.store.rename(host.directory / "unplugged")
    host.store.mkdir()
    with pytest.raises(Refused, match=r"^a\.db: .*no such file"):
        drill(made, target, source, host.work(), [], now=time.time())
    host.store.rmdir()
    (host.directory / "unplugged").rename(host.store)
    (host.store / made.archive("a.db").stored).unlink()
    evidence = drill(made, target, source, host.work(), [], now=time.time())
    assert [one.is_met for one in evidence.archives["a.db"]] == [False]


def backed_up(host: BackedUp) -> list[Manifest]:
    assert host.run().code == 0
    return host.manifests()
