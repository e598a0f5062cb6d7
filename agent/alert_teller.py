"""Tells people: asks the desk what is due, hands it to the receivers, and has the desk note what came of it.

The desk has one thread and each receiver one. A call of the desk that overstays may still do its work later, so nothing
is taken for lost or done because nobody answered: what the desk believes under way is compared with what is, at each
turn, and what came of a message is told to the desk until it has taken it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from agent.core.clock import NS, Clock
from agent.core.errors import Retryable
from agent.core.isolation import Worker
from agent.core.labels import Labels, labels_of
from agent.core.units import format_duration
from agent.core.waiting import sleep_unless
from agent.troubles import Troubles
from alerting.attempts import Claimed, Outcome, attempt
from alerting.desk import Desk
from alerting.notify.message import DigestNote, Notifier, SentReceipt
from alerting.policy import Policy, sample_notification

T = TypeVar("T")
log = structlog.get_logger("alerting")

_DESK_TIMEOUT_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 4.0
_LONGEST_SLEEP_S: Final = 60.0
_SETTLE_S: Final = 90.0  # after a start the groups of before speak at the latest
_LONGEST_WAIT_S: Final = 600.0  # of a message that is due: beyond, something keeps it that nobody has noticed


class Teller:
    """Belongs to the event loop. `has_settled`: has every rule been evaluated since the start?"""

    def __init__(
        self, clock: Clock, troubles: Troubles, has_settled: Callable[[], bool], own_labels: Labels = ()
    ) -> None:
        """`own_labels`: on the alert of a test message."""
        self._clock = clock
        self._troubles = troubles
        self._has_settled = has_settled
        self._own_labels = own_labels
        self._worker = Worker("alerts")
        self._senders: dict[str, Worker] = {}
        self._under_way: set[str] = set()  # ids of messages that are being sent, or whose outcome is not noted yet
        self._background: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._due_at: float | None = 0.0
        self._is_busy = True  # the last turn has given messages out, so that another may follow at once
        self._opened_at = 0.0
        self._oldest_due_at: float | None = None
        self._opened = asyncio.Event()
        self.desk: Desk | None = None
        self.queued = 0  # messages that wait

    async def open(self, make: Callable[[], Desk]) -> Desk:
        """Until `make` has succeeded, on the thread of the desk."""
        self.desk = await self._troubles.insist("alerts.cannot_open", lambda: self._worker.call(make, _DESK_TIMEOUT_S))
        self._opened_at = self._clock.monotonic()
        self._opened.set()
        return self.desk

    async def close(self) -> None:
        """Let what is being sent come back, for a moment; what is not back is sent again after the next start."""
        if self._background:
            await asyncio.wait(self._background, timeout=_CLOSE_TIMEOUT_S)
        if self.desk is not None:
            try:
                await self._worker.call(self.desk.close, _CLOSE_TIMEOUT_S)
            except (sqlite3.Error, TimeoutError) as error:
                log.error("alerts.left_open", reason=str(error))
        for task in self._background:
            task.cancel()
        for worker in (self._worker, *self._senders.values()):
            worker.close()

    def now(self) -> float:
        """Unix seconds."""
        return self._clock.wall_ns() / NS

    def look(self) -> None:
        """Something has changed: see at once what is due."""
        self._wake.set()

    async def on_desk(self, step: Callable[[Desk], T]) -> T:
        """Something of the desk, away from the event loop. Raise sqlite3.Error or TimeoutError."""
        desk = self.desk
        if desk is None:
            raise TimeoutError("alerting is still starting")
        return await self._worker.call(lambda: step(desk), _DESK_TIMEOUT_S)

    # Turns.

    async def turn(self) -> None:
        """Wait until something is due or somebody wakes us, and do it."""
        await self._sleep()
        self._wake.clear()
        self._due_at, self._is_busy = self.now(), False  # unless this turn comes to its end, the next one is due
        is_settled = self._has_settled() or self._clock.monotonic() - self._opened_at > _SETTLE_S
        under_way = frozenset(self._under_way)
        claimed, self._due_at = await self.on_desk(lambda desk: self._work(desk, is_settled, under_way))
        self._is_busy = bool(claimed)
        for one in claimed:
            self._under_way.add(one.notification.message_id)
            self._in_background(self._send(one))

    def _work(self, desk: Desk, is_settled: bool, under_way: frozenset[str]) -> tuple[list[Claimed], float | None]:
        """On the thread of the desk."""
        now = self.now()
        desk.follow_clock(now - self._clock.monotonic(), now)
        if is_settled:
            desk.settle(now)
        desk.requeue_lost(under_way, now)
        claimed = desk.work(now)
        self.queued, self._oldest_due_at = desk.waiting()
        return claimed, desk.next_due(now)

    async def _sleep(self) -> None:
        wait = _LONGEST_SLEEP_S if self._due_at is None else min(self._due_at - self.now(), _LONGEST_SLEEP_S)
        if wait <= 0 and not self._is_busy:
            wait = 1.0  # what is due cannot be done now: its receiver is busy
        await sleep_unless(self._wake, self._clock, self._clock.monotonic() + max(wait, 0.01))

    # Messages.

    async def _send(self, claimed: Claimed) -> None:
        note = claimed.notification
        try:
            outcome = await self._deliver(claimed)
            self._report(claimed, outcome)
            await self._troubles.insist(
                "alerts.cannot_note", lambda: self.on_desk(lambda desk: desk.done(claimed, outcome, self.now()))
            )
        finally:
            self._under_way.discard(note.message_id)  # where it ends otherwise, the next turn queues it again
            self._wake.set()

    async def _deliver(self, claimed: Claimed) -> Outcome:
        assert self.desk is not None  # it gave the message out
        receiver = claimed.notification.receiver
        notifier = self.desk.policy.notifiers.get(receiver)
        if notifier is None:
            return Retryable("no receiver of that name any more", kind="gone")
        return await self._attempt(receiver, notifier, claimed)

    def _report(self, claimed: Claimed, outcome: Outcome) -> None:
        assert self.desk is not None  # it gave the message out
        receiver = claimed.notification.receiver
        before = self.desk.deliveries.get(receiver)
        was_failing = before is not None and before.failing_since is not None
        if isinstance(outcome, SentReceipt):
            log.info("notify.sent", receiver=receiver, reason=claimed.notification.reason)
        elif not (was_failing and isinstance(outcome, Retryable)):  # `alerts log` has every try, /metrics counts them
            log.warning("notify.failed", receiver=receiver, reason=str(outcome), attempt=claimed.attempt,
                        exc_info=outcome.__cause__)  # fmt: skip

    async def _attempt(self, receiver: str, notifier: Notifier, claimed: Claimed) -> Outcome:
        worker = self._senders.setdefault(receiver, Worker(f"notify {receiver}"))
        patience = 10 * float(getattr(notifier, "deadline", 30.0)) + 30.0  # it keeps a deadline for each request
        try:
            return await worker.call(partial(attempt, notifier, claimed), patience)
        except TimeoutError as error:
            return Retryable(f"{receiver}: {str(error) or 'it has not come back'}", kind="timeout")

    async def try_out(self, receiver: str, policy: Policy) -> dict[str, Any]:
        """Send a test to a receiver, past routes and outbox: what was rendered, and what came of it. Raise KeyError."""
        notifier = policy.notifiers[receiver]
        labels = labels_of({**dict(self._own_labels), "alertname": "Test", "severity": "info"})
        note = sample_notification(receiver, policy, labels, self.now(), uuid.uuid4().hex)
        outcome = await self._attempt(receiver, notifier, Claimed(0, note, None, 1))
        is_sent = isinstance(outcome, SentReceipt)
        if is_sent and self.desk is not None:
            self.desk.works(receiver)
        detail = outcome.detail if isinstance(outcome, SentReceipt) else str(outcome)
        return {"receiver": receiver, "sent": is_sent, "detail": detail, "rendered": notifier.preview(note)}

    def note(self, is_good: bool, text: str) -> None:
        """A line for the next digests, such as the result of a backup."""
        self._in_background(self._note(DigestNote(self.now(), is_good, text)))

    async def _note(self, note: DigestNote) -> None:
        await self._opened.wait()
        await self._troubles.insist("alerts.cannot_note", lambda: self.on_desk(lambda desk: desk.note(note)))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else; a mistake of ours in it is said."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - one message that fails leaves the others be; `fault` logs it
                self._troubles.fault("alerts.cannot_send", error)
            else:
                self._troubles.clear("alerts.cannot_send")

        task = asyncio.create_task(guarded())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # What others ask.

    def late(self) -> str:
        """A sentence about a message that waits without a reason; "" when none does."""
        waits = 0.0 if self._oldest_due_at is None else self.now() - self._oldest_due_at
        if waits < _LONGEST_WAIT_S:
            return ""
        return f"a message has been due for {format_duration(float(round(waits)))} and is not sent"
