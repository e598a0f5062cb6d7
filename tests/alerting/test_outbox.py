from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.errors import Rejected, Retryable
from alerting.attempts import Claimed, Outcome, attempt
from alerting.grouping import Decision, Dispatcher
from alerting.notify.message import DigestEntry, DigestNote, Notification, SentReceipt
from alerting.outbox import Outbox
from alerting.pacing import OutboxOptions
from alerting.routing import parse_route
from tests.alerting.pictures import T0, alert, run
from tests.servers.process import wait_until

DOWN = Retryable("no answer", kind="network")
HOUR = 3600.0


def outbox(path: str | Path = ":memory:", **options: float) -> Outbox:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    return Outbox(connection, OutboxOptions(**options))  # type: ignore[arg-type]


def note(group: str = "g", *alerts: object, receiver: str = "r") -> Notification:
    return Notification(receiver, group, alerts or (alert(),), T0, reason="1 new")  # type: ignore[arg-type]


def attempt_all(box: Outbox, now: float, outcome: Outcome, **claim: object) -> list[Claimed]:
    claimed = box.claim(now, **claim)  # type: ignore[arg-type]
    for one in claimed:
        box.done(one, outcome, now)
    return claimed


def drain(box: Outbox, start: float, end: float, outcome: Outcome) -> list[tuple[float, Notification]]:
    """Let time pass, attempting whenever something is due."""
    seen, now = [], start
    while (due := box.next_due(now)) is not None and max(now, due) <= end:
        now = max(now, due)
        seen += [(now, one.notification) for one in attempt_all(box, now, outcome)]
    return seen


def test_a_message_is_delivered_once() -> None:
    box = outbox()
    box.put(note(), T0)
    assert len(attempt_all(box, T0, SentReceipt("id1", "200 ok"))) == 1
    assert (box.claim(T0), box.next_due(T0), box.counts()) == ([], None, {"sent": 1})
    assert [entry.sentence for entry in box.decisions.latest()] == [
        "queued for r: 1 new",
        "delivered to r: 1 new (200 ok)",
    ]


def test_while_one_is_under_way_no_other_goes_to_that_receiver() -> None:
    box = outbox()
    box.put(note("a"), T0)
    box.put(note("b"), T0)
    box.put(note("a", receiver="other"), T0)
    assert sorted(one.notification.receiver for one in box.claim(T0)) == ["other", "r"]
    assert box.claim(T0) == []


def test_failures_are_retried_ever_more_slowly_and_for_ever_under_one_id() -> None:
    box = outbox(first_retry=5, longest_retry=300)
    box.put(note(), T0)
    tries = drain(box, T0, T0 + HOUR, DOWN)
    waits = [round(later - earlier) for (earlier, _), (later, _) in pairwise(tries)]
    assert waits[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert len({one.message_id for _, one in tries}) == 1
    assert "not delivered yet: no answer; next try in 5s" in [entry.sentence for entry in box.decisions.latest()]


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (Retryable("busy", kind="http_429", after=42.0), 42),
        (Retryable("busy", kind="http_429", after=86400.0), 600),  # nobody may put us off for a day
        (Retryable("token revoked", kind="http_401", is_lasting=True), 600),
    ],
)
def test_the_other_side_may_say_when(error: Retryable, wait: float) -> None:
    box = outbox()
    box.put(note(), T0)
    attempt_all(box, T0, error)
    assert box.next_due(T0) == T0 + wait


@pytest.mark.parametrize("after", [0.0, -3600.0])
def test_to_be_asked_for_no_wait_at_all_is_no_reason_to_hurry(after: float) -> None:
    box, waits, now = outbox(first_retry=5, longest_retry=300), [], T0
    box.put(note(), T0)
    for _ in range(6):
        attempt_all(box, now, Retryable("busy", kind="http_429", after=after))
        due = box.next_due(now)
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits == [1, 10, 20, 40, 80, 160]


def test_a_message_that_is_put_off_again_and_again_slows_down_while_others_go_out() -> None:
    box, tries = outbox(first_retry=5, rate=1000), 0
    box.put(note("bad"), T0)
    for tick in range(400):
        now = T0 + tick // 2
        if tick % 2 == 0:
            box.put(note("good"), now)
        for one in box.claim(now):
            is_bad = one.notification.group_key == "bad"
            tries += is_bad
            box.done(one, Retryable("busy", kind="http_429", after=0.0) if is_bad else SentReceipt(), now)
    assert 1 < tries < 8


