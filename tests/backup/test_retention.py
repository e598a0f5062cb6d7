"""Which backups stay: the rules as tables, what must never happen as properties."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.manifest import Manifest
from backup.retention import FUTURE_TOLERANCE_S, PRESETS, Plan, Retention, plan
from tests.backup.made import DAY, NOW, manifest


def numbers(decided: Plan, action: str) -> list[int]:
    return [int(one.manifest.id[-6:], 16) for one in decided.decisions if one.action == action]


def kept(backups: list[Manifest], rules: Retention, now: float = NOW, **more: bool) -> list[int]:
    return numbers(plan(backups, rules, now, **more), "keep")


def days_old(*ages: float, **more: bool) -> list[Manifest]:
    """Verified backups numbered from 1, so many days before now."""
    return [manifest(at, NOW - age * DAY, **more) for at, age in enumerate(ages, 1)]


@pytest.mark.parametrize(
    ("rules", "ages", "expected"),
    [
        pytest.param(Retention(), [400, 300, 1], [1, 2, 3], id="with no rule everything stays"),
        pytest.param(Retention(keep_last=2), [4, 3, 2, 1], [3, 4], id="the last ones stay"),
        pytest.param(Retention(keep_last=1), [4, 3, 2, 1], [3, 4], id="but never fewer than two"),
        pytest.param(Retention(keep_last=1, min_keep=1), [4, 3], [2], id="unless one is enough"),
        pytest.param(Retention(daily=2, min_keep=1), [1.2, 1.1, 0.2, 0.1], [2, 4], id="the newest of each day stays"),
        pytest.param(Retention(daily=2), [9, 8, 0.1], [2, 3], id="days without a backup do not count"),
        pytest.param(Retention(monthly=2, min_keep=1), [50, 40, 20, 15, 1], [4, 5], id="months are the calendar's"),
        pytest.param(Retention(weekly=2), [9, 8, 3, 1.5], [3, 4], id="a week ends on Sunday"),
        pytest.param(Retention(yearly=2, min_keep=1), [700, 400, 30, 1], [2, 4], id="the newest of each year stays"),
        pytest.param(Retention(within=7 * DAY), [9, 8, 6, 5], [3, 4], id="what is young stays"),
        pytest.param(PRESETS["7d+monthly"], [80, 40, 35, 20, 5, 1], [1, 4, 5, 6], id="rules add up"),
    ],
)
def test_rules(rules: Retention, ages: list[float], expected: list[int]) -> None:
    assert kept(days_old(*ages), rules, may_delete_most=True) == expected


def test_hours_of_the_autumn_night_that_come_twice_are_two_hours() -> None:
    first = datetime(2024, 10, 27, 0, 30, tzinfo=UTC).timestamp()  # 02:30 summer time in Berlin
    backups = [manifest(1, first), manifest(2, first + 3600), manifest(3, first + 7200)]
    decided = plan(backups, Retention(hourly=3), first + 8000, zone="Europe/Berlin")
    assert numbers(decided, "keep") == [1, 2, 3]


def test_retention_deletes_good_copies_while_new_ones_are_empty() -> None:
    """Famous failure: the newest are not verified, so nothing older goes, whatever the count."""
    good = days_old(9, 8, 7)
    bad = [manifest(number, NOW - (6 - number) * DAY, verified=False) for number in (4, 5)]
    decided = plan([*good, *bad], Retention(keep_last=1, min_keep=1), NOW)
    assert decided.deletions == ()
    assert "not verified" in (decided.refusal or "")


def test_unverified_backups_push_no_verified_one_out_of_a_rule() -> None:
    backups = [*days_old(4, 3), *(manifest(n, NOW - 2.5 * DAY, verified=False) for n in (3, 4)), manifest(5, NOW - DAY)]
    decided = plan(backups, Retention(keep_last=3), NOW)
    assert numbers(decided, "keep") == [1, 2, 5]


def test_mtime_sorted_retention_after_a_major_upgrade() -> None:
    """Famous failure: only the time inside the manifest counts, not the order of names or of files."""
    backups = days_old(1, 5, 3, 2, 4)  # the first, by name and place, is the newest
    random.Random(1).shuffle(backups)
    assert kept(backups, Retention(keep_last=3)) == [3, 4, 1]


@pytest.mark.parametrize(
    ("number", "more", "reason"),
    [
        (1, {"pinned": True}, "pinned"),
        (1, {"drilled_at": NOW - 300 * DAY}, "newest drilled"),
        (5, {}, "newest verified"),
    ],
)
def test_what_stays_whatever_the_rules_say(number: int, more: dict[str, object], reason: str) -> None:
    backups = days_old(400, 300, 200, 2, 1)
    backups[number - 1] = replace(backups[number - 1], **more)  # type: ignore[arg-type]
    decided = plan(backups, Retention(keep_last=1, min_keep=1), NOW, may_delete_most=True)
    assert reason in decided.decisions[number - 1].reasons


def test_a_backup_from_the_future_stops_deleting() -> None:
    decided = plan([*days_old(5, 4, 3), manifest(9, NOW + 3600)], Retention(keep_last=1), NOW)
    assert "in the future" in (decided.refusal or "")
    assert decided.deletions == ()
    assert numbers(decided, "delete") == [1, 2]  # what it would do is still said


def test_more_than_half_needs_somebody_who_looked() -> None:
    backups = days_old(9, 8, 7, 6, 5)
    assert "3 of 5 backups would go" in (plan(backups, Retention(keep_last=1), NOW).refusal or "")
    assert len(plan(backups, Retention(keep_last=1), NOW, may_delete_most=True).deletions) == 3


def test_an_incomplete_backup_goes_once_a_newer_verified_one_is_there() -> None:
    backups = [*days_old(9, 8), manifest(3, NOW - 7 * DAY, complete=False), manifest(4, NOW - DAY)]
    assert numbers(plan(backups, Retention(keep_last=9), NOW), "delete") == [3]


def test_every_decision_says_why() -> None:
    decided = plan(days_old(40, 3, 2, 1), Retention(daily=3), NOW)
    assert [one.reasons for one in decided.decisions] == [
        ("no rule keeps it",),
        ("daily",),
        ("among the 2 that stay in any case", "daily"),
        ("newest verified", "among the 2 that stay in any case", "daily"),
    ]


RULES = st.builds(
    Retention, keep_last=st.integers(0, 5), hourly=st.integers(0, 5), daily=st.integers(0, 8),
    weekly=st.integers(0, 5), monthly=st.integers(0, 5), yearly=st.integers(0, 3),
    within=st.sampled_from([0.0, DAY, 7 * DAY, 90 * DAY]), min_keep=st.integers(1, 4),
)  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[Manifest]:
    """Years of backups, some unverified, incomplete, pinned or drilled, in any order."""
    ages = draw(st.lists(st.floats(0, 1500), min_size=0, max_size=40))
    made = []
    for number, age in enumerate(ages, 1):
        flags = draw(st.tuples(*[st.integers(0, 9)] * 4))
        made.append(manifest(
            number, NOW - age * DAY, verified=flags[0] > 1, complete=flags[1] > 0, pinned=flags[2] == 0,
            drilled_at=NOW if flags[3] == 0 else None,
        ))  # fmt: skip
    return made


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"])


@given(histories(), RULES, ZONES, st.booleans())
def test_what_must_never_be_deleted_is_not(
    backups: list[Manifest], rules: Retention, zone: str, may_delete_most: bool
) -> None:
    decided = plan(backups, rules, NOW, zone=zone, may_delete_most=may_delete_most)
    doomed = {one.id for one in decided.deletions}
    verified = sorted((one for one in backups if one.is_verified), key=lambda one: (one.finished_at, one.id))
    drilled = [one for one in backups if one.drilled_at is not None]
    assert not doomed & {one.id for one in verified[-max(1, rules.min_keep) :]}
    assert not doomed & {one.id for one in backups if one.pinned}
    assert not drilled or max(drilled, key=lambda one: one.finished_at).id not in doomed
    assert len(decided.decisions) == len(backups)
    assert all(one.reasons for one in decided.decisions)
    assert may_delete_most or len(doomed) * 2 <= len(backups)
    assert rules.has_rules or not doomed
    if verified and doomed:
        newest = max(backups, key=lambda one: (one.finished_at, one.id))
        assert newest.is_verified


@given(histories(), RULES, st.floats(FUTURE_TOLERANCE_S + 1, 1e9))
def test_with_a_clock_set_back_nothing_goes(backups: list[Manifest], rules: Retention, back_s: float) -> None:
    if backups:
        now = max(one.finished_at for one in backups) - back_s
        assert plan(backups, rules, now, may_delete_most=True).deletions == ()


@given(histories(), RULES)
def test_planning_again_after_deleting_deletes_nothing_more(backups: list[Manifest], rules: Retention) -> None:
    gone = {one.id for one in plan(backups, rules, NOW, may_delete_most=True).deletions}
    left = [one for one in backups if one.id not in gone]
    assert not gone or plan(left, rules, NOW, may_delete_most=True).deletions == ()


@given(RULES, st.integers(1, 200), st.randoms(use_true_random=False))
def test_years_of_running_every_day_never_leave_too_few(rules: Retention, days: int, chance: random.Random) -> None:
    """As the worker does it: a backup, and after a verified one the plan without anybody's override."""
    stored: list[Manifest] = []
    verified = 0
    for day in range(days):
        now = NOW + day * 3 * DAY + chance.uniform(0, DAY)
        stored.append(manifest(day, now, verified=chance.random() > 0.1))
        if stored[-1].is_verified:
            verified += 1
            gone = {one.id for one in plan(stored, rules, now).deletions}
            stored = [one for one in stored if one.id not in gone]
        assert sum(one.is_verified for one in stored) >= min(rules.min_keep, verified)
