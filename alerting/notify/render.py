"""A notification in words: title, plain text, and how a text that is too long is cut.

Whole alerts are left out, and counted, before a sentence is cut in two.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from math import isfinite

from agent.core.labels import Labels, keep, quote, value_of
from agent.core.units import format_duration
from alerting.intervals import find_zone
from alerting.notify.message import SUMMARY_KEY, Alert, DigestEntry, Notification, common

_SAID_FIRST = ("summary", "message", "description")  # annotations that need no name in front
_LONGEST_TITLE = 200
_GAP = "\n\n"  # between two paragraphs
_ELLIPSIS = "…"
_PLAIN = re.compile(r"[\w.:/-]+", re.ASCII)  # needs no quotes in a matcher


def title(notification: Notification) -> str:
    """One line without line breaks: `[FIRING:2] DiskFull db1`, `[RESOLVED] DiskFull db1`."""
    if notification.kind == "digest":
        return _digest_title(notification)
    count = len(notification.firing)
    status = "RESOLVED" if not count else f"FIRING:{count}" if count > 1 else "FIRING"
    if any(alert.is_flapping for alert in notification.firing):
        status = f"FLAPPING:{count}" if count > 1 else "FLAPPING"
    names = sorted({alert.name for alert in notification.alerts if alert.name})
    words = [names[0] if len(names) == 1 else f"{len(names)} alerts"] if names else []
    words += [value for name, value in notification.common_labels if name in {"instance", "severity"}]
    prefix = "[TEST] " if notification.kind == "test" else ""
    return shorten(one_line(f"{prefix}[{status}] {' '.join(words)}"), _LONGEST_TITLE)


def _digest_title(notification: Notification) -> str:
    firing = sum(entry.alert.is_firing for entry in notification.entries) + notification.truncated_alerts
    fired = sum(entry.fired for entry in notification.entries)
    failed = sum(not note.is_good for note in notification.notes)
    day = when(notification.at, notification.zone)[:10]
    failures = f", {failed} failed" if failed else ""
    return f"Summary of {day}: {firing} still firing, {fired} fired{failures}"


def text(notification: Notification, limit: int | None = None, length: Callable[[str], int] = len) -> str:
    """For people, in plain text, at most `limit` long as `length` counts."""
    if notification.kind == "digest":
        return _digest_text(notification, limit, length)
    return fit(alert_blocks(notification), limit, length, already_missing=notification.truncated_alerts)


def alert_blocks(notification: Notification) -> list[str]:
    """One paragraph an alert, firing ones first."""
    return [alert_text(alert, notification) for alert in (*notification.firing, *notification.resolved)]


def alert_text(alert: Alert, notification: Notification) -> str:
    """What is wrong, since when, where, and what to look at."""
    lines = [f"{state_word(alert)}: {headline(alert)}"]
    lines += [f"  {line}" for said in sayings(alert)[1:] for line in said.splitlines()]
    lines.append(f"  {since(alert, notification)}")
    lines.append(f"  {' '.join(f'{name}={value}' for name, value in told_labels(alert))}".rstrip())
    lines += [f"  {name}: {one_line(value)}" for name, value in other_annotations(alert)]
    if alert.generator_url.startswith(("http://", "https://")):  # without external_url it leads nowhere
        lines.append(f"  {alert.generator_url}")
    return "\n".join(line for line in lines if line.strip())


def state_word(alert: Alert) -> str:
    """FIRING, RESOLVED, FLAPPING, or that the alert is held because its data are missing."""
    if alert.is_flapping:
        return "FLAPPING"
    if not alert.is_firing:
        return "RESOLVED"
    return "FIRING (no data, held)" if alert.is_stale else "FIRING"


def headline(alert: Alert) -> str:
    """The first line of what the alert says of itself, or its name."""
    said = sayings(alert)
    return one_line(said[0]) if said else alert.name or "an alert without a name"


def sayings(alert: Alert) -> list[str]:
    """Summary, message and description, as far as there are any."""
    return [said for said in (value_of(alert.annotations, name) for name in _SAID_FIRST) if said]


def other_annotations(alert: Alert) -> Labels:
    """Annotations such as runbook_url, which need their name in front."""
    return tuple(pair for pair in alert.annotations if pair[0] not in _SAID_FIRST and pair[1])


def told_labels(alert: Alert) -> Labels:
    """The labels, the alert's name first."""
    return tuple(sorted(alert.labels, key=lambda pair: (pair[0] != "alertname", pair)))


def since(alert: Alert, notification: Notification) -> str:
    """`since 2024-05-01 10:00 UTC (12m), value 91.2`, or from when to when."""
    began = when(alert.starts_at, notification.zone)
    value = "" if alert.value is None else f", value {show_value(alert.value)}"
    if alert.is_firing:
        return f"since {began} ({_span(notification.at - alert.starts_at)}){value}"
    ended = alert.ends_at if alert.ends_at is not None else notification.at
    return f"from {began} to {when(ended, notification.zone)} ({_span(ended - alert.starts_at)}){value}"


def show_value(value: float) -> str:
    """Six digits are enough for people."""
    return f"{value:.6g}" if isfinite(value) else str(value)


