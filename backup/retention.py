"""Which backups stay: a pure plan, and what it must never do.

Whatever the rules say, it keeps the newest verified backup, the newest drilled one, pinned ones and the `min_keep`
newest verified ones; only verified backups count for a rule, so that empty or broken ones push nothing out. It plans
nothing when a manifest comes from the future (one of the clocks is wrong), when the newest backup is not a verified
one, or when more than half would go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from agent.core.options import option
from agent.core.units import Seconds, format_duration
from backup.manifest import Manifest

FUTURE_TOLERANCE_S = 300.0
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Which backups stay on a target. A backup stays while any rule wants it; with no rule at all, for ever."""

    keep_last: int = option(0, "The newest backups, whatever their time.", minimum=0)
    hourly: int = option(0, "Newest of an hour, for so many hours that have one.", minimum=0)
    daily: int = option(0, "Newest of a day, for so many days that have one.", minimum=0)
    weekly: int = option(0, "Newest of a week (Monday to Sunday), for so many weeks.", minimum=0)
    monthly: int = option(0, "Newest of a month, for so many months.", minimum=0)
    yearly: int = option(0, "Newest of a year, for so many years.", minimum=0)
    within: Seconds = option(0.0, "All that are younger than this.", minimum=0)
    min_keep: int = option(2, "Verified backups that stay in any case.", minimum=1)

    @property
    def has_rules(self) -> bool:
        return any((self.keep_last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly, self.within))


PRESETS: dict[str, Retention] = {
    "7d+monthly": Retention(within=7 * _DAY_S, monthly=12),
    "30d": Retention(within=30 * _DAY_S),
    "90d": Retention(within=90 * _DAY_S),
    "forever": Retention(),
}


def check_preset(name: str) -> None:
    """Raise ValueError unless it is a preset."""
    if name not in PRESETS:
        raise ValueError(f"is no preset; write one of {', '.join(PRESETS)}, or rules as {{daily: 7, monthly: 12}}")


def policy(wanted: str | Retention) -> Retention:
    """A preset's rules, or the rules themselves."""
    return PRESETS[wanted] if isinstance(wanted, str) else wanted


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup, and why; there is always a reason."""

    manifest: Manifest
    action: Literal["keep", "delete"]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision for each backup, oldest first. `refusal`: why nothing may be deleted now; None when it may."""

    decisions: tuple[Decision, ...]
    refusal: str | None = None

    @property
    def deletions(self) -> tuple[Manifest, ...]:
        """What to delete: nothing where there is a refusal."""
        if self.refusal is not None:
            return ()
        return tuple(one.manifest for one in self.decisions if one.action == "delete")


def stays(count: int, error: Exception) -> str:
    """What to say of backups that should go and may not be deleted."""
    what = "a backup that no rule keeps stays" if count == 1 else f"{count} backups that no rule keeps stay"
    return f"{what}: {error}; let it delete, or write `retention: forever` for this target and leave that to the server"


def plan(manifests: Sequence[Manifest], rules: Retention, now: float, *, zone: str = "UTC",
         may_delete_most: bool = False) -> Plan:  # fmt: skip
    """Decide for the backups of one job on one target. `now` in Unix seconds; hours and days are those of `zone`.

    `may_delete_most`: somebody looked at the plan and wants it although more than half would go.
    """
    ordered = sorted(manifests, key=lambda one: (one.finished_at, one.id))
    reasons = _reasons_to_keep(ordered, rules, now, ZoneInfo(zone))
    newest = next((one for one in reversed(ordered) if one.is_verified), None)
    decisions = tuple(_decision(one, reasons[one.id], newest, rules) for one in ordered)
    return Plan(decisions, _refusal(decisions, ordered, now, may_delete_most=may_delete_most))


def _refusal(decisions: Sequence[Decision], ordered: Sequence[Manifest], now: float, *,
             may_delete_most: bool) -> str | None:  # fmt: skip
    doomed = sum(one.action == "delete" for one in decisions)
    if not doomed:
        return None
    early = [one for one in ordered if one.finished_at > now + FUTURE_TOLERANCE_S]
    if early:
        ahead = format_duration(round(early[-1].finished_at - now))
        return f"{early[-1].id} was finished {ahead} in the future; set this host's clock right, or remove that backup"
    if not ordered[-1].is_verified:
        return f"the newest backup, {ordered[-1].id}, is not verified; nothing goes before a verified one succeeds"
    if doomed * 2 > len(ordered) and not may_delete_most:
        return f"{doomed} of {len(ordered)} backups would go, more than half; look at the plan and allow it by hand"
    return None


def _decision(one: Manifest, reasons: Sequence[str], newest: Manifest | None, rules: Retention) -> Decision:
    if reasons:
        return Decision(one, "keep", tuple(reasons))
    if not rules.has_rules:
        return Decision(one, "keep", ("no rule deletes",))
    if newest is None:
        return Decision(one, "keep", ("there is no verified backup yet",))
    if not one.is_verified:
        if (one.finished_at, one.id) > (newest.finished_at, newest.id):
            return Decision(one, "keep", ("newer than the newest verified",))
        what = "not complete" if not one.is_complete else "not verified"
        return Decision(one, "delete", (f"{what}, and {newest.id} is newer and verified",))
    return Decision(one, "delete", ("no rule keeps it",))


def _reasons_to_keep(ordered: Sequence[Manifest], rules: Retention, now: float, zone: ZoneInfo) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {one.id: [] for one in ordered}
    verified = [one for one in reversed(ordered) if one.is_verified]  # newest first
    for one in ordered:
        if one.pinned:
            reasons[one.id].append("pinned")
        if rules.within and one.finished_at > now - rules.within:
            reasons[one.id].append(f"within {format_duration(rules.within)}")
    for one in verified[:1]:
        reasons[one.id].append("newest verified")
    drilled = max((one for one in ordered if one.drilled_at is not None), default=None, key=lambda one: one.finished_at)
    if drilled is not None:
        reasons[drilled.id].append("newest drilled")
    for one in verified[: rules.min_keep]:
        reasons[one.id].append(f"among the {rules.min_keep} that stay in any case")
    for one in verified[: rules.keep_last]:
        reasons[one.id].append(f"among the last {rules.keep_last}")
    for name, count, period in _calendar(rules):
        for one in _newest_of_each(verified, count, period, zone):
            reasons[one.id].append(name)
    return reasons


_Period = Callable[[datetime], tuple[int, ...]]


def _calendar(rules: Retention) -> list[tuple[str, int, _Period]]:
    return [
        ("hourly", rules.hourly, lambda at: (at.year, at.month, at.day, at.hour, _offset_s(at))),
        ("daily", rules.daily, lambda at: (at.year, at.month, at.day)),
        ("weekly", rules.weekly, lambda at: tuple(at.isocalendar()[:2])),
        ("monthly", rules.monthly, lambda at: (at.year, at.month)),
        ("yearly", rules.yearly, lambda at: (at.year,)),
    ]


def _offset_s(at: datetime) -> int:
    """Seconds from UTC: in autumn an hour of the clock comes twice, and is two hours."""
    offset = at.utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _newest_of_each(verified: Sequence[Manifest], count: int, period: _Period, zone: ZoneInfo) -> list[Manifest]:
    """The newest of each of the `count` newest periods that have one; `verified` is newest first."""
    kept: dict[tuple[int, ...], Manifest] = {}
    for one in verified:
        key = period(datetime.fromtimestamp(one.finished_at, UTC).astimezone(zone))
        if key not in kept:
            if len(kept) >= count:
                break
            kept[key] = one
    return list(kept.values())
