"""The keeper with its threads, a clock that the test moves, and a desk that stalls or fails when told to."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from agent import alert_teller
from agent.alert_commands import AlertCommands
from agent.alert_keeper import AlertKeeper
from agent.alert_metrics import RECEIVER
from agent.core.clock import FakeClock
from agent.core.errors import Rejected, Retryable
from agent.core.labels import Labels
from agent.core.secrets import Secret
from agent.rules_lab import RulesLab
from alerting.dependencies import NothingKnown
from alerting.notify.message import Alert, Notification, SentReceipt
from alerting.options import AlertingOptions, HeartbeatOptions, RouteOptions, RulesOptions
from tests.alerting.pictures import T0
from tests.servers.scripted_http import ScriptedHttp

PATIENCE_S = 30.0  # of the test, real
RULES = """
groups:
  - name: always
    rules:
      - {alert: Fires, expr: vector(1), labels: {severity: critical}}
"""


@dataclass
class Phone:
    """A receiver that notes what reaches it, or fails as told."""

    kind: ClassVar[str] = "phone"
    can_summarize: ClassVar[bool] = True
    number: int = 1
    address: str = ""
    fails: Exception | None = field(default=None, compare=False)
    got: list[Notification] = field(default_factory=list, compare=False)

    def send(self, notification: Notification, previous: str | None) -> SentReceipt:
        if self.fails is not None:
            raise self.fails
        self.got.append(notification)
        return SentReceipt("id")

    def preview(self, notification: Notification) -> str:
        return notification.reason

    def build(self, **_: object) -> Phone:
        return self


@dataclass
class Cluster(Phone):
    """One that routes by itself."""

    kind: ClassVar[str] = "alertmanager"
    resend: float = 60.0
    deadline: float = 5.0
    handed: list[list[str]] = field(default_factory=list, compare=False)

    def forward(self, alerts: list[Alert], now: float, interval: float) -> None:
        if self.fails is not None:
            raise self.fails
        self.handed.append([one.name for one in alerts])


class Past:
    """History that remembers what rules record."""

    def __init__(self) -> None:
        self.lab = RulesLab()

    def querier(self) -> RulesLab:
        return self.lab

    def record(self, source: str, time_ms: int, samples: dict[Labels, float]) -> None:
        self.lab.record(source, time_ms, samples)


def options(*phones: Phone, **more: Any) -> AlertingOptions:
    receivers = {f"{one.kind}{one.number}": one for one in phones}
    route = RouteOptions(receiver=f"{phones[0].kind}{phones[0].number}", group_wait=0.0) if len(phones) > 1 else None
    given = {"route": route} if route is not None else {}
    return AlertingOptions(rules=RulesOptions(defaults=False), receivers=receivers, timezone="UTC", **given, **more)


class Site:
    """A keeper that runs."""

    def __init__(self, directory: Path, given: AlertingOptions) -> None:
        self.rules_dir = directory / "rules.d"
        self.rules_dir.mkdir()
        (self.rules_dir / "a.yaml").write_text(RULES)
        self.clock = FakeClock(T0)
        self.keeper = AlertKeeper(
            given, str(self.rules_dir), str(directory), self.clock, Past(), NothingKnown(), "host1"
        )

    async def until(self, condition: Callable[[], object], what: str, step: float = 0.5) -> None:
        """Let time pass, in steps that leave the threads some, until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; troubles: {self.keeper.troubles()}"
            await self.clock.advance(step)
            await asyncio.sleep(0.002)

    async def opened(self) -> Any:
        """The desk."""
        await self.until(lambda: self.keeper.desk, "the desk")
        return self.keeper.desk

    def reload(self, given: AlertingOptions) -> None:
        self.keeper.take_over(given, self.keeper.read(given, str(self.rules_dir)))


