"""The default rules about backups, judging what real runs publish."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.backup_board import Board
from agent.core.clock import FakeClock
from agent.promql_language import PromQL
from agent.rule_sets import default_rule_files
from agent.rules_lab import RulesLab
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.rule_files import read_rule_files
from sinks.history.naming import Names
from tests.agent.test_backup_board import Disk, published, ran
from tests.backup.hosts import BackedUp, script

HOUR, DAY = 3600.0, 86400.0
STEP_S = 6 * HOUR
NAMES = Names("node", "web1")
(FILE,) = (path for path in default_rule_files() if path.endswith("backups.yml"))


@dataclass
class Story:
    """A host, its board, and the rules that look at what the board publishes."""

    host: BackedUp
    clock: FakeClock
    disk: Disk
    board: Board
    lab: RulesLab = field(default_factory=RulesLab)

    def __post_init__(self) -> None:
        (group,) = read_rule_files([FILE], PromQL()).groups
        self._engine = Engine(self.lab, self.lab, NothingKnown())
        self._engine.load([group], self.board.now())
        (self._group,) = self._engine.groups

    def job(self, **options: Any) -> None:
        self.board.take({"job": self.host.job(**options)})

    def goes_on(self, seconds: float) -> None:
        """So much time goes by; everything is published and judged now and then."""
        ends_at = self.board.now() + seconds
        while True:
            now = self.board.now()
            samples = {
                named.labels: float(reading.values[named.place])
                for reading in self.board.readings()
                for named in NAMES.of(reading.group, reading.tags)
                if reading.values[named.place] is not None
            }
            self.lab.record("agent", round(now * 1000), samples)
            assert self._engine.evaluate(self._group, now).errors == []
            if now >= ends_at:
                return
            asyncio.run(self.clock.advance(min(STEP_S, ends_at - now)))

    def drilled(self, *, passed: bool, rto_s: float = 2.0) -> None:
        known = self.board.known("job")
        report = {"started_at": self.board.now(), "rto_s": rto_s, "backup": known.backup, "target": "store",
                  "passed": passed}  # fmt: skip
        known.was_drilled(report, "ok" if passed else "fail", None if passed else "users has no rows")
        self.board.keep("job", known)

    @property
    def firing(self) -> set[str]:
        return {state.rule.name for state, one in self._engine.alerts() if one.phase == "firing"}


@pytest.fixture
def story(host: BackedUp) -> Story:
    (host.source / "file").write_bytes(os.urandom(50_000))
    clock, disk = FakeClock(time.time()), Disk(10**12)
    return Story(host, clock, disk, Board(str(host.directory / "state"), clock, disk))


def never_ran(story: Story) -> None:
    story.job(schedule={"at": "never"})
    story.goes_on(26 * HOUR)


def fell_silent(story: Story) -> None:
    story.job(schedule="daily 03:00")
    ran(story.board, story.host)
    story.goes_on(3 * DAY)


def is_later_than_agreed(story: Story) -> None:
    story.job(schedule="daily 03:00", rpo="4h")
    ran(story.board, story.host)
    story.goes_on(7 * HOUR)


def failed(story: Story) -> None:
    story.job(schedule="daily 03:00", source={"command": {"argv": script(story.host, "echo partial; exit 1")}})
    assert ran(story.board, story.host)["status"] == "fail"
    story.goes_on(HOUR)


def shrank(story: Story) -> None:
    story.job(schedule="daily 03:00", rpo="30d")
    ran(story.board, story.host)
    story.goes_on(DAY)
    (story.host.source / "file").write_text("little")
    ran(story.board, story.host)
    story.goes_on(DAY)


def disk_fills_up(story: Story) -> None:
    story.job(schedule="daily 03:00", rpo="30d")
    ran(story.board, story.host)
    story.disk.free = 20_000
    story.goes_on(HOUR)


def is_not_drilled_any_more(story: Story) -> None:
    story.job(schedule="daily 03:00", rpo="90d", drill={"assertions": []})
    ran(story.board, story.host)
    story.drilled(passed=True)
    story.goes_on(38 * DAY)


def was_never_drilled(story: Story) -> None:
    story.job(schedule="daily 03:00", rpo="90d", drill={"assertions": []})
    ran(story.board, story.host)
    story.goes_on(38 * DAY)


def cannot_be_restored(story: Story) -> None:
    story.job(schedule="daily 03:00", drill={"assertions": []})
    ran(story.board, story.host)
    story.drilled(passed=False)
    story.goes_on(HOUR)


def cannot_be_drilled(story: Story) -> None:
    story.job(schedule="daily 03:00", drill={"assertions": []})
    ran(story.board, story.host)
    story.drilled(passed=True)
    known = story.board.known("job")
    known.was_drilled({}, "not_done", "is encrypted; name a file with a private key")
    story.board.keep("job", known)
    story.goes_on(2 * HOUR)


def is_restored_slowly(story: Story) -> None:
    story.job(schedule="daily 03:00", drill={"assertions": []}, rto="1h")
    ran(story.board, story.host)
    story.drilled(passed=True, rto_s=5000.0)
    story.goes_on(HOUR)


def is_well(story: Story) -> None:
    story.job(schedule="daily 03:00", drill={"assertions": []}, rto="1h", rpo="26h")
    ran(story.board, story.host)
    story.drilled(passed=True)
    story.goes_on(20 * HOUR)


def waits_for_its_first_slot(story: Story) -> None:
    story.job(schedule="monthly 1 03:00")
    story.board.runs_at = {"job": story.board.now() + 20 * DAY}
    story.goes_on(10 * DAY)


@pytest.mark.parametrize(
    ("happens", "fires"),
    [
        (is_well, set()),
        (waits_for_its_first_slot, set()),
        (never_ran, {"BackupNeverRan"}),
        (fell_silent, {"BackupOverdue"}),
        (is_later_than_agreed, {"BackupOverdue"}),
        (failed, {"BackupFailed"}),
        (shrank, {"BackupShrank"}),
        (disk_fills_up, {"BackupWillNotFit"}),
        (is_not_drilled_any_more, {"BackupDrillOverdue", "BackupNotVerified"}),
        (was_never_drilled, {"BackupNeverDrilled", "BackupNotVerified"}),
        (cannot_be_restored, {"BackupDrillFailed"}),
        (cannot_be_drilled, {"BackupDrillNotDone"}),
        (is_restored_slowly, {"BackupRestoreTooSlow"}),
    ],
)
def test_what_goes_wrong_is_an_alert(story: Story, happens: Callable[[Story], None], fires: set[str]) -> None:
    happens(story)
    assert story.firing == fires, published(story.board)


@pytest.mark.parametrize(
    ("schedule", "days", "is_late"),
    [
        ("weekly sun 05:00", 8, False),
        ("weekly sun 05:00", 9, True),
        ("0 5 1 */3 *", 100, False),
        ("0 5 1 */3 *", 112, True),
        ("never", 112, False),
    ],
)
@pytest.mark.parametrize("passed_once", [True, False])
def test_a_drill_is_late_by_its_own_schedule(
    story: Story, schedule: str, days: int, is_late: bool, passed_once: bool
) -> None:
    story.job(schedule="daily 03:00", rpo="365d", drill={"schedule": schedule, "assertions": []})
    ran(story.board, story.host)
    if passed_once:
        story.drilled(passed=True)
    story.goes_on(days * DAY)
    late = "BackupDrillOverdue" if passed_once else "BackupNeverDrilled"
    assert {name for name in story.firing if "Drill" in name} == ({late} if is_late else set())