def test_what_is_refused_is_not_tried_again_and_reported() -> None:
    box = outbox()
    box.put(note(), T0)
    attempt_all(box, T0, Rejected("no such channel", kind="http_404"))
    assert (box.next_due(T0), box.counts()) == (None, {"rejected": 1})
    assert box.decisions.latest()[-1].sentence == "not delivered: r refused it: no such channel"


def test_a_poisoned_message_does_not_starve_the_others() -> None:
    box, delivered = outbox(), []
    box.put(note("bad"), T0)
    box.put(note("good"), T0)
    now = T0
    for _ in range(6):
        now = max(now, box.next_due(now) or now)
        for one in box.claim(now):
            is_good = one.notification.group_key == "good"
            delivered += [one.notification.group_key] if is_good else []
            box.done(one, SentReceipt() if is_good else DOWN, now)
    assert delivered == ["good"]


def test_after_a_long_outage_the_present_state_arrives_not_a_replay() -> None:
    groups = Dispatcher(
        parse_route(
            {"receiver": "r", "group_by": ["alertname"], "group_wait": "0s", "repeat_interval": "30m"}, ["r"], []
        )
    )
    box, now = outbox(), T0
    while now < T0 + 6 * HOUR:  # six hours down: repeats, new alerts, and ends pile up
        states = [alert(instance="a")] if now < T0 + HOUR else [alert(instance="a").resolved(T0 + HOUR)]
        states += [alert(instance="b", starts_at=T0 + 2 * HOUR)] if now >= T0 + 2 * HOUR else []
        groups.update(states, now)
        box.record(run(groups, now))
        attempt_all(box, now, DOWN)
        now += 60
    delivered = drain(box, now, now + HOUR, SentReceipt())
    assert [[(one.labels[-1][1], one.state) for one in message.alerts] for _, message in delivered] == [
        [("b", "firing"), ("a", "resolved")]
    ]
    assert any("superseded by a newer state" in entry.sentence for entry in box.decisions.latest())


def test_digests_that_waited_are_added_up() -> None:
    box = outbox()
    done = [DigestNote(T0, True, "backup monday")], [DigestNote(T0, False, "backup tuesday failed")]
    for day in range(2):
        entry = DigestEntry(alert().resolved(T0 + 1), fired=day + 1, resolved=1, first_at=T0 + day)
        digest = replace(note(), kind="digest", alerts=(), entries=(entry,), notes=tuple(done[day]))
        box.put(digest, T0 + day)
    ((_, message),) = drain(box, T0 + 2, T0 + 3, SentReceipt())
    assert [(entry.fired, entry.resolved, entry.first_at) for entry in message.entries] == [(3, 2, T0)]
    assert [one.text for one in message.notes] == ["backup monday", "backup tuesday failed"]


def test_a_message_that_comes_while_an_older_one_fails_takes_over() -> None:
    box = outbox()
    over = alert(instance="a").resolved(T0 + 1)
    box.put(note("g", over), T0)
    (claimed,) = box.claim(T0)
    box.put(note("g", alert(instance="b")), T0 + 1)
    box.done(claimed, DOWN, T0 + 2)
    ((_, message),) = drain(box, T0 + 2, T0 + HOUR, SentReceipt())
    assert message.alerts == (alert(instance="b"), over)
    assert box.counts() == {"sent": 1, "superseded": 1}


def test_after_a_crash_an_older_message_never_follows_a_newer_one() -> None:
    box = outbox()
    box.put(note("g", alert(instance="a")), T0)
    box.claim(T0)
    box.put(note("g", alert(instance="b")), T0 + 1)
    assert box.recover(T0 + 2) == 1
    assert [one.alerts for _, one in drain(box, T0 + 2, T0 + HOUR, SentReceipt())] == [(alert(instance="b"),)]


def test_only_what_nobody_sends_is_sent_again() -> None:
    box = outbox()
    for name in ("a", "b"):
        box.put(note("g", receiver=name), T0)
    held, lost = box.claim(T0)
    assert box.recover(T0 + 1, {held.notification.message_id}) == 1
    (again,) = box.claim(T0 + 1)
    assert (again.id, again.notification) == (lost.id, lost.notification)


def test_an_outcome_noted_twice_counts_once_and_leaves_the_next_try_alone() -> None:
    box = outbox()
    box.put(note(), T0)
    (first,) = box.claim(T0)
    assert box.done(first, DOWN, T0)
    (second,) = box.claim(T0 + 5)
    assert not box.done(first, DOWN, T0 + 5)
    assert box.counts() == {"sending": 1}
    assert box.done(second, SentReceipt(), T0 + 5)
    assert not box.done(second, SentReceipt(), T0 + 5)
    assert sum(entry.sentence.startswith("delivered") for entry in box.decisions.latest()) == 1