@asynccontextmanager
async def living(directory: Path, given: AlertingOptions) -> AsyncIterator[Site]:
    site = Site(directory, given)
    running = asyncio.create_task(site.keeper.run())
    try:
        yield site
        assert not running.done()
    finally:
        running.cancel()
        await site.keeper.close()


class Stall:
    """In the place of a method: it does its work and comes back only when it is let go; the next calls are quick."""

    def __init__(self, method: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, patience: float = 0.2) -> None:
        monkeypatch.setattr(alert_teller, "_DESK_TIMEOUT_S", patience)
        self._method = method
        self.calls = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        found = self._method(*arguments)
        if not self.has_begun.is_set() and found != []:
            self.has_begun.set()
            assert self.may_end.wait(PATIENCE_S)
        return found


async def test_messages_given_out_by_a_turn_that_overstayed_are_sent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        desk.work = stall = Stall(desk.work, monkeypatch)
        await site.until(stall.has_begun.is_set, "a message to be given out")
        await site.until(site.keeper.troubles, "the trouble to be seen")
        assert phone.got == []
        stall.may_end.set()
        await site.until(lambda: desk.counts() == {"sent": 1}, "the message")
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")
    assert [note.reason for note in phone.got] == ["1 new"]


async def test_an_outcome_that_was_noted_too_late_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        desk.done = stall = Stall(desk.done, monkeypatch)
        await site.until(stall.has_begun.is_set, "an outcome")
        await site.until(site.keeper.troubles, "the trouble to be seen")
        stall.may_end.set()
        await site.until(lambda: stall.calls >= 2 and not site.keeper.troubles(), "the outcome to be repeated")
        assert (desk.counts(), desk.deliveries["phone1"].sent) == ({"sent": 1}, 1)
    assert len(phone.got) == 1


async def test_an_outcome_that_cannot_be_noted_is_repeated_until_it_is(tmp_path: Path) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        done, failures = desk.done, [sqlite3.IntegrityError("no"), ZeroDivisionError("division by zero")]

        def failing(*arguments: Any) -> Any:
            if failures:
                raise failures.pop(0)
            return done(*arguments)

        desk.done = failing
        await site.until(lambda: desk.counts() == {"sent": 1}, "the outcome to be noted")
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")
    assert (failures, len(phone.got)) == ([], 1)


async def test_a_message_that_is_due_and_not_sent_for_ten_minutes_is_a_trouble(tmp_path: Path) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        desk.work = lambda _now: []
        desk.take([Alert((("alertname", "Late"), ("severity", "critical")), starts_at=T0)], {}, T0)
        desk._transact(lambda: desk._decide(site.keeper.now()))
        await site.until(lambda: site.keeper.summary()["queued"] == 1, "the message to be counted")
        assert site.keeper.troubles() == []
        await site.until(site.keeper.troubles, "the trouble to be seen", step=5.0)
        (trouble,) = site.keeper.troubles()
        assert "a message has been due for 10m" in trouble


async def test_a_mistake_of_our_own_ends_nothing_and_is_logged(tmp_path: Path) -> None:
    phone = Phone()
    with capture_logs() as logs:
        async with living(tmp_path, options(phone)) as site:
            desk = await site.opened()
            work, failures = desk.work, [KeyError("gone"), KeyError("gone")]

            def failing(now: float) -> Any:
                if failures:
                    raise failures.pop()
                return work(now)

            desk.work = failing
            await site.until(site.keeper.troubles, "the trouble to be seen")
            assert site.keeper.summary()["state"] == "failing"
            await site.until(lambda: phone.got, "the message")
            await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")
    (line,) = [each for each in logs if each["event"] == "alerts.cannot_tell"]
    assert isinstance(line["exc_info"], KeyError)


