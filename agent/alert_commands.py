"""The commands of the control socket that concern alerting; the same answers serve `/api/v1/alerts/...`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from agent.alert_faces import AlertsView, silence_row
from agent.alert_keeper import AlertKeeper
from agent.control import Command, ControlError
from agent.core.query import QueryError
from agent.core.units import parse_duration
from alerting.desk import Desk
from alerting.intervals import TimeInterval, parse_interval, recurring
from alerting.silences import Silence, new_silence

T = TypeVar("T")

CHANGING: Final = frozenset({"silence", "unsilence", "notify_test"})
_LONGEST_SILENCE_S: Final = 366 * 86400.0
_MOST_LINES: Final = 10_000


class AwayError(ControlError):
    """Alerting is off, starting or stuck: the question may be right."""


class AlertCommands:
    """`by_name` is what the control socket serves. `keeper` None: alerting is off, which each command says."""

    def __init__(self, keeper: Callable[[], AlertKeeper | None]) -> None:
        self._keeper_now = keeper

    def by_name(self) -> Mapping[str, Command]:
        """Command name -> coroutine."""
        return {
            "alerts": self.alerts,
            "alerts_log": self.log,
            "alerts_history": self.history,
            "rules": self.rules,
            "silence": self.silence,
            "silences": self.silences,
            "unsilence": self.unsilence,
            "notify_test": self.notify_test,
        }

    @property
    def _keeper(self) -> AlertKeeper:
        keeper = self._keeper_now()
        if keeper is None:
            raise AwayError("alerting is turned off; `alerting: {enabled: true}` and history turn it on")
        return keeper

    async def alerts(self, _: Mapping[str, Any]) -> Any:
        """Pending, firing and lately resolved alerts."""
        view = AlertsView(self._keeper_now)
        return await self._desk(lambda _: view.active())

    async def rules(self, _: Mapping[str, Any]) -> Any:
        """Rules in force, and what is wrong with those left out."""
        keeper = self._keeper
        return {
            "rules": AlertsView(self._keeper_now).rules(),
            "left_out": [str(problem) for problem in keeper.rules.errors],
        }

    async def log(self, request: Mapping[str, Any]) -> Any:
        """Decisions, oldest first. `limit`, `receiver`, `since_s`: seconds back."""
        keeper = self._keeper
        limit = min(_number(request, "limit", 100), _MOST_LINES)
        back = _number(request, "since_s", 0)
        since = keeper.now() - back if back else 0.0
        receiver = request.get("receiver")
        return [entry._asdict() for entry in await self._desk(lambda desk: desk.log(int(limit), receiver, since))]

    async def history(self, request: Mapping[str, Any]) -> Any:
        """Spans in which alerts fired, newest first. `since_s`: seconds back."""
        keeper = self._keeper
        end = keeper.now()
        since = max(_number(request, "since_s", 7 * 86400.0), 1.0)
        try:
            return await asyncio.to_thread(AlertsView(self._keeper_now).history, end - since, end)
        except QueryError as error:
            raise ControlError(str(error)) from error

    async def silences(self, _: Mapping[str, Any]) -> Any:
        """Silences, those in force first."""
        view = AlertsView(self._keeper_now)
        return await self._desk(lambda _: view.silences())

    async def silence(self, request: Mapping[str, Any]) -> Any:
        """Add one. `duration`, `matchers`, `reason`, `created_by`, `starts_in`, `until_resolved`, `windows`.

        `between`, `weekdays`, `timezone`: windows in short, such as 22:00-06:00 on friday in Europe/Berlin.
        """
        keeper = self._keeper
        silence = _silence(request, keeper.now(), keeper.options.zone)
        before = await self._desk(lambda desk: desk.silences())
        await self._desk(lambda desk: desk.silence(silence, keeper.now()))
        keeper.teller.look()
        active = await self.alerts({})
        muted = [each for each in active if each["state"] != "resolved"]
        matching = [each for each in muted if silence.matches(tuple(sorted(each["labels"].items())))]
        overlapping = [silence_row(one, keeper.now()) for one in before if one.overlaps(silence)]
        return silence_row(silence, keeper.now()) | {"matching": len(matching), "overlapping": overlapping}

    async def unsilence(self, request: Mapping[str, Any]) -> Any:
        """End the one whose id begins with `id`."""
        keeper, wanted = self._keeper, str(request.get("id", ""))
        now = keeper.now()
        found = [one.id for one in await self._desk(lambda desk: desk.silences())
                 if wanted and one.id.startswith(wanted) and one.ends_at > now]  # fmt: skip
        if len(found) != 1:
            many = f"{len(found)} silences begin with {wanted!r}; write more of the id"
            raise ControlError(many if found else f"no silence in force has the id {wanted!r}; `vigilhost silences`")
        ended = await self._desk(lambda desk: desk.unsilence(found[0], keeper.now()))
        keeper.teller.look()
        return silence_row(ended, keeper.now())

    async def notify_test(self, request: Mapping[str, Any]) -> Any:
        """Send a test to `receiver`, past routes and silences."""
        keeper, receiver = self._keeper, str(request.get("receiver", ""))
        try:
            return await keeper.try_out(receiver)
        except KeyError:
            names = ", ".join(sorted(keeper.options.receivers)) or "none"
            raise ControlError(f"no receiver is called {receiver!r}; there are {names}") from None

    async def _desk(self, step: Callable[[Desk], T]) -> T:
        try:
            return await self._keeper.teller.on_desk(step)
        except (sqlite3.Error, TimeoutError) as error:
            raise AwayError(f"alerting does not answer: {error}") from error


def _silence(request: Mapping[str, Any], now: float, zone: str) -> Silence:
    """`zone`: of windows that name none. Raise ControlError with what is wrong."""
    matchers = request.get("matchers") or []
    try:
        starts_at = now + parse_duration(str(request.get("starts_in") or "0"))
        lasts = parse_duration(str(request.get("duration", "")))
        if lasts > _LONGEST_SILENCE_S:
            raise ValueError("a silence lasts a year at most; what is never to be told belongs into the routes")
        windows = [_window(raw, at) for at, raw in enumerate(request.get("windows") or [])]
        between, weekdays = (_texts(request.get(name)) for name in ("between", "weekdays"))
        windows += recurring(between, weekdays, str(request.get("timezone") or zone))
        return new_silence(
            matchers if isinstance(matchers, str) else _texts(matchers),
            starts_at,
            starts_at + lasts,
            str(request.get("reason") or ""),
            str(request.get("created_by") or ""),
            windows,
            bool(request.get("until_resolved")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ControlError(str(error)) from error


def _texts(raw: Any) -> list[str]:
    return [str(one) for one in raw or ()]


def _window(raw: Any, at: int) -> TimeInterval:
    if not isinstance(raw, Mapping):
        raise ValueError(f"windows[{at}]: found {raw!r}; a time interval as in alerting.time_intervals would be right")
    return parse_interval(raw, f"windows[{at}]")


def _number(request: Mapping[str, Any], name: str, default: float) -> float:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ControlError(f"{name}: found {value!r}; a number of at least 0 would be right")
    return value