@pytest.mark.parametrize("state", ["queued", "sending"])
def test_a_row_that_cannot_be_read_is_given_up_and_said(tmp_path: Path, state: str) -> None:
    path = tmp_path / "a.sqlite"
    box = outbox(path)
    for group in ("g", "h"):
        box.put(note(group), T0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE messages SET payload = ?, state = ? WHERE group_key = 'g'", (b'{"receiver": 5}', state))
    box.recover(T0 + 1)
    if state == "queued":
        box.put(note("g"), T0 + 1)
    delivered = drain(box, T0 + 1, T0 + 10, SentReceipt())
    assert [message.group_key for _, message in delivered] == ["h", "g"][: 1 + (state == "queued")]
    assert box.counts()["expired"] == 1
    assert any("given up: the message cannot be read" in entry.sentence for entry in box.decisions.latest())


def test_rows_that_cannot_be_read_do_not_stop_a_summary(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    box = outbox(path)
    for index in range(30):
        box.put(note(f"g{index}"), T0)
    sqlite3.connect(path, isolation_level=None).execute("UPDATE messages SET payload = x'00' WHERE id % 10 = 0")
    (claimed,) = attempt_all(box, T0, SentReceipt(), summarizing={"r"})
    assert claimed.notification.reason == "27 groups at once"
    assert box.counts() == {"expired": 3, "superseded": 27, "sent": 1}


@pytest.mark.parametrize("summarizing", [(), ("r",)])
def test_a_message_renewed_again_and_again_is_given_up_as_old_as_the_first(summarizing: tuple[str, ...]) -> None:
    box = outbox(keep_undelivered=86400, summarize_above=2)
    for hour in range(25):
        for group in ("a", "b", "c"):
            box.put(note(group), T0 + hour * HOUR)
        attempt_all(box, T0 + hour * HOUR, DOWN, summarizing=summarizing)
    box.claim(T0 + 24 * HOUR + 1, summarizing)
    assert any("given up: r could not be reached for 1d" in entry.sentence for entry in box.decisions.latest(1000))


def test_a_waiting_message_does_not_grow_without_bound() -> None:
    box = outbox()
    for minute in range(500):
        box.put(note("g", alert(instance=str(minute)).resolved(T0 + minute)), T0 + minute)
    box.put(note("g", alert(instance="last")), T0 + 500)
    ((_, message),) = drain(box, T0 + 500, T0 + 501, SentReceipt())
    assert (len(message.alerts), message.truncated_alerts) == (200, 301)
    assert message.alerts[0].is_firing


def test_the_id_of_the_last_message_comes_along_until_the_group_is_over() -> None:
    box = outbox()
    previous = []
    for alerts in [(alert(),), (alert(),), (alert().resolved(T0),), (alert(),)]:
        box.put(note("g", *alerts), T0)
        (claimed,) = attempt_all(box, T0, SentReceipt(f"id{len(previous)}"))
        previous.append(claimed.previous)
    assert previous == [None, "id0", "id1", None]


def test_digests_and_summaries_never_edit_the_one_before() -> None:
    box = outbox()
    digest = replace(note(), kind="digest")
    for _ in range(2):
        box.put(digest, T0)
        (claimed,) = attempt_all(box, T0, SentReceipt("id"))
        assert claimed.previous is None


def test_a_service_may_ask_for_a_rest() -> None:
    box = outbox()
    box.put(note("a"), T0)
    box.put(note("b"), T0)
    assert [now - T0 for now, _ in drain(box, T0, T0 + HOUR, SentReceipt(rest=1.5))] == [0.0, 1.5]


def test_a_notifiers_own_mistake_does_not_block_its_receiver() -> None:
    class Broken:
        kind = "broken"
        can_summarize = True

        def send(self, notification: Notification, previous: str | None) -> SentReceipt:
            raise ZeroDivisionError

        def preview(self, notification: Notification) -> str:
            return ""

    box = outbox()
    box.put(note(), T0)
    (claimed,) = box.claim(T0)
    outcome = attempt(Broken(), claimed)
    assert isinstance(outcome, Retryable)
    assert isinstance(outcome.__cause__, ZeroDivisionError)
    box.done(claimed, outcome, T0)
    assert box.next_due(T0) == T0 + 600


def test_no_receiver_gets_more_than_its_rate() -> None:
    box = outbox(rate=10)
    for index in range(35):
        box.put(note(f"g{index}"), T0)
    when = [now - T0 for now, _ in drain(box, T0, T0 + HOUR, SentReceipt())]
    assert when == [0.0] * 10 + [60.0] * 10 + [120.0] * 10 + [180.0] * 5


def test_ten_thousand_groups_at_once_become_one_summary() -> None:
    box = outbox()
    with box.transaction():
        for index in range(10_000):
            box.put(note(f"g{index}", alert(instance=str(index))), T0)
    (claimed,) = attempt_all(box, T0, SentReceipt(), summarizing={"r"})
    assert (len(claimed.notification.alerts), claimed.notification.truncated_alerts) == (200, 9800)
    assert (claimed.notification.reason, box.next_due(T0)) == ("10000 groups at once", None)


def test_incidents_that_must_be_closed_one_by_one_are_never_summarized() -> None:
    box = outbox(rate=1000)
    for index in range(50):
        box.put(note(f"g{index}"), T0)
    assert len(drain(box, T0, T0 + 60, SentReceipt())) == 50


def test_what_cannot_be_delivered_for_days_is_given_up_and_said() -> None:
    box = outbox(keep_undelivered=86400)
    box.put(note(), T0)
    attempt_all(box, T0, DOWN)
    assert box.claim(T0 + 86401) == []
    assert box.decisions.latest()[-1].sentence == "given up: r could not be reached for 1d: no answer"
    assert box.counts() == {"expired": 1}


def test_what_is_old_is_forgotten() -> None:
    box = outbox(most_decisions=100)
    for index in range(300):
        box.decisions.say(T0 + index, "r", "g", f"sentence {index}")
    box.put(note(), T0)
    attempt_all(box, T0, SentReceipt())
    box.prune(T0 + 1000)
    assert len(box.decisions.latest(1000)) == 100
    box.prune(T0 + 31 * 86400)
    assert (box.decisions.latest(), box.counts()) == ([], {})


def test_labels_that_are_no_utf8_do_not_stop_a_message() -> None:
    box = outbox()
    box.record(
        [Decision(T0, "r", "g", "sent", note("g", alert(mount=b"/mnt/\xff".decode("utf-8", "surrogateescape"))))]
    )
    (claimed,) = box.claim(T0)
    assert ("mount", "/mnt/?") in claimed.notification.alerts[0].labels


def test_a_connection_with_transactions_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="isolation_level=None"):
        Outbox(sqlite3.connect(":memory:"))


def test_decisions_and_groups_can_share_one_transaction() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    box = Outbox(connection)
    connection.execute("CREATE TABLE saved (text)")

    def both_then_fail() -> None:
        with box.transaction():
            connection.execute("INSERT INTO saved VALUES ('groups')")
            box.put(note(), T0)
            raise KeyError

    with pytest.raises(KeyError):
        both_then_fail()
    assert (box.counts(), connection.execute("SELECT * FROM saved").fetchall(), box.decisions.latest()) == ({}, [], [])


CHILD = """
import sqlite3, sys, time
from pathlib import Path
from alerting.outbox import Outbox
from alerting.notify.message import SentReceipt
box = Outbox(sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10))
box.recover(1_700_000_100.0)
moment, sent = sys.argv[2], Path(sys.argv[3])
def stop_at(name):
    if name == moment:
        Path(sys.argv[4]).write_text(name)
        time.sleep(60)
stop_at("before claim")
for one in box.claim(1_700_000_100.0):
    stop_at("claimed")
    with sent.open("a") as file:
        file.write(one.notification.message_id + "\\n")
    stop_at("sent")
    box.done(one, SentReceipt(), 1_700_000_100.0)
    stop_at("recorded")
Path(sys.argv[4]).write_text("done")
"""


@pytest.mark.parametrize(
    ("moment", "times_sent"), [("before claim", 1), ("claimed", 1), ("sent", 2), ("recorded", 1), ("never", 1)]
)
def test_killed_at_any_moment_nothing_is_lost_and_only_what_was_in_flight_doubles(
    tmp_path: Path, moment: str, times_sent: int
) -> None:
    database, sent, reached = tmp_path / "outbox.db", tmp_path / "sent", tmp_path / "reached"
    message_id = outbox(database).put(note(), T0)

    def run_child(stop_at: str) -> None:
        reached.unlink(missing_ok=True)
        argv = [sys.executable, "-c", CHILD, database, stop_at, sent, reached]
        child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.getcwd()})
        wait_until(lambda: reached.exists() and reached.read_text(), f"the child to reach {stop_at!r}")
        child.send_signal(signal.SIGKILL)
        child.wait()

    run_child(moment)
    run_child("never")
    assert sent.read_text().split() == [message_id] * times_sent
    assert outbox(database).counts() == {"sent": 1}
