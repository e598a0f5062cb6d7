from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alerting.grouping import Dispatcher
from alerting.inhibition import Inhibitor, parse_inhibit_rule
from alerting.intervals import parse_interval
from alerting.muting import Muting
from alerting.notify.message import DigestNote
from alerting.routing import parse_route
from alerting.silences import Silences, new_silence
from tests.alerting.pictures import T0, alert, at, run, sent

HOUR = 3600.0


def dispatcher(**route: Any) -> Dispatcher:
    tree = {"receiver": "r", "group_by": ["alertname"], **route}
    return Dispatcher(parse_route(tree, ["r", "pager"], ["night"]))


def times(decisions: list[Any]) -> list[tuple[float, str]]:
    """When what was sent: seconds since T0, and the reason."""
    return [(note.at - T0, note.reason) for note in sent(decisions)]


def test_a_new_group_waits_so_that_others_can_join() -> None:
    groups = dispatcher()
    groups.update([alert(instance="a")], T0)
    groups.update([alert(instance="b", starts_at=T0 + 10)], T0 + 10)
    (note,) = sent(run(groups, T0 + 60))
    assert (note.at, len(note.alerts), note.group_key) == (T0 + 30, 2, '{}:{alertname="DiskFull"}')


def test_an_alert_older_than_the_wait_is_told_at_once() -> None:
    groups = dispatcher()
    groups.update([alert(starts_at=T0 - 31)], T0)
    assert times(groups.due(T0)) == [(0, "1 new")]


def test_a_critical_route_without_wait_tells_at_once() -> None:
    groups = dispatcher(group_wait="0s")
    groups.update([alert()], T0)
    assert times(groups.due(T0)) == [(0, "1 new")]


def test_alerts_that_come_along_wait_for_the_group_interval() -> None:
    groups = dispatcher(group_wait="0s")
    groups.update([alert(instance="a")], T0)
    run(groups, T0)
    groups.update([alert(instance="b", starts_at=T0 + 10)], T0 + 10)
    groups.update([alert(instance="c", starts_at=T0 + 20)], T0 + 20)
    assert times(run(groups, T0 + HOUR)) == [(300, "2 new")]


def test_an_end_is_told_at_once_not_after_the_group_interval() -> None:
    groups = dispatcher(group_wait="0s")
    groups.update([alert(instance="a"), alert(instance="b")], T0)
    run(groups, T0)
    groups.update([alert(instance="a").resolved(T0 + 10)], T0 + 10)
    (note,) = sent(run(groups, T0 + HOUR))
    assert (note.at, note.reason, [one.state for one in note.alerts]) == (T0 + 11, "1 resolved", ["firing", "resolved"])
    groups.update([alert(instance="b").resolved(T0 + 20)], T0 + 20)
    (last,) = sent(run(groups, T0 + HOUR))
    assert (last.status, len(last.alerts), len(groups)) == ("resolved", 1, 0)


def test_what_is_over_before_it_was_told_is_not_told_but_explained() -> None:
    groups = dispatcher()
    groups.update([alert()], T0)
    (decision,) = groups.update([alert().resolved(T0 + 10)], T0 + 10)
    assert decision.sentence == "not sent: DiskFull was over before it was told"
    assert groups.next_due() is None


def test_the_repeat_is_exact_and_counts_from_the_last_message() -> None:
    groups = dispatcher(group_wait="0s", repeat_interval="1000s")
    groups.update([alert(instance="a")], T0)
    assert times(run(groups, T0 + 2500)) == [
        (0, "1 new"),
        (1000, "still firing, repeated after 16m40s"),
        (2000, "still firing, repeated after 16m40s"),
    ]
    groups.update([alert(instance="b", starts_at=T0 + 2500)], T0 + 2500)
    assert [at for at, _ in times(run(groups, T0 + 3600))] == [2500, 3500]


def test_an_alert_that_stays_as_it_is_causes_nothing() -> None:
    groups = dispatcher(group_wait="0s")
    for second in range(0, 600, 15):
        groups.update([alert()], T0 + second)
        assert len(sent(groups.due(T0 + second))) == (second == 0)


def test_an_alert_that_fires_anew_before_its_end_was_told_is_no_news() -> None:
    groups = dispatcher(group_wait="0s")
    groups.update([alert()], T0)
    run(groups, T0)
    groups.update([alert().resolved(T0 + 10)], T0 + 10)
    groups.update([alert(starts_at=T0 + 10.5)], T0 + 10.5)
    assert times(run(groups, T0 + HOUR)) == []


def test_an_alert_that_takes_two_routes_is_told_to_both() -> None:
    groups = dispatcher(
        group_wait="0s", routes=[{"matchers": ["a=b"], "receiver": "pager", "continue": True}, {"matchers": ["a=b"]}]
    )
    groups.update([alert(a="b")], T0)
    assert [note.receiver for note in sent(groups.due(T0))] == ["pager", "r"]