def when(moment: float, zone: str) -> str:
    """A moment on the wall clock of a zone, to the minute, with the zone's name."""
    return f"{datetime.fromtimestamp(moment, find_zone(zone)):%Y-%m-%d %H:%M %Z}"


def _span(seconds: float) -> str:
    """A duration with its two largest units, as 2d3h or 12m5s."""
    parts = re.findall(r"\d+[a-z]+", format_duration(float(max(0, int(seconds)))))
    return "".join(parts[:2])


def digest_blocks(notification: Notification) -> list[str]:
    """What still fires, what was over, and the notes."""
    firing = [entry for entry in notification.entries if entry.alert.is_firing]
    over = [entry for entry in notification.entries if not entry.alert.is_firing]
    bad = [note for note in notification.notes if not note.is_good]
    good = [note for note in notification.notes if note.is_good]
    blocks = []
    if firing:
        blocks.append("Still firing:\n" + "\n".join(entry_line(entry, notification) for entry in firing))
    if over:
        blocks.append("Fired and resolved:\n" + "\n".join(entry_line(entry, notification) for entry in over))
    if bad:
        blocks.append("Failed:\n" + "\n".join(f"- {one_line(note.text)}" for note in bad))
    if good:
        blocks.append("Done:\n" + "\n".join(f"- {one_line(note.text)}" for note in good))
    return blocks or ["Nothing happened."]


def _digest_text(notification: Notification, limit: int | None, length: Callable[[str], int]) -> str:
    """Where all of it does not go into the limit, each part loses lines of its own: the longest ones most."""
    parts = [block.splitlines() for block in digest_blocks(notification)]
    if notification.truncated_alerts:
        parts.append([more_line(notification.truncated_alerts)])
    whole = _GAP.join("\n".join(lines) for lines in parts)
    if limit is None or length(whole) <= limit:
        return whole
    room = limit - length(_GAP) * (len(parts) - 1)
    if room < length(more_line(len(whole))) * len(parts):
        return shorten(whole, limit, length)
    fitted: dict[int, str] = {}
    for at in sorted(range(len(parts)), key=lambda at: sum(map(length, parts[at]))):
        fitted[at] = fit(parts[at], room // (len(parts) - len(fitted)), length, gap="\n")
        room -= length(fitted[at])
    return _GAP.join(fitted[at] for at in range(len(parts)))


def entry_line(entry: DigestEntry, notification: Notification) -> str:
    """One alert of a digest in one line."""
    return f"- {entry.alert.name}: {headline(entry.alert)} ({entry_times(entry, notification)})"


def entry_times(entry: DigestEntry, notification: Notification) -> str:
    """Since when, how often, and whether it flaps."""
    times = f", fired {entry.fired} times" if entry.fired > 1 else ""
    flapping = ", flapping" if entry.alert.is_flapping else ""
    return f"{since(entry.alert, notification)}{times}{flapping}"


def silence_command(notification: Notification) -> str:
    """What silences the firing alerts of the message, for people to copy; "" where there is nothing to silence."""
    if notification.kind != "alerts" or not notification.firing or notification.group_key == SUMMARY_KEY:
        return ""
    shared = keep(common(one.labels for one in notification.firing), ("alertname", "instance"))
    matchers = [shlex.quote(f"{name}={value if _PLAIN.fullmatch(value) else quote(value)}") for name, value in shared]
    return f"vigilhost silence 2h {' '.join(matchers)} -m 'why'" if matchers else ""


# Cutting.


def one_line(words: str) -> str:
    """Without line breaks and control characters: safe in a header."""
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", words).strip()


def utf16_length(words: str) -> int:
    """How chat services count: characters beyond the basic plane are two."""
    return len(words) + sum(char > "\uffff" for char in words)


def shorten(words: str, limit: int, length: Callable[[str], int] = len) -> str:
    """At most `limit` long; a text that is cut ends in an ellipsis."""
    if length(words) <= limit:
        return words
    room = limit - length(_ELLIPSIS)
    if room < 0:
        return ""
    cut = words[:room]
    while cut and length(cut) > room:
        cut = cut[:-1]
    return cut.rstrip() + _ELLIPSIS


def fit(
    blocks: Sequence[str],
    limit: int | None,
    length: Callable[[str], int] = len,
    already_missing: int = 0,
    gap: str = _GAP,
) -> str:
    """Blocks one below the other, as many as go into `limit`; the last line says how many are missing."""
    whole = gap.join(blocks)
    if limit is None or (not already_missing and length(whole) <= limit):
        return gap.join([*blocks, more_line(already_missing)]) if already_missing else whole
    room = limit - length(gap) - length(more_line(len(blocks) + already_missing))
    shown: list[str] = []
    used = 0
    for block in blocks:
        cost = length(block) + (length(gap) if shown else 0)
        if used + cost > room:
            break
        shown.append(block)
        used += cost
    if blocks and not shown:
        only = len(blocks) == 1 and not already_missing
        shown = [shorten(blocks[0], limit if only else room, length)]
    missing = len(blocks) - len(shown) + already_missing
    return gap.join([one for one in shown if one] + ([more_line(missing)] if missing else []))


def more_line(count: int) -> str:
    """The line about what was left out."""
    return f"... and {count} more"
