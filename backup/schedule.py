"""When a job runs next: a pure function of its schedule, what it did last, and the time.

A slot is a moment that the schedule names; a run belongs to one slot. What was missed is made up for once, by the
newest missed slot. Cron semantics at clock changes are Debian's: a slot in the hour that is skipped runs right after
it, one in the hour that comes twice runs once.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from agent.core.options import option
from agent.core.units import Seconds

_TIME = r"([01]?\d|2[0-3]):([0-5]\d)"
_HOURLY = re.compile(r"hourly(?: :?([0-5]?\d))?")
_DAILY = re.compile(rf"daily {_TIME}")
_WEEKLY = re.compile(rf"weekly (mon|tue|wed|thu|fri|sat|sun)[a-z]* {_TIME}")
_MONTHLY = re.compile(rf"monthly ([1-9]|1\d|2[0-8]|last) {_TIME}")
_FORMS = "write it like daily 03:00, hourly :15, weekly sun 03:00, monthly 1 03:00, never, or as cron does: 0 3 * * *"
RETRY_LONGEST_S = 6 * 3600.0
_SLOTS_LOOKED_AT = 32  # enough for nights and weekends that a schedule leaves out
BELIEVED_AHEAD_S = 25 * 3600.0  # a clock is set back by less when its zone was wrong, or NTP mended it


def cron_of(text: str) -> str | None:
    """A schedule as cron's five fields; None for `never`. Raise ValueError."""
    words = " ".join(text.lower().split())
    if words == "never":
        return None
    if match := _HOURLY.fullmatch(words):
        return f"{int(match[1] or 0)} * * * *"
    if match := _DAILY.fullmatch(words):
        return f"{int(match[2])} {int(match[1])} * * *"
    if match := _WEEKLY.fullmatch(words):
        return f"{int(match[3])} {int(match[2])} * * {match[1]}"
    if match := _MONTHLY.fullmatch(words):
        day = "L" if match[1] == "last" else match[1]
        return f"{int(match[3])} {int(match[2])} {day} * *"
    if len(words.split()) != 5:
        raise ValueError(f"is no schedule; {_FORMS}")
    try:
        next(CronSim(words, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"is no schedule ({str(error).lower() or 'it never comes'}); {_FORMS}") from error
    return words


def check_schedule(text: str) -> None:
    """Raise ValueError unless it is a schedule."""
    cron_of(text)


def check_zone(text: str) -> None:
    """Raise ValueError unless it is a time zone of this host."""
    if text != "UTC" and text not in available_timezones():
        raise ValueError("is no time zone; write it like Europe/Berlin or UTC")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job runs, and what happens when that does not work."""

    at: str = option("daily 03:00", "Moments, in words or as cron does.", check=check_schedule)
    zone: str = option("UTC", "Time zone of those moments.", check=check_zone)
    jitter: Seconds = option(0.0, "Most it starts later, by an amount that is fixed for each job and slot.", minimum=0)
    catch_up: bool = option(True, "Whether a slot missed while the agent was down is made up for, once.")
    retries: int = option(3, "Tries after the first failed one, before the next slot.", minimum=0, maximum=20)
    retry_wait: Seconds = option(300.0, "Time before the first retry; doubles each time.", minimum=1)


@dataclass(frozen=True, slots=True)
class History:
    """What is kept of a job between runs, in Unix seconds.

    `known_since`: when the job was first seen; nothing before it was missed. `last_slot`: the last slot that succeeded,
    None when none did. `tried_slot`, `tries`, `last_try_at`: the slot tried last, how often it failed, when the last
    try ended.
    """

    known_since: float
    last_slot: float | None = None
    tried_slot: float | None = None
    tries: int = 0
    last_try_at: float | None = None

    def succeeded(self, slot: float) -> History:
        return History(self.known_since, slot)

    def failed(self, slot: float, now: float) -> History:
        tries = self.tries + 1 if self.tried_slot == slot else 1
        return History(self.known_since, self.last_slot, slot, tries, now)

    def put_off(self, slot: float, now: float) -> History:
        """Something else works on the job: that uses up no try."""
        tries = self.tries if self.tried_slot == slot else 0
        return History(self.known_since, self.last_slot, slot, tries, now)


@dataclass(frozen=True, slots=True)
class Run:
    """The next run. `at` may lie in the past: it is due. `attempt` counts from 1."""

    slot: float
    at: float
    attempt: int = 1
    is_catch_up: bool = False


def next_run(schedule: Schedule, history: History, now: float, job: str = "") -> Run | None:
    """When `job` runs next, in Unix seconds; None for a schedule that never comes.

    A last slot more than a day ahead (a clock that had been wrong) is not believed.
    """
    cron = cron_of(schedule.at)
    if cron is None:
        return None
    zone = ZoneInfo(schedule.zone)
    coming = _slot(cron, zone, now, is_past=False)
    recent = _slot(cron, zone, now, is_past=True)
    if coming is None:
        return None
    done = history.last_slot
    if done is not None and done > max(coming, now + BELIEVED_AHEAD_S):
        done = recent  # the future that it was stamped in never came
    is_open = recent is not None and recent > max(done if done is not None else 0.0, history.known_since)
    if recent is not None and is_open and (found := _due(schedule, history, recent, now, job)) is not None:
        return found
    if done is not None and done >= coming:
        # The clock was set back over a slot that has run.
        after = _slot(cron, zone, done, is_past=False)
        return None if after is None else Run(after, after + _jitter(schedule, job, after))
    return Run(coming, coming + _jitter(schedule, job, coming))


def longest_gap(schedule: Schedule, now: float) -> float | None:
    """The longest time, in seconds, between two of the slots to come; None for a schedule that never comes."""
    cron = cron_of(schedule.at)
    if cron is None:
        return None
    coming = CronSim(cron, datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(schedule.zone)))
    slots = [one.timestamp() for one in itertools.islice(coming, _SLOTS_LOOKED_AT)]
    return max((later - earlier for earlier, later in itertools.pairwise(slots)), default=None)


def _due(schedule: Schedule, history: History, slot: float, now: float, job: str) -> Run | None:
    """The run of a slot that has come and did not succeed yet; None when it is not tried (any more)."""
    start = slot + _jitter(schedule, job, slot)
    if history.tried_slot != slot or history.last_try_at is None:
        # A minute late is the scheduler's own; more is downtime.
        is_late = now > start + 60.0
        return Run(slot, start, 1, is_late) if schedule.catch_up or not is_late else None
    if history.tries > schedule.retries:
        return None
    wait = min(schedule.retry_wait * 2.0 ** max(0, history.tries - 1), RETRY_LONGEST_S)
    # A clock set back does not make the retry wait for the old future.
    return Run(slot, min(history.last_try_at, now) + wait, history.tries + 1)


def _slot(cron: str, zone: ZoneInfo, now: float, *, is_past: bool) -> float | None:
    """The newest slot not after `now`, or the first one after it; None when there is none in the next fifty years."""
    # One second on: the reverse search leaves out the moment it starts from. Slots are whole minutes.
    at = datetime.fromtimestamp(math.floor(now) + (1 if is_past else 0), UTC).astimezone(zone)
    try:
        return float(next(CronSim(cron, at, reverse=is_past)).timestamp())
    except StopIteration:
        return None


def _jitter(schedule: Schedule, job: str, slot: float) -> float:
    """0 to the schedule's jitter, the same for the same job and slot: a restart does not draw again."""
    if not schedule.jitter:
        return 0.0
    drawn = hashlib.sha256(f"{job}\0{slot:.0f}".encode()).digest()
    return schedule.jitter * int.from_bytes(drawn[:4], "big") / 2**32