def test_a_silenced_alert_is_told_when_the_silence_ends_while_it_still_fires() -> None:
    groups, muting = dispatcher(group_wait="0s"), Muting(silences=Silences())
    groups.update([alert(instance="db1")], T0)
    silence = new_silence("instance=db1", T0 - 10, T0 + HOUR, "known")
    muting.silences.add(silence)
    decisions = run(groups, T0 + HOUR, muting.judge)
    assert decisions[0].sentence == (
        'not sent: {alertname="DiskFull", instance="db1"} is silenced by '
        f"{silence.id} until 2023-11-14 23:13: known"
    )  # fmt: skip
    assert times(decisions) == [(HOUR, "1 new")]


def test_a_silence_that_is_lifted_is_noticed_at_once() -> None:
    groups, muting = dispatcher(group_wait="0s"), Muting(silences=Silences())
    groups.update([alert(instance="db1")], T0)
    silence = new_silence("instance=db1", T0 - 10, T0 + HOUR, "known")
    muting.silences.add(silence)
    assert times(run(groups, T0 + 60, muting.judge)) == []
    muting.silences.expire(silence.id, T0 + 60)
    groups.look_again(T0 + 60)
    assert times(run(groups, T0 + 60, muting.judge)) == [(60, "1 new")]


def test_an_alert_told_then_silenced_then_over_is_told_as_over() -> None:
    groups, muting = dispatcher(group_wait="0s", repeat_interval="100s"), Muting(silences=Silences())
    groups.update([alert(instance="db1")], T0)
    run(groups, T0, muting.judge)
    muting.silences.add(new_silence("instance=db1", T0 + 1, T0 + HOUR, "on it"))
    assert times(run(groups, T0 + 500, muting.judge)) == []  # no repeats meanwhile
    groups.update([alert(instance="db1").resolved(T0 + 600)], T0 + 600)
    assert times(run(groups, T0 + HOUR, muting.judge)) == [(601, "1 resolved")]


def test_at_night_even_the_end_waits_until_morning() -> None:
    night = parse_interval({"times": [{"start_time": "22:00", "end_time": "24:00"}]}, "x")
    muting = Muting(intervals={"night": (night,)})
    groups = dispatcher(routes=[{"matchers": ["a=b"], "group_wait": "0s", "mute_time_intervals": ["night"]}])
    evening = at("2023-11-14 21:50")
    groups.update([alert(a="b", starts_at=evening)], evening)
    assert len(sent(run(groups, evening, muting.judge))) == 1
    groups.update([alert(a="b").resolved(at("2023-11-14 22:10"))], at("2023-11-14 22:10"))
    (note,) = sent(run(groups, at("2023-11-15 06:00"), muting.judge))
    assert (note.at, note.status) == (at("2023-11-15 00:00"), "resolved")


def test_outside_of_the_active_time_nothing_is_told_until_it_begins() -> None:
    day = parse_interval({"times": [{"start_time": "08:00", "end_time": "18:00"}]}, "x")
    muting = Muting(intervals={"night": (day,)})
    groups = dispatcher(routes=[{"matchers": ["a=b"], "active_time_intervals": ["night"]}])
    groups.update([alert(a="b")], T0)
    decisions = run(groups, at("2023-11-15 11:00"), muting.judge)
    assert decisions[0].sentence.endswith("is outside of the active time night until 2023-11-15 08:00")
    assert [note.at for note in sent(decisions)] == [at("2023-11-15 08:00")]


def test_an_inhibited_alert_is_told_when_its_source_is_over() -> None:
    rule = parse_inhibit_rule({"source_matchers": ["alertname=Down"], "target_matchers": ["alertname=Slow"]}, "x")
    muting, groups = Muting(Inhibitor([rule], [alert("Down")])), dispatcher(group_wait="0s")
    groups.update([alert("Slow")], T0)
    decisions = run(groups, T0 + 1000, muting.judge)
    assert [one.sentence for one in decisions] == ['not sent: {alertname="Slow"} is inhibited by {alertname="Down"}']
    muting.inhibitor.update([alert("Down").resolved(T0 + 1000)])
    assert times(run(groups, T0 + HOUR, muting.judge)) == [(1200, "1 new")]


def test_flapping_is_told_once_and_again_when_it_calms_down() -> None:
    groups = dispatcher(group_wait="0s", group_interval="1s")
    reasons = []
    for second, flapping in enumerate([False, True, True, False]):
        groups.update([replace(alert(), is_flapping=flapping)], T0 + 10 * second)
        reasons += [reason for _, reason in times(run(groups, T0 + 10 * second))]
    assert reasons == ["1 new", "1 flapping", "1 no longer flapping"]


