from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

import alerting.book
from agent.core import sqlite
from agent.core.errors import Rejected, Retryable
from agent.core.labels import Labels
from agent.core.query import DEFAULT_LIMITS, Limits, Result, Sample
from agent.promql_language import PromQL
from alerting.attempts import attempt
from alerting.book import Book
from alerting.deliveries import Deliveries
from alerting.dependencies import NothingKnown
from alerting.desk import Desk
from alerting.engine import Engine
from alerting.flap import FlapPolicy
from alerting.inhibition import parse_inhibit_rule
from alerting.notify.message import Alert, DigestNote, Notification, SentReceipt
from alerting.pacing import OutboxOptions
from alerting.policy import Policy
from alerting.routing import default_tree, parse_route
from alerting.rule_files import parse_rules
from alerting.silences import new_silence
from tests.alerting.pictures import T0, alert

RULES = """
groups:
  - name: disk
    rules:
      - alert: DiskFull
        expr: full == 1
        for: 3s
        labels: {severity: critical}
"""

DAY = 86400.0
DIGEST_TREE: dict[str, Any] = {"receiver": "phone", "group_wait": "0s", "routes": [{"digest": {"at": "08:00"}}]}


@dataclass
class Phone:
    """A notifier that notes what reaches it, or fails as told."""

    kind: ClassVar[str] = "phone"
    can_summarize: ClassVar[bool] = True
    got: list[Notification] = field(default_factory=list)
    fails: Callable[[], Exception | None] = lambda: None

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        if (error := self.fails()) is not None:
            raise error
        self.got.append(notification)
        return SentReceipt("id")

    def preview(self, notification: Notification) -> str:
        return notification.reason

    @property
    def heard(self) -> list[str]:
        """What arrived, in words; the same message twice is one."""
        unique = {note.message_id: note for note in self.got}
        return [f"{note.status}: {note.reason}" for note in unique.values()]


