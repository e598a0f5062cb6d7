"""When a job runs next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.schedule import History, Run, Schedule, check_zone, cron_of, next_run

BERLIN = "Europe/Berlin"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M")


def planned(schedule: Schedule, history: History, now: float) -> Run:
    run = next_run(schedule, history, now, "job")
    assert run is not None
    return run


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("daily 03:00", "0 3 * * *"),
        ("Daily  3:05", "5 3 * * *"),
        ("hourly", "0 * * * *"),
        ("hourly :15", "15 * * * *"),
        ("weekly sunday 03:00", "0 3 * * sun"),
        ("monthly 1 05:00", "0 5 1 * *"),
        ("monthly last 05:00", "0 5 l * *"),
        ("*/15 2-4 * * mon", "*/15 2-4 * * mon"),
        ("never", None),
    ],
)
def test_forms_of_a_schedule(text: str, cron: str | None) -> None:
    found = cron_of(text)
    assert (found and found.lower()) == cron


@pytest.mark.parametrize("text", ["", "daily", "daily 24:00", "daily 3", "0 3 * *", "61 * * * *", "0 0 30 2 *",
                                  "weekly blursday 03:00", "monthly 31 03:00", "* * * * * *"])  # fmt: skip
def test_what_is_no_schedule_is_refused_with_the_right_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write it like daily 03:00"):
        cron_of(text)


def test_zones_are_those_of_the_host() -> None:
    check_zone("UTC")
    with pytest.raises(ValueError, match="no time zone"):
        check_zone("Europe/Atlantis")


SEEN = at("2024-01-01 00:00")
NEW = History(SEEN)
DONE = NEW.succeeded(at("2024-01-05 03:00"))


@pytest.mark.parametrize(
    ("history", "now", "expected", "catches_up"),
    [
        pytest.param(NEW, "01-01 00:00", "01-01 03:00", False, id="a new job waits for its first slot"),
        pytest.param(DONE, "01-05 04:00", "01-06 03:00", False, id="then for the next"),
        pytest.param(DONE, "01-06 03:00", "01-06 03:00", False, id="a slot is due when it comes"),
        pytest.param(DONE, "01-06 09:00", "01-06 03:00", True, id="a missed slot is made up for"),
        pytest.param(DONE, "01-19 09:00", "01-19 03:00", True, id="once, by the newest"),
        pytest.param(History(at("2024-01-06 04:00")), "01-06 09:00", "01-07 03:00", False,
                     id="nothing before the job was known was missed"),
        pytest.param(NEW.succeeded(at("2024-01-06 03:00")), "01-06 02:30", "01-07 03:00", False,
                     id="a clock set back repeats nothing"),
        pytest.param(NEW.succeeded(at("2031-01-06 03:00")), "01-06 02:30", "01-06 03:00", False,
                     id="a stamp of a far future is not believed"),
    ],
)  # fmt: skip
def test_next_run(history: History, now: str, expected: str, catches_up: bool) -> None:
    run = planned(Schedule("daily 03:00"), history, at(f"2024-{now}"))
    assert (shown(run.slot), run.is_catch_up, run.attempt) == (expected, catches_up, 1)


def test_without_catch_up_a_missed_slot_is_let_go() -> None:
    run = planned(
        Schedule("daily 03:00", catch_up=False), History(SEEN, at("2024-01-05 03:00")), at("2024-01-06 09:00")
    )
    assert shown(run.slot) == "01-07 03:00"


def test_a_failed_slot_is_retried_with_doubling_waits_and_then_let_go() -> None:
    schedule = Schedule("daily 03:00", retries=3, retry_wait=300)
    history, now, waits = History(SEEN, at("2024-01-05 03:00")), at("2024-01-06 03:00"), []
    while (run := planned(schedule, history, now)).slot == at("2024-01-06 03:00"):
        waits.append(run.at - now)
        now = run.at + 60
        history = history.failed(run.slot, now)
    assert waits == [0, 300, 600, 1200]
    assert shown(run.slot) == "01-07 03:00"
    assert run.attempt == 1


def test_the_schedule_stamp_written_before_the_run() -> None:
    """Famous failure: a slot counts as done only by its success, so a run that was killed is tried again."""
    schedule, before = Schedule("daily 03:00"), History(SEEN, at("2024-01-05 03:00"))
    now = at("2024-01-06 03:10")
    assert planned(schedule, before, now).slot == at("2024-01-06 03:00")  # killed: nothing was written
    assert planned(schedule, before.failed(at("2024-01-06 03:00"), now), now).slot == at("2024-01-06 03:00")
    assert planned(schedule, before.succeeded(at("2024-01-06 03:00")), now).slot == at("2024-01-07 03:00")


def test_jitter_is_the_same_after_a_restart_and_differs_between_jobs() -> None:
    schedule, history, now = Schedule("daily 03:00", jitter=600), History(SEEN), at("2024-01-02 04:00")
    runs = [next_run(schedule, history.succeeded(at("2024-01-02 03:00")), now, job) for job in ("a", "a", "b")]
    late = [run.at - run.slot for run in runs if run is not None]
    assert late[0] == late[1] != late[2]
    assert all(0 <= one < 600 for one in late)


def all_slots(schedule: Schedule, start: str, end: str) -> list[str]:
    """What runs in a stretch of time, each run succeeding at once."""
    now, history, found = at(start), History(at(start)), []
    while (run := planned(schedule, history, now)).at < at(end):
        now = max(now, run.at)
        found.append(shown(run.slot))
        history = history.succeeded(run.slot)
    return found


def test_the_hour_that_spring_skips_runs_right_after_it() -> None:
    schedule = Schedule("daily 02:30", zone=BERLIN)
    assert all_slots(schedule, "2024-03-29 12:00", "2024-04-01 12:00") == ["03-30 01:30", "03-31 01:00", "04-01 00:30"]


def test_the_hour_that_autumn_repeats_runs_once() -> None:
    schedule = Schedule("daily 02:30", zone=BERLIN)
    assert all_slots(schedule, "2024-10-25 12:00", "2024-10-28 12:00") == ["10-26 00:30", "10-27 00:30", "10-28 01:30"]


def test_an_hourly_job_runs_each_hour_of_both_nights() -> None:
    for start in ("2024-03-30 22:30", "2024-10-26 22:30"):
        end = (datetime.fromisoformat(start) + timedelta(hours=6)).strftime("%Y-%m-%d %H:%M")
        assert len(all_slots(Schedule("hourly", zone=BERLIN), start, end)) == 6


ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
TEXTS = st.sampled_from(
    ["daily 02:30", "hourly :20", "weekly sun 02:00", "monthly 1 00:30", "30 1,2,3 * * *", "0 */6 * * *"]
)


@given(TEXTS, ZONES, st.floats(1.6e9, 2.0e9), st.floats(0, 40 * 86400), st.integers(0, 5))
def test_a_run_is_never_in_a_slot_that_is_done_nor_before_its_slot(
    text: str, zone: str, now: float, since: float, tries: int
) -> None:
    schedule = Schedule(text, zone=zone, jitter=60)
    history = History(now - since - 100)
    first = planned(schedule, history, now - since)
    done = history.succeeded(first.slot)
    run = planned(schedule, done, max(now, first.at))
    assert run.slot > first.slot
    assert run.at >= run.slot
    for _ in range(tries):
        done = done.failed(run.slot, max(now, run.at))
    again = planned(schedule, done, max(now, run.at))
    assert again.slot >= run.slot


@given(TEXTS, ZONES, st.floats(1.6e9, 2.0e9))
def test_downtime_of_any_length_is_made_up_for_by_one_run(text: str, zone: str, now: float) -> None:
    schedule = Schedule(text, zone=zone)
    history = History(now - 400 * 86400, now - 399 * 86400)
    run = planned(schedule, history, now)
    assert run.slot <= now
    assert planned(schedule, history.succeeded(run.slot), now).slot > now