def test_a_digest_tells_once_a_day_what_fired_and_was_over() -> None:
    groups = dispatcher(
        routes=[{"matchers": ["severity=warning"], "digest": {"at": "08:00", "timezone": "Europe/Berlin"}}]
    )
    start = at("2024-03-30 12:00")
    one, two = alert("A", start, severity="warning"), alert("B", start + 60, severity="warning")
    groups.update([one, two], start + 60)
    groups.update([one.resolved(start + 100)], start + 100)
    groups.update([one], start + 200)
    groups.update([one.resolved(start + 300)], start + 300)
    groups.note(DigestNote(start + 400, True, "backup etc: 1.2 GiB, verified"), start + 400)
    (note,) = sent(run(groups, at("2024-03-31 12:00")))
    assert note.at == at("2024-03-31 06:00")  # 08:00 in summer time, which began that night
    assert [(entry.alert.name, entry.fired, entry.resolved) for entry in note.entries] == [("B", 1, 0), ("A", 2, 2)]
    assert (note.kind, [one.text for one in note.notes]) == ("digest", ["backup etc: 1.2 GiB, verified"])
    (second,) = sent(run(groups, at("2024-04-01 12:00")))
    assert [(entry.alert.name, entry.fired, entry.resolved) for entry in second.entries] == [("B", 0, 0)]


def test_an_empty_digest_is_not_sent_but_explained() -> None:
    groups = dispatcher(digest={"at": "08:00"})
    groups.note(DigestNote(T0, True, "x"), T0)
    run(groups, T0 + 86400)
    decisions = run(groups, T0 + 2 * 86400)
    assert [one.sentence for one in decisions] == ["not sent: nothing happened since the last digest"]


def test_a_digest_beyond_its_size_counts_each_alert_once() -> None:
    groups = dispatcher(digest={"at": "08:00"})
    for second in range(3):
        groups.update([alert(instance=str(index)) for index in range(2005)], T0 + second)
    (note,) = sent(run(groups, T0 + 86400))
    assert (len(note.entries), note.truncated_alerts) == (2000, 5)


def test_a_silence_until_resolved_ends_with_the_alert() -> None:
    groups, muting = dispatcher(group_wait="0s"), Muting(silences=Silences())
    groups.update([alert(instance="db1")], T0)
    run(groups, T0, muting.judge)
    muting.silences.add(new_silence("instance=db1", T0 + 1, T0 + HOUR, "on it", ends_on_resolve=True))
    groups.look_again(T0 + 1)
    run(groups, T0 + 1, muting.judge)
    over = alert(instance="db1").resolved(T0 + 60)
    groups.update([over], T0 + 60)
    assert len(muting.silences.resolved(over.fingerprint, T0 + 60)) == 1
    assert times(run(groups, T0 + 70, muting.judge)) == [(61, "1 resolved")]


def history(restart_at: int | None) -> list[tuple[float, str]]:
    """An alert's life from pending to resolved, the dispatcher replaced after so many steps."""
    groups, out = dispatcher(group_wait="5s", repeat_interval="20s"), []
    for second in range(60):
        if second == restart_at:
            saved, groups = groups.snapshot(), dispatcher(group_wait="5s", repeat_interval="20s")
            assert groups.restore(saved) == []
        state = alert() if second < 50 else alert().resolved(T0 + 50)
        groups.update([state], T0 + second)
        out += times(groups.due(T0 + second))
    return out


@pytest.mark.parametrize("restart_at", range(60))
def test_a_restart_at_any_second_changes_nothing(restart_at: int) -> None:
    assert history(restart_at) == history(None) != []


def test_alerts_of_a_route_that_is_gone_come_back_at_a_restart() -> None:
    groups = dispatcher(routes=[{"matchers": ["a=b"], "receiver": "pager"}])
    groups.update([alert(a="b")], T0)
    after = dispatcher()
    assert after.restore(groups.snapshot()) == [alert(a="b")]
    with pytest.raises(ValueError, match="saved groups"):
        after.restore(b"{")


def test_labels_that_are_no_utf8_survive_a_restart() -> None:
    groups = dispatcher(group_wait="0s", group_by=["mount"])
    broken = alert(mount=b"/mnt/\xff \xc3\xa9".decode("utf-8", "surrogateescape"))
    groups.update([broken], T0)
    assert [note.group_key for note in sent(groups.due(T0))] == ['{}:{mount="/mnt/? é"}']
    after = dispatcher(group_wait="0s", group_by=["mount"])
    after.restore(groups.snapshot())
    after.update([broken.resolved(T0 + 1)], T0 + 1)
    assert times(run(after, T0 + HOUR)) == [(2, "1 resolved")]


def test_ten_thousand_alerts_of_one_rule_are_one_message() -> None:
    groups = dispatcher()
    groups.update([alert(instance=str(index)) for index in range(10_000)], T0)
    (note,) = sent(run(groups, T0 + HOUR))
    assert len(note.alerts) == 10_000