class Host:
    """A Querier and Recorder: one series that is there while the disk is full."""

    def __init__(self, is_full: Callable[[float], bool]) -> None:
        self.is_full = is_full

    def instant(self, expr: str, time_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        labels = (("__name__", "full"), ("instance", "db1"))
        found = [Sample(labels, time_ms, 1.0)] if self.is_full(time_ms / 1000) else []
        return Result("vector", found, time_ms)

    def range(self, expr: str, start_ms: int, end_ms: int, step_ms: int, limits: Limits = DEFAULT_LIMITS) -> Result:
        raise NotImplementedError

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        pass


def policy(phone: Phone, **more: Any) -> Policy:
    root = parse_route(more.pop("tree", default_tree("phone")), ["phone"], [])
    return Policy(root, {"phone": phone}, flap=more.pop("flap", FlapPolicy(changes=0)), **more)


def digest_tree(moment: float) -> dict[str, Any]:
    """All in one summary a day, at the time of day of a moment."""
    return {"receiver": "phone", "routes": [{"digest": {"at": f"{datetime.fromtimestamp(moment, UTC):%H:%M}"}}]}


def told(desk: Desk, now: float, phone: Phone) -> None:
    """Do what is due now, and deliver what comes of it."""
    for claimed in desk.work(now):
        desk.done(claimed, attempt(phone, claimed), now)


class House:
    """Engine and desk on one file, as an agent has them; `live` is one second of it."""

    def __init__(self, path: Path, phone: Phone, host: Host, now: float) -> None:
        self.phone = phone
        self.desk = Desk(Book(str(path)), policy(phone), now)
        self.engine = Engine(host, host, NothingKnown(), interval=1.0)
        saved = self.desk.saved_rules()
        self.engine.restore(saved.alerts, saved.seen_at, now)
        self.engine.load(parse_rules(RULES, "disk.yml", PromQL()).groups, now)
        self.engine.drop_orphans(now)

    def live(self, now: float, *, dies: str = "") -> None:
        done = self.engine.evaluate("disk.yml;disk", now)
        if dies == "before the desk":
            return
        self.desk.take(done.alerts, self.engine.snapshot(), now)
        self.desk.settle(now)
        if dies == "before sending":
            return
        for claimed in self.desk.work(now):
            if dies == "before the send":
                return
            outcome = attempt(self.phone, claimed)
            if dies == "after the send":
                return
            self.desk.done(claimed, outcome, now)


MOMENTS = ("before the desk", "before sending", "before the send", "after the send")


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_second_of_an_alerts_life_it_pages_once_and_says_when_it_is_over(
    tmp_path: Path, moment: str
) -> None:
    host = Host(lambda now: 5 <= now - T0 < 15)
    for killed_at in range(25):
        phone = Phone()
        path = tmp_path / f"{killed_at}.sqlite"
        house = House(path, phone, host, T0)
        for second in range(30):
            house.live(T0 + second, dies=moment if second == killed_at else "")
            if second == killed_at:
                house = House(path, phone, host, T0 + second + 1)  # the old one is not closed, like after kill -9
        assert phone.heard == ["firing: 1 new", "resolved: 1 resolved"], f"killed at second {killed_at}"
        is_in_flight = moment == "after the send" and len(phone.got) > len({one.message_id for one in phone.got})
        assert len(phone.got) == 2 + is_in_flight


@pytest.mark.parametrize("down_for", [1, 4, 9, 20])
def test_what_ended_while_the_agent_was_down_is_told_as_over(tmp_path: Path, down_for: int) -> None:
    host = Host(lambda now: 5 <= now - T0 < 15)
    phone = Phone()
    house = House(tmp_path / "a.sqlite", phone, host, T0)
    for second in range(12):
        house.live(T0 + second)
    house = House(tmp_path / "a.sqlite", phone, host, T0 + 12 + down_for)
    for second in range(12 + down_for, 50):
        house.live(T0 + second)
    assert phone.heard == ["firing: 1 new", "resolved: 1 resolved"]


def test_a_silence_survives_a_restart_and_its_end_tells_what_still_fires(tmp_path: Path) -> None:
    phone, path = Phone(), tmp_path / "a.sqlite"
    desk = Desk(Book(str(path)), policy(phone), T0)
    desk.silence(new_silence('alertname="DiskFull"', T0, T0 + 100, "moving it"), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk = Desk(Book(str(path)), policy(phone), T0 + 1)
    desk.take([alert(severity="critical")], {}, T0 + 1)
    desk.settle(T0 + 1)
    told(desk, T0 + 99, phone)
    assert phone.heard == []
    assert "silenced by" in " ".join(line.sentence for line in desk.log())
    assert desk.next_due(T0 + 99) == T0 + 100
    told(desk, T0 + 100, phone)
    assert phone.heard == ["firing: 1 new"]


def test_an_ended_silence_is_noticed_at_once(tmp_path: Path) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    silence = desk.silence(new_silence('alertname="DiskFull"', T0, T0 + 9000, "moving it"), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk.unsilence(silence.id, T0 + 5)
    told(desk, T0 + 5, phone)
    assert phone.heard == ["firing: 1 new"]
    with pytest.raises(KeyError):
        desk.unsilence(silence.id, T0 + 6)


def test_after_six_hours_without_a_way_out_the_present_state_arrives_and_no_replay(tmp_path: Path) -> None:
    is_down = True
    phone = Phone(fails=lambda: Retryable("http status 503", kind="http_503") if is_down else None)
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    now = T0
    for minute in range(360):
        now = T0 + minute * 60
        one = alert(severity="critical", starts_at=now, n=str(minute % 3))
        desk.take([one if (minute // 3) % 2 == 0 else one.resolved(now)], {}, now)
        told(desk, now, phone)
    last = {str(n): (range(n, 360, 3)[-1] // 3) % 2 == 0 for n in range(3)}
    assert phone.got == []
    is_down = False
    until = now + 900
    while (due := desk.next_due(now)) is not None and due <= until:
        now = max(due, now + 0.001)
        told(desk, now, phone)
    assert len(phone.got) <= 2
    state = {dict(one.labels)["n"]: one.is_firing for note in phone.got for one in note.alerts}
    assert {n: state.get(n, False) for n in last} == last


def storm(directory: Path) -> list[Notification]:
    """What a receiver hears in ten minutes of ten thousand alerts at once."""
    phone = Phone()
    options = OutboxOptions(rate=5)
    tree = {"receiver": "phone", "group_by": ["instance"], "group_wait": "0s"}
    desk = Desk(Book(str(directory / "a.sqlite")), policy(phone, tree=tree, outbox=options), T0)
    desk.take([alert(instance=f"host{n % 500}", device=f"sd{n}") for n in range(10_000)], {}, T0)
    now = T0
    for _ in range(600):
        told(desk, now, phone)
        due = desk.next_due(now)
        if due is None or due > T0 + 600:
            break
        now = max(due, now + 0.01)
    return phone.got


def test_ten_thousand_alerts_at_once_are_a_few_messages(tmp_path: Path) -> None:
    got = storm(tmp_path)
    assert 1 <= len(got) <= 50
    assert max(len(note.alerts) + note.truncated_alerts for note in got) == 10_000
    assert max(len(note.alerts) for note in got) <= 200


# A process of its own: this one's high-water mark is that of every test before. Not ru_maxrss, which a child inherits.
MEASURE = """
import sys
from pathlib import Path
from tests.alerting.test_desk import storm
def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak_kib()
storm(Path(sys.argv[1]))
print(peak_kib() - before)
"""


def test_ten_thousand_alerts_at_once_take_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    # Alerts, their groups, and the text of what is saved: tens of megabytes, not hundreds.
    assert 5 * 1024 < int(done.stdout) < 150 * 1024


def test_a_disk_that_takes_nothing_does_not_stop_the_page_about_it(tmp_path: Path) -> None:
    phone, path = Phone(), tmp_path / "a.sqlite"
    book = Book(str(path))
    desk = Desk(book, policy(phone), T0)
    book.connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
    for n in range(50):  # the free pages inside the file are used first
        desk.take([alert(severity="critical", n=str(n), text="x" * 4000)], {}, T0)
    assert "full" in desk.trouble
    told(desk, T0, phone)
    assert sum(len(note.alerts) for note in phone.got) == 50
    told(desk, T0 + 61, phone)
    assert desk.trouble == ""
    desk.close()
    again = Desk(Book(str(path)), policy(phone), T0 + 62)
    assert "delivered to phone" in " ".join(line.sentence for line in again.log())


def test_a_damaged_file_is_set_aside_and_alerting_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"this is no database" * 100)
    phone = Phone()
    desk = Desk(Book(str(path)), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    assert (desk.set_aside, phone.heard) == (f"{path}.corrupt-1", ["firing: 1 new"])


def test_saved_state_that_makes_no_sense_is_said_and_left_out(tmp_path: Path) -> None:
    book = Book(str(tmp_path / "a.sqlite"))
    for name in ("groups", "flaps", "silences"):
        book.write(name, b"[1, 2")
    desk = Desk(book, policy(Phone()), T0)
    assert [remark.split(" of before")[0] for remark in desk.remarks] == ["the flaps", "the silences", "the groups"]


def test_a_message_says_which_host_sends_it_and_when_also_one_of_before_an_upgrade(tmp_path: Path) -> None:
    phone, path = Phone(fails=lambda: Retryable("no answer", kind="network")), tmp_path / "a.sqlite"
    desk = Desk(Book(str(path)), policy(phone), T0)  # as an agent that knew of no source
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    phone.fails = lambda: None
    desk = Desk(Book(str(path)), policy(phone, source="db1"), T0 + 600)
    told(desk, T0 + 601, phone)
    (note,) = phone.got
    assert (note.source, note.at, note.sent_at) == ("db1", T0, T0 + 601)


def test_a_saved_digest_that_makes_no_sense_is_said_and_left_out(tmp_path: Path) -> None:
    book = Book(str(tmp_path / "a.sqlite"))
    book.write("groups", b'{"groups": [], "digests": {"{}/{}@phone": {"next_at": "noon", "entries": [], "notes": []}}}')
    desk = Desk(book, policy(Phone(), tree=DIGEST_TREE), T0)
    assert len(desk.remarks) == 1
    assert "the groups of before cannot be read" in desk.remarks[0]


def test_alerts_of_rules_that_make_no_sense_are_said_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    Desk(Book(str(path)), policy(Phone()), T0).close()
    sqlite3.connect(path, isolation_level=None).execute("INSERT INTO rule_alerts VALUES ('rule', '[]', '{}')")
    assert Desk(Book(str(path)), policy(Phone()), T0).remarks == ["1 alerts of rules cannot be read"]


def test_a_refusal_is_counted_and_explained(tmp_path: Path) -> None:
    phone = Phone(fails=lambda: Rejected("http status 404", kind="http_404"))
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    assert (desk.deliveries["phone"].refused, desk.deliveries["phone"].error) == (1, "http status 404")
    assert "refused it" in desk.log()[-1].sentence


def test_without_a_receiver_nothing_is_queued_and_the_log_says_why(tmp_path: Path) -> None:
    desk = Desk(Book(str(tmp_path / "a.sqlite")), Policy(), T0)
    desk.take([alert(severity="critical")], {}, T0)
    assert desk.work(T0 + 30) == []
    assert desk.counts() == {}
    assert "no receiver is configured" in desk.log()[-1].sentence


def test_inhibition_holds_from_the_first_second_after_a_restart(tmp_path: Path) -> None:
    rule = parse_inhibit_rule(
        {"source_matchers": ["alertname=HostDown"], "target_matchers": ["alertname=DiskFull"]}, ""
    )
    phone, path = Phone(), tmp_path / "a.sqlite"
    desk = Desk(Book(str(path)), policy(phone, inhibit_rules=(rule,)), T0)
    desk.take([alert("HostDown", severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk = Desk(Book(str(path)), policy(phone, inhibit_rules=(rule,)), T0 + 10)
    desk.take([alert("DiskFull", severity="critical")], {}, T0 + 10)
    desk.settle(T0 + 10)
    told(desk, T0 + 10, phone)
    assert len(phone.got) == 1
    assert any("inhibited by" in line.sentence for line in desk.log())


def test_a_reload_that_moves_an_alert_tells_the_new_receiver_and_forgets_the_old_group(tmp_path: Path) -> None:
    old, new = Phone(), Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(old), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, old)
    root = parse_route({"receiver": "new", "group_by": ["alertname"], "group_wait": "0s"}, ["new"], [])
    desk.reload(Policy(root, {"new": new}, flap=FlapPolicy(changes=0)), T0 + 10)
    told(desk, T0 + 10, new)
    assert new.heard == ["firing: 1 new"]
    assert desk.groups == 1
    desk.take([alert(severity="critical").resolved(T0 + 20)], {}, T0 + 20)
    told(desk, T0 + 30, new)
    assert new.heard == ["firing: 1 new", "resolved: 1 resolved"]
    assert desk.groups == 0


@pytest.mark.parametrize(
    ("until", "told_at"), [(None, T0 + DAY), (T0 + 3600, T0 + 3600)], ids=["as it was", "an hour from now"]
)
def test_a_digest_follows_its_schedule_from_the_reload_on(tmp_path: Path, until: float | None, told_at: float) -> None:
    phone = Phone()
    tree = digest_tree(T0)
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone, tree=tree), T0 + 1)
    desk.take([alert(severity="warning")], {}, T0 + 1)
    desk.reload(policy(phone, tree=tree if until is None else digest_tree(until)), T0 + 60)
    assert desk.next_due(T0 + 60) == pytest.approx(told_at, abs=60)


def test_a_clock_that_was_years_ahead_does_not_hold_digests_back_for_years(tmp_path: Path) -> None:
    phone, years = Phone(), 5 * 366 * DAY
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone, tree=digest_tree(T0)), T0 + years)
    desk.follow_clock(years, T0 + years)
    desk.take([alert(severity="warning", starts_at=T0 + years)], {}, T0 + years)
    desk.follow_clock(0.0, T0)
    assert desk.next_due(T0) is not None
    assert desk.next_due(T0) <= T0 + DAY


def test_a_rolled_back_step_leaves_the_next_digest_where_it_was(tmp_path: Path) -> None:
    book = Book(str(tmp_path / "a.sqlite"))
    desk = Desk(book, policy(Phone(), tree=DIGEST_TREE), T0)
    desk.take([alert(severity="warning")], {}, T0)
    due = desk.next_due(T0)
    book.connection.execute("CREATE TRIGGER no BEFORE INSERT ON desk BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        desk.take([alert(severity="warning", n="2")], {}, T0 + 2 * DAY)
    assert desk.next_due(T0) == due


def test_what_now_takes_a_route_before_the_digest_is_told_there_and_no_longer_in_the_digest(tmp_path: Path) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone, tree=DIGEST_TREE), T0)
    desk.take([alert("A"), alert("B"), alert("C")], {}, T0)
    desk.take([alert("C").resolved(T0 + 5)], {}, T0 + 5)
    now_first = {"matchers": ['alertname=~"A|C"'], "group_wait": "0s"}
    desk.reload(policy(phone, tree={**DIGEST_TREE, "routes": [now_first, *DIGEST_TREE["routes"]]}), T0 + 10)
    told(desk, T0 + 10, phone)
    assert [one.name for one in phone.got[0].alerts] == ["A"]
    for second in range(2):  # a message a turn
        told(desk, T0 + 2 * DAY + second, phone)
    (digest,) = [note for note in phone.got if note.kind == "digest"]
    assert {entry.alert.name: entry.alert.is_firing for entry in digest.entries} == {"B": True, "C": False}


def test_a_digest_with_another_receiver_keeps_its_day(tmp_path: Path) -> None:
    phone, other = Phone(), Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone, tree=DIGEST_TREE), T0)
    desk.take([alert("A")], {}, T0)
    desk.take([alert("A").resolved(T0 + 5)], {}, T0 + 5)
    desk.note(DigestNote(T0 + 6, is_good=True, text="backup of db is done"))
    tree = {"receiver": "other", "routes": [{"digest": {"at": "08:00"}}]}
    desk.reload(Policy(parse_route(tree, ["other"], []), {"other": other}, flap=FlapPolicy(changes=0)), T0 + 10)
    told(desk, T0 + 2 * DAY, other)
    (digest,) = other.got
    assert ([entry.alert.name for entry in digest.entries], len(digest.notes)) == (["A"], 1)


def test_a_silence_that_begins_later_is_looked_at_when_it_begins(tmp_path: Path) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk.silence(new_silence('alertname="DiskFull"', T0 + 3600, T0 + 3 * 3600, "later"), T0 + 1)
    now = T0 + 1
    while (due := desk.next_due(now)) is not None and due < T0 + 3.5 * 3600:
        now = max(due, now + 0.001)
        told(desk, now, phone)
    assert any("silenced by" in line.sentence and line.at == T0 + 3600 for line in desk.log())
    assert phone.heard == ["firing: 1 new", "firing: 1 new"]
    assert phone.got[1].at == pytest.approx(T0 + 3 * 3600, abs=1)


def test_a_receiver_that_leaves_with_a_message_under_way_leaves_nothing_due(tmp_path: Path) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    (claimed,) = desk.work(T0)
    desk.reload(Policy(), T0 + 1)
    desk.done(claimed, Retryable("no answer", kind="network"), T0 + 2)
    assert (desk.counts(), desk.work(T0 + 60)) == ({"expired": 1}, [])
    assert (desk.next_due(T0 + 60) or T0 + DAY) > T0 + 3600  # its group is looked at again some day


def test_each_receiver_is_counted_from_nothing_and_only_while_it_is_there(tmp_path: Path) -> None:
    phone = Phone(fails=lambda: Rejected("http status 404", kind="http_404"))
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    assert desk.deliveries == {"phone": Deliveries()}
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    assert desk.deliveries == {"phone": Deliveries(refused=1, error="http status 404", failing_since=T0)}
    desk.works("phone")
    assert desk.deliveries == {"phone": Deliveries(refused=1)}
    desk.reload(Policy(), T0 + 1)
    assert desk.deliveries == {}


def test_a_file_that_cannot_even_be_read_takes_no_silence_and_no_message_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone, path = Phone(fails=lambda: Retryable("no answer", kind="network")), tmp_path / "a.sqlite"
    book = Book(str(path))
    desk = Desk(book, policy(phone), T0)
    desk.silence(new_silence('alertname="Other"', T0, T0 + DAY, "moving it"), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)

    def unreadable(_: sqlite3.Connection) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(alerting.book, "_copy", unreadable)
    book.connection.execute("PRAGMA max_page_count = 1")
    for n in range(50):
        desk.take([alert("Other", n=str(n), text="x" * 4000)], {}, T0 + 1)
    assert "full" in desk.trouble
    assert ([one.reason for one in desk.silences()], desk.groups) == (["moving it"], 2)
    phone.fails = lambda: None
    told(desk, T0 + 61, phone)
    assert desk.trouble == ""
    told(desk, T0 + 62, phone)
    assert phone.heard == ["firing: 1 new"]
    desk.close()
    again = Desk(Book(str(path)), policy(phone), T0 + 63)
    assert ([one.reason for one in again.silences()], again.groups) == (["moving it"], 2)


def test_silences_of_a_file_that_could_not_be_opened_at_the_start_are_taken_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    desk = Desk(Book(str(path)), policy(Phone()), T0)
    desk.silence(new_silence('alertname="Other"', T0, T0 + DAY, "moving it"), T0)
    desk.close()

    def refused(*_: Any, **__: Any) -> Any:
        raise sqlite.UnavailableError("alerts: no room")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "open_database", refused)
        desk = Desk(Book(str(path)), policy(Phone()), T0)
    desk.silence(new_silence('alertname="New"', T0, T0 + DAY, "in memory"), T0)
    desk.work(T0 + 61)
    assert (desk.trouble, {one.reason for one in desk.silences()}) == ("", {"moving it", "in memory"})
    desk.close()
    again = Desk(Book(str(path)), policy(Phone()), T0 + 62)
    assert {one.reason for one in again.silences()} == {"moving it", "in memory"}


def test_what_waits_for_a_receiver_that_is_gone_is_given_up(tmp_path: Path) -> None:
    phone = Phone(fails=lambda: Retryable("no answer", kind="network"))
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk.reload(Policy(), T0 + 1)
    assert desk.counts() == {"expired": 1}
    assert "no receiver is called phone any more" in desk.log()[-1].sentence


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_wall_clock_that_jumps_moves_no_timer(tmp_path: Path, jump: float) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    desk.clock_was_set(jump, T0 + jump)
    assert desk.next_due(T0 + jump) == T0 + jump + 4 * 3600
    desk.take([alert(severity="critical", n="2", starts_at=T0 + jump + 10)], {}, T0 + jump + 10)
    assert desk.next_due(T0 + jump + 10) == T0 + jump + 300


def test_flapping_is_told_once_and_remembered_over_a_restart(tmp_path: Path) -> None:
    phone, path = Phone(), tmp_path / "a.sqlite"
    flap = FlapPolicy(changes=4, window=600, first_hold=300)
    desk = Desk(Book(str(path)), policy(phone, flap=flap), T0)
    one = alert(severity="critical")
    for second in range(0, 60, 10):
        is_on = second % 20 == 0
        desk.take([one if is_on else one.resolved(T0 + second)], {}, T0 + second)
        told(desk, T0 + second + 2, phone)
        desk = Desk(Book(str(path)), policy(phone, flap=flap), T0 + second + 3)
        desk.settle(T0 + second + 3)
    assert phone.heard[-1] == "firing: 1 flapping"
    count = len(phone.got)
    told(desk, T0 + 100, phone)
    assert len(phone.got) == count
    told(desk, T0 + 330, phone)  # it changed in the hold, so that is doubled
    told(desk, T0 + 930, phone)
    told(desk, T0 + 932, phone)
    assert phone.heard[-1] == "resolved: 1 resolved"


def test_a_failed_write_leaves_memory_as_the_file_has_it(tmp_path: Path) -> None:
    phone = Phone()
    book = Book(str(tmp_path / "a.sqlite"))
    desk = Desk(book, policy(phone), T0)
    book.connection.execute("CREATE TRIGGER no BEFORE INSERT ON desk BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        desk.take([alert(severity="critical")], {}, T0)
    assert desk.groups == 0
    book.connection.execute("DROP TRIGGER no")
    desk.take([alert(severity="critical")], {}, T0)
    told(desk, T0, phone)
    assert phone.heard == ["firing: 1 new"]


def test_labels_that_are_no_text_are_told_all_the_same(tmp_path: Path) -> None:
    phone = Phone()
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(phone), T0)
    odd = replace(
        alert(severity="critical"), labels=(("alertname", "DiskFull"), ("mount", "/m\udcff"), ("severity", "critical"))
    )
    desk.take([odd], {}, T0)
    told(desk, T0, phone)
    (note,) = phone.got
    assert dict(note.alerts[0].labels)["mount"] == "/m?"


def test_it_is_known_why_an_alert_would_not_be_told(tmp_path: Path) -> None:
    desk = Desk(Book(str(tmp_path / "a.sqlite")), policy(Phone()), T0)
    desk.silence(new_silence('alertname="DiskFull"', T0, T0 + 100, "moving it"), T0)
    assert "moving it" in desk.quiet(alert().labels, T0)
    assert desk.quiet(Alert((("alertname", "Other"),)).labels, T0) == ""
    assert desk.receivers(alert().labels) == ["phone"]