async def test_alerting_opens_whatever_stood_in_its_way_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = Phone()
    given = options(phone)
    failures = [ZeroDivisionError("division by zero")]
    make = AlertKeeper._open

    def failing(keeper: AlertKeeper) -> Any:
        if failures:
            raise failures.pop()
        return make(keeper)

    monkeypatch.setattr(AlertKeeper, "_open", failing)
    async with living(tmp_path, given) as site:
        assert not site.keeper.is_open
        await site.until(site.keeper.troubles, "the trouble to be seen")
        assert site.keeper.is_open  # whoever waits for the start need not wait for its end
        assert site.keeper.summary()["state"] == "failing"
        await site.until(lambda: phone.got, "the message")
        assert site.keeper.is_open


async def test_a_forwarder_that_trips_is_seen_and_goes_on(tmp_path: Path) -> None:
    cluster = Cluster(fails=ValueError("no such thing"))
    async with living(tmp_path, options(Phone(), cluster)) as site:
        await site.until(lambda: "no such thing" in str(site.keeper.troubles()), "the trouble to be seen")
        cluster.fails = None
        await site.until(lambda: cluster.handed, "the alerts")
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")
    assert cluster.handed[0] == ["Fires"]


async def test_a_heartbeat_with_an_impossible_address_leaves_alerting_alone(tmp_path: Path) -> None:
    phone = Phone()
    heartbeat = HeartbeatOptions(Secret("https://[::1/x"))
    async with living(tmp_path, options(phone, heartbeat=heartbeat)) as site:
        await site.until(lambda: phone.got, "the message")
        pinger = site.keeper.heartbeat
        assert pinger is not None
        await site.until(lambda: pinger.error, "the ping")
        assert "not an http address" in pinger.error


async def test_a_heartbeat_takes_new_options_at_a_reload(tmp_path: Path) -> None:
    with ScriptedHttp() as hook:
        secret = Secret(f"{hook.url}/p")
        slow = HeartbeatOptions(secret, interval=86400.0 * 30, suffixes=False)
        phone = Phone()
        async with living(tmp_path, options(phone, heartbeat=slow)) as site:
            await site.until(lambda: phone.got, "the message")
            site.reload(options(phone, heartbeat=HeartbeatOptions(secret, interval=5.0, suffixes=False)))
            await site.until(lambda: hook.requests, "a ping")
    assert hook.requests[0].path == "/p"


async def test_one_thing_that_works_does_not_hide_another_that_does_not(tmp_path: Path) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        await site.until(lambda: phone.got, "the message")
        take, turns = desk.take, []

        def failing(*_: Any) -> None:
            raise sqlite3.IntegrityError("no room")

        desk.take = failing
        await site.until(lambda: site.keeper.troubles() == ["no room"], "the trouble to be seen")
        work = desk.work
        desk.work = lambda now: turns.append(now) or work(now)
        site.keeper.teller.look()
        await site.until(lambda: len(turns) > 1, "another turn of telling")
        assert site.keeper.troubles() == ["no room"]
        desk.take, desk.work = take, failing
        before = site.keeper._evaluated_at or 0.0
        await site.until(lambda: (site.keeper._evaluated_at or 0.0) > before, "another evaluation")
        await site.until(lambda: site.keeper.troubles() == ["no room"], "the other trouble to be seen")
        before = site.keeper._evaluated_at or 0.0
        await site.until(lambda: (site.keeper._evaluated_at or 0.0) > before, "another evaluation")
        assert site.keeper.troubles() == ["no room"]
        desk.work = work
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")


@pytest.mark.parametrize("is_late", [True, False], ids=["it overstays", "it is only slow"])
async def test_a_reload_that_the_desk_cannot_take_is_repeated_and_a_newer_one_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    first, second, third = Phone(1), Phone(2), Phone(3)
    async with living(tmp_path, options(first)) as site:
        desk = await site.opened()
        await site.until(lambda: first.got, "the message")
        desk.reload = stall = Stall(desk.reload, monkeypatch, 0.2 if is_late else PATIENCE_S)
        site.reload(options(second))
        await site.until(stall.has_begun.is_set, "the reload")
        if is_late:
            await site.until(site.keeper.troubles, "the trouble to be seen")
        (site.rules_dir / "a.yaml").write_text(RULES.replace("Fires", "Burns"))
        site.reload(options(third))
        stall.may_end.set()
        await site.until(lambda: third.got, "the message to the newest receiver")
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")
        assert list(desk.policy.notifiers) == ["phone3"]
        await site.until(lambda: "Burns" in str(third.got), "an alert of the new rules")


