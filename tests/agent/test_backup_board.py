"""What is known of backup jobs and published of them."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from agent import backup_api, backup_metrics
from agent.backup_board import FREE_EVERY_S, Board
from agent.core.clock import FakeClock
from agent.core.model import Tick
from backup.worker import lock
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition
from tests.agent.http.asking import client_of
from tests.backup.hosts import BackedUp

NOW = 1_700_000_000.0
NEVER = {"at": "never"}
# backup.md's list; every name is `vigilhost_backup_` and this.
PROMISED = {
    "last_success_timestamp_seconds", "last_verified_timestamp_seconds", "last_drill_timestamp_seconds",
    "rpo_age_seconds", "rpo_target_seconds", "rto_measured_seconds", "duration_seconds", "size_bytes", "status",
    "drill_age_seconds", "drill_age_target_seconds",
}  # fmt: skip


class Disk:
    """statvfs of a disk with so many bytes free; None: it hangs."""

    def __init__(self, free: int | None) -> None:
        self.free = free
        self.asked = 0

    def __call__(self, path: str) -> os.statvfs_result:
        self.asked += 1
        if self.free is None:
            raise TimeoutError(f"{path}: no answer within 2 s")
        return os.statvfs_result((1, 1, 0, 0, self.free, 0, 0, 0, 0, 255))


def board(host: BackedUp, clock: FakeClock, disk: Disk | None = None, **options: Any) -> Board:
    made = Board(str(host.directory / "state"), clock, disk or Disk(10**9))
    made.take({"job": host.job(**options)})
    return made


def ran(made: Board, host: BackedUp, status: str | None = None) -> dict[str, Any]:
    """A real run, taken as the keeper takes it."""
    result = host.run().result
    known = made.known("job")
    known.ran(result, status or result["status"], result["error"], made.now())
    made.keep("job", known)
    return result


def published(made: Board) -> dict[str, Any]:
    """Value by name; of the states the one that holds."""
    found: dict[str, Any] = {}
    for reading in made.readings():
        for field, value in zip(reading.group.fields, reading.values, strict=True):
            name = (field.prom or "").removeprefix("vigilhost_backup_")
            if name == "status":
                found |= {"status": reading.tags[1]} if value else {}
            elif value is not None:
                found[name] = value
    return found


def test_the_names_promised_are_those_published_in_both_dialects(host: BackedUp) -> None:
    made = board(host, FakeClock(time.time()), schedule="daily 03:00", drill={"assertions": []}, rto="1h")
    made.runs_at = {"job": 1.0}
    result = ran(made, host)
    known = made.known("job")
    known.was_drilled({"started_at": 5.0, "rto_s": 2.5, "backup": result["backup"], "target": "store"}, "ok", None)
    declared = {field.influx for group in backup_metrics.GROUPS for field in group.fields}
    assert declared >= PROMISED
    assert published(made).keys() == declared
    tick = Tick(1, "agent", list(made.readings()))
    page, lines = Exposition().render([tick]), "\n".join(Encoder({}).encode([tick]))
    for name in declared:
        assert f"# TYPE vigilhost_backup_{name} gauge" in page
        assert f"{name}=" in lines
    for state in ("ok", "warn", "fail", "never"):
        assert f'vigilhost_backup_status{{job="job",state="{state}"}} {int(state == "ok")}\n' in page


def test_a_job_that_names_no_rpo_has_twice_the_time_between_its_runs(host: BackedUp) -> None:
    def rpo_of(**options: Any) -> float | None:
        found: float | None = published(board(host, FakeClock(NOW), **options)).get("rpo_target_seconds")
        return found

    assert rpo_of(schedule="daily 03:00") == 2 * 86400
    assert rpo_of(schedule="0 3 * * mon-fri") == 6 * 86400
    assert rpo_of(schedule="daily 03:00", rpo="26h") == 26 * 3600
    assert rpo_of(schedule=NEVER) is None
    assert rpo_of(schedule="daily 03:00", enabled=False) is None


def test_a_drill_may_be_a_fifth_later_than_its_own_schedule_says(host: BackedUp) -> None:
    def target_of(schedule: str, **options: Any) -> float | None:
        made = board(host, FakeClock(NOW), drill={"schedule": schedule, "assertions": []}, **options)
        found: float | None = published(made).get("drill_age_target_seconds")
        return found

    assert target_of("monthly 1 05:00") == pytest.approx(1.2 * 31 * 86400)
    assert target_of("weekly sun 05:00") == pytest.approx(1.2 * 7 * 86400)
    assert target_of("0 5 1 */3 *") == pytest.approx(1.2 * 92 * 86400)
    assert target_of("never") is None
    assert target_of("monthly 1 05:00", enabled=False) is None


def test_the_age_of_a_drill_counts_from_when_the_job_got_drills(host: BackedUp) -> None:
    clock = FakeClock(time.time())
    made = board(host, clock)
    later(clock, 1000)
    assert "drill_age_seconds" not in published(made)
    made.take({"job": host.job(drill={"assertions": []})})
    later(clock, 500)
    assert published(made)["drill_age_seconds"] == pytest.approx(500)
    known = made.known("job")
    known.was_drilled({"started_at": made.now(), "rto_s": 1.0, "backup": "x", "target": "y"}, "ok", None)
    made.keep("job", known)
    later(clock, 50)
    again = Board(str(host.directory / "state"), clock, Disk(1))  # the agent is started again
    again.take(made.jobs)
    assert published(again)["drill_age_seconds"] == pytest.approx(50)


def test_the_size_to_come_is_published_beside_the_space_there_is_now(host: BackedUp) -> None:
    clock, disk = FakeClock(time.time()), Disk(500)
    made = board(host, clock, disk)
    assert published(made)["free_bytes"] == 500
    result = ran(made, host)
    assert published(made)["expected_bytes"] == round(1.1 * result["stored_bytes"])
    disk.free = 400
    assert (published(made)["free_bytes"], disk.asked) == (500, 1)
    later(clock, FREE_EVERY_S)
    assert (published(made)["free_bytes"], disk.asked) == (400, 2)
    disk.free = None
    later(clock, FREE_EVERY_S)
    assert published(made)["free_bytes"] == result["targets"]["store"]["free_bytes"]


def later(clock: FakeClock, seconds: float) -> None:
    asyncio.run(clock.advance(seconds))


def test_a_job_runs_while_somebody_holds_its_lock(host: BackedUp) -> None:
    made = board(host, FakeClock(time.time()))
    assert published(made)["running"] is False
    with lock(str(host.directory / "state"), "job") as is_ours:
        assert is_ours
        assert published(made)["running"] is True
    assert published(made)["running"] is False
    made.scheduled = {"job"}  # by root's helper, whose locks are not ours to see
    assert published(made)["running"] is True


def test_a_run_by_hand_is_told_as_one_of_our_own_is(host: BackedUp) -> None:
    clock = FakeClock(time.time())
    made, by_hand = board(host, clock), board(host, clock)
    told: list[str] = []
    made.told = lambda name, known: told.append(known.sentence(name))
    published(made)
    result = ran(by_hand, host)
    published(made)
    published(made)
    (sentence,) = told
    assert sentence.startswith(f"backup job is done, {result['stored_bytes']}B in "), sentence


async def test_the_api_lists_jobs_and_what_is_kept(host: BackedUp) -> None:
    made = board(host, FakeClock(time.time()), schedule="daily 03:00", rpo="26h", rto="1h")
    first, second = ran(made, host), ran(made, host)
    made.known("job").was_drilled(
        {"started_at": 5.0, "rto_s": 2.5, "backup": first["backup"], "target": "store"}, "ok", None
    )

    class Keeper:
        def listing(self) -> dict[str, Any]:
            return {"state": "ok", "error": None, "running": None, "jobs": [made.listing("job")]}

    client = client_of(None, more=backup_api.operations(Keeper))
    (job,) = (await client.get("/api/v1/backups", {"job": "job"})).json()["data"]["jobs"]
    assert (job["job"], job["source"], job["status"], job["backup"]) == ("job", "files", "ok", second["backup"])
    assert (job["rpo_s"], job["rto_target_s"], job["rto_s"]) == (26 * 3600, 3600, 2.5)
    store = job["targets"]["store"]
    assert [one["id"] for one in store["kept"]] == [second["backup"], first["backup"]]
    assert [one["drilled_at"] for one in store["kept"]] == [None, 5.0]
    assert store["expected_bytes"] == round(1.1 * max(first["stored_bytes"], second["stored_bytes"]))
    wrong = await client.get("/api/v1/backups", {"job": "nope"})
    assert (wrong.status, wrong.json()["error"]) == (400, 'invalid parameter "job": no such job; there are: job')
    starting = client_of(None, more=backup_api.operations(lambda: None))
    assert (await starting.get("/api/v1/backups")).status == 503
