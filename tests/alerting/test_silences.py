from __future__ import annotations

import json

import pytest

from alerting.intervals import parse_interval
from alerting.silences import Silences, from_row, new_silence, to_row
from tests.alerting.pictures import T0, alert, at

DB1 = alert(instance="db1").labels
HOUR = 3600.0


def test_a_silence_mutes_what_it_matches_from_its_start_to_its_end() -> None:
    silences = Silences()
    silences.add(new_silence("instance=db1", T0, T0 + HOUR, "disk is being replaced"))
    muted = [bool(silences.muting(DB1, T0 + after)) for after in (-1, 0, HOUR - 1, HOUR)]
    assert muted == [False, True, True, False]
    assert silences.muting(alert(instance="db2").labels, T0) == []


def test_a_recurring_silence_mutes_in_its_windows_only() -> None:
    window = parse_interval({"times": [{"start_time": "02:00", "end_time": "03:00"}], "weekdays": ["sunday"]}, "x")
    silence = new_silence(
        "instance=db1", at("2024-05-01 00:00"), at("2025-05-01 00:00"), "weekly dump", windows=[window]
    )
    states = [silence.state(at(f"2024-05-05 {time}")) for time in ("01:59", "02:00", "03:00")]
    assert states == ["waiting", "active", "waiting"]
    assert silence.until(at("2024-05-05 02:10")) == at("2024-05-05 03:00")


def test_of_overlapping_silences_the_one_that_lasts_longest_is_named_first() -> None:
    silences = Silences()
    short = new_silence("instance=db1", T0, T0 + HOUR, "short")
    long = new_silence("alertname=DiskFull", T0, T0 + 2 * HOUR, "long")
    silences.add(short)
    silences.add(long)
    assert [one.reason for one in silences.muting(DB1, T0)] == ["long", "short"]


def test_silences_of_the_same_alerts_at_the_same_time_overlap() -> None:
    one = new_silence("instance=db1,job=node", T0, T0 + HOUR, "one")
    assert new_silence("job=node,instance=db1", T0 + 1, T0 + 2 * HOUR, "the same").overlaps(one)
    assert not new_silence("job=node,instance=db1", T0 + HOUR, T0 + 2 * HOUR, "after it").overlaps(one)
    assert not new_silence("instance=db1", T0, T0 + HOUR, "more").overlaps(one)


def test_a_silence_ends_when_everything_it_muted_is_resolved() -> None:
    silences = Silences()
    silence = new_silence("alertname=DiskFull", T0, T0 + HOUR, "on it", ends_on_resolve=True)
    silences.add(silence)
    silences.note(silence, "a")
    silences.note(silences.by_id[silence.id], "b")
    assert silences.resolved("a", T0 + 1) == []
    assert [one.id for one in silences.resolved("b", T0 + 2)] == [silence.id]
    assert silences.by_id[silence.id].state(T0 + 2) == "expired"


def test_a_silence_is_ended_by_hand_once() -> None:
    silences = Silences()
    silence = new_silence("instance=db1", T0, T0 + HOUR, "x")
    silences.add(silence)
    silences.expire(silence.id, T0 + 1)
    assert silences.muting(DB1, T0 + 1) == []
    with pytest.raises(KeyError):
        silences.expire(silence.id, T0 + 2)


def test_the_next_change_is_the_next_start_or_end() -> None:
    silences = Silences()
    silences.add(new_silence("instance=db1", T0 + 10, T0 + HOUR, "x"))
    moments = [silences.next_change(T0 + after) for after in (0, 10, HOUR)]
    assert moments == [T0 + 10, T0 + HOUR, None]


def test_ended_silences_are_forgotten_after_days() -> None:
    silences = Silences()
    silence = new_silence("instance=db1", T0, T0 + HOUR, "x")
    silences.add(silence)
    assert silences.forget(T0 + 86400) == []
    assert silences.forget(T0 + 6 * 86400) == [silence.id]


def test_a_silence_survives_as_json() -> None:
    window = parse_interval({"weekdays": ["monday:friday"], "days_of_month": ["-1"], "location": "Europe/Berlin"}, "x")
    silence = new_silence(['instance=~"db[12]"', 'x="a,\\"b"'], T0, T0 + HOUR, "why", "me", [window], True)
    assert from_row(json.loads(json.dumps(to_row(silence)))) == silence


@pytest.mark.parametrize(
    ("matchers", "ends_at", "reason", "message"),
    [
        ("", T0 + 1, "x", "no matchers"),
        ('instance=~".*"', T0 + 1, "x", "matches alerts without these labels too"),
        ("instance=db1", T0 + 1, " ", "no reason"),
        ("instance=db1", T0, "x", "must end after its start"),
        ("instance", T0 + 1, "x", "is not a matcher"),
    ],
)
def test_a_silence_that_would_surprise_is_refused(matchers: str, ends_at: float, reason: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_silence(matchers, T0, ends_at, reason)