async def test_rules_that_cannot_be_loaded_at_a_reload_are_loaded_later(tmp_path: Path) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        await site.until(lambda: phone.got, "the message")
        load, failures = site.keeper.engine.load, [TimeoutError("an earlier call has not come back")]

        def failing(*arguments: Any) -> None:
            if failures:
                raise failures.pop()
            load(*arguments)

        site.keeper.engine.load = failing  # type: ignore[method-assign]
        (site.rules_dir / "a.yaml").write_text(RULES.replace("Fires", "Burns"))
        site.reload(options(phone))
        await site.until(site.keeper.troubles, "the trouble to be seen")
        await site.until(lambda: "Burns" in str(phone.got), "an alert of the new rules")
        await site.until(lambda: not site.keeper.troubles(), "the trouble to be over")


async def test_what_is_said_of_a_receiver_ends_with_its_cause(tmp_path: Path) -> None:
    refused = Phone(fails=Rejected("http status 404", kind="http_404"))
    async with living(tmp_path, options(refused)) as site:
        assert readings(site) == {"phone1": (0, 0, 0, False)}  # from the start, so that the first refusal is a rise
        await site.until(lambda: site.keeper.troubles() == ["receiver phone1: http status 404"], "the refusal")
        assert readings(site) == {"phone1": (0, 1, 0, True)}
        refused.fails = None
        assert (await site.keeper.try_out("phone1"))["sent"]
        assert (site.keeper.troubles(), readings(site)) == ([], {"phone1": (0, 1, 0, False)})


async def test_a_receiver_that_is_gone_or_changed_is_not_failing(tmp_path: Path) -> None:
    down = Retryable("no answer", kind="network")
    async with living(tmp_path, options(Phone(1, fails=down), Phone(2))) as site:
        await site.until(lambda: readings(site)["phone1"][3], "the failure")
        desk = await site.opened()
        desk.work = lambda _now: []  # no further try
        site.reload(options(Phone(1, fails=down)))
        await site.until(lambda: list(desk.deliveries) == ["phone1"], "the reload")
        assert readings(site)["phone1"][3]  # it is as it was
        site.reload(options(Phone(1, "elsewhere", fails=down)))
        await site.until(lambda: not readings(site)["phone1"][3], "the reload")
        assert readings(site)["phone1"][2] == 1  # a counter never falls
        site.reload(options(Phone(3)))
        await site.until(lambda: list(readings(site)) == ["phone3"], "the reload")
        assert site.keeper.troubles() == []


async def test_a_silence_asks_the_desk_on_its_own_thread(tmp_path: Path) -> None:
    phone = Phone()
    async with living(tmp_path, options(phone)) as site:
        desk = await site.opened()
        await site.until(lambda: phone.got, "the message")
        quiet, threads = desk.quiet, set()

        def watched(*arguments: Any) -> str:
            threads.add(threading.current_thread().name)
            return str(quiet(*arguments))

        desk.quiet = watched
        commands = AlertCommands(lambda: site.keeper)
        answer = await commands.silence({"matchers": ["alertname=Fires"], "duration": "2h", "reason": "moving"})
        assert (answer["matching"], threads) == (1, {"alerts"})


def readings(site: Site) -> dict[str, tuple[Any, ...]]:
    """What /metrics has of each receiver."""
    found = [one for one in site.keeper.readings() if one.group is RECEIVER]
    return {one.tags[0]: tuple(one.values) for one in found}
