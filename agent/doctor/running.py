"""What the running agent says of its parts: collectors, sinks, journal and cursors, history, rules, receivers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from agent.core.units import format_duration, format_size
from agent.doctor.facts import Facts, about
from agent.doctor.finding import Finding, refused
from agent.doctor.reach import unreachable
from agent.rule_sets import load_rules, rules_directory

_JOURNAL_FULL = 0.9  # of its cap: what a sink lacks is dropped soon
_STARTING_S = 90.0  # the slowest collectors have read something by then
_LATE_S = 300.0  # a reader further behind than this does not keep up, or has just come back


def collectors(facts: Facts) -> Iterator[Finding]:
    """Each one that is on: when it last read something, and why not."""
    if facts.status is None and facts.loaded is None:
        return
    if facts.status is None:
        yield Finding("note", "collectors", f"{len(facts.settings.collectors)} are on; `vigilhost collectors` tells "
                      "which work here, without the agent")  # fmt: skip
        return
    for name, known in sorted(facts.status["collectors"].items()):
        yield from _collector(facts, name, known)


def _collector(facts: Facts, name: str, known: Mapping[str, Any]) -> Iterator[Finding]:
    subject, last = f"collector {name}", facts.ago(_seconds(known["last_success"]))
    if known["state"] == "failing":
        yield Finding("fail", subject, f"{known['error']}; last success {last}, {known['failures']} failures",
                      f"`vigilhost collect {name}` tries it by hand")  # fmt: skip
    elif known["state"] == "nothing to measure":
        yield Finding("ok", subject, f"this host has nothing to measure here: {known['error'] or 'no such source'}")
    elif known["state"] == "starting":
        yield Finding("ok", subject, f"starts; each {format_duration(known['interval_s'])}")
    else:
        yield Finding("ok", subject, f"{known['readings']} readings {last}, each "
                      f"{format_duration(known['interval_s'])}")  # fmt: skip
    for target, reason in known["failed_targets"].items():
        yield Finding("warn", subject, f"{target}: {reason}", "its series are held, not gone; mend the target")
    if known["skipped"] > known["readings"] and known["state"] == "ok" and known["skipped"] > 10:
        yield Finding("warn", subject, f"{known['skipped']} slots were skipped: it takes longer than its interval",
                      f"write a longer collectors.{name}.interval")  # fmt: skip


def sinks(facts: Facts) -> Iterator[Finding]:
    """Each sink: what it took, when, and why not; without an agent whether its server can be reached."""
    configured = facts.settings.sinks
    if facts.loaded is None and facts.status is None:
        return
    if not configured and not (facts.status and facts.status["sinks"]):
        yield Finding("note", "sinks", "none: readings stay on this host", "`vigilhost init`, or `sinks:`, sends them")
        return
    if facts.status is None:
        for name, entry in configured.items():
            reason = unreachable(entry.options)
            text = reason or "its server accepts connections"
            yield Finding("fail" if reason else "ok", f"sink {name}", text, _sink_advice(name) if reason else "")
        return
    for name, known in sorted(facts.status["sinks"].items()):
        last = facts.ago(_seconds(known["last_success"]))
        if known["state"] == "failing":
            since = about(facts.now - (_seconds(known["failing_since"]) or facts.now))
            advice = (f"waiting does not help: correct sinks.{name} (url, bucket, token), then `vigilhost reload`"
                      if known["needs_you"] else _sink_advice(name))  # fmt: skip
            yield Finding("fail", f"sink {name}", f"fails for {since}: {known['error']}; last success {last}", advice)
        elif known["state"] == "starting":
            yield Finding("ok", f"sink {name}", "has not written yet")
        else:
            yield Finding("ok", f"sink {name}", f"{known['lines']} lines, last success {last}")
        if known["dead_letters"]:
            yield Finding("warn", f"sink {name}", f"{known['dead_letters']} lines were refused for good",
                          "`vigilhost journal dead` shows them and why")  # fmt: skip


def _sink_advice(name: str) -> str:
    return f"look at the server of sinks.{name}; meanwhile readings wait: `vigilhost journal status`"


def journal(facts: Facts) -> Iterator[Finding]:
    """The disk takes what comes, and every reader has had what there is."""
    if facts.status is None:
        return
    known = facts.status["journal"]
    cap = facts.settings.journal.max_bytes
    if known["state"] == "failing":
        errors = ", ".join(f"{name} {count}" for name, count in known["errors"].items())
        yield Finding("fail", "journal", f"the disk takes nothing ({errors}); {known['waiting_records']} records wait "
                      "in memory", f"make room on {facts.state_dir}, or remount it writable")  # fmt: skip
    elif known["state"] == "starting":
        yield Finding("ok", "journal", "opens")
        return
    else:
        yield Finding("ok", "journal", f"{format_size(known['bytes'])} of {format_size(cap)}")
    if known["bytes"] > _JOURNAL_FULL * cap:
        yield Finding("warn", "journal", "is nearly full: the oldest readings that a sink lacks go first",
                      "mend the sink that is behind, or raise journal.max_bytes")  # fmt: skip
    if known["dropped_records"]:
        yield Finding("warn", "journal", f"{known['dropped_records']} records were dropped before every sink had them",
                      "a cap was reached; see journal.max_bytes and min_free_bytes")  # fmt: skip
    if known["damaged_records"] or known["set_aside"]:
        files = ", ".join(known["set_aside"]) or "none"
        yield Finding("warn", "journal", f"{known['damaged_records']} records were unreadable; set aside: {files}",
                      "look at the disk's health; those files can be deleted")  # fmt: skip
    for name, reader in known["readers"].items():
        yield from _reader(name, reader)


def _reader(name: str, reader: Mapping[str, Any]) -> Iterator[Finding]:
    behind = f"{reader['lag_records']} records behind, the oldest {about(reader['oldest_age_s'])} old"
    if reader["oldest_age_s"] > _LATE_S:
        yield Finding(
            "warn", f"cursor {name}", behind, "the sink of this name says why; `vigilhost journal drain` waits"
        )
    else:
        yield Finding("ok", f"cursor {name}", behind if reader["lag_records"] else "has had everything")
    if reader["lost_records"]:
        yield Finding("warn", f"cursor {name}", f"never had {reader['lost_records']} records",
                      "they were dropped while it was behind; `vigilhost export` has what history kept")  # fmt: skip


def history(facts: Facts) -> Iterator[Finding]:
    """Is it written, and does it fit."""
    if not facts.settings.history.enabled:
        yield Finding("note", "history", "is off, and alerting with it", "`history: {enabled: true}`, then restart")
        return
    if facts.status is None:
        return
    known = facts.status["history"]
    if known["state"] == "failing":
        yield Finding("fail", "history", f"the disk takes nothing: {known.get('error', '')}",
                      "make room; the journal has what is missing")  # fmt: skip
    elif "series" in known:
        yield Finding("ok", "history", f"{known['series']} series, {format_size(known['disk_bytes'])} on disk")
        if known["refused_series"]:
            yield Finding("warn", "history", f"{known['refused_series']} series were refused: there are too many",
                          "raise history.max_series, or turn off the collector that makes them")  # fmt: skip
    else:
        yield Finding("ok", "history", known["state"])
    if known.get("damaged_blocks") or known.get("set_aside"):
        files = ", ".join(known["set_aside"]) or "none"
        yield Finding("warn", "history", f"{known['damaged_blocks']} blocks were unreadable; files set aside: {files}",
                      "look at the disk's health; the files set aside can be deleted")  # fmt: skip


def rules(facts: Facts) -> Iterator[Finding]:
    """Rules that cannot be used or evaluated; read from their files where no agent answers."""
    options = facts.settings.alerting
    if not options.enabled or not facts.settings.history.enabled:
        yield Finding("note", "alerting", "is off", "`alerting: {enabled: true}` and history turn it on")
        return
    known = facts.ask("rules")
    directory = rules_directory(options.rules, facts.loaded.files if facts.loaded else [facts.config])
    if known is None:
        found = load_rules(options.rules, directory)
        known = {"rules": [], "left_out": [str(problem) for problem in found.errors]}
        count = sum(1 for _ in found.rules())
    else:
        count = len(known["rules"])
    for problem in known["left_out"]:
        yield refused("rules", f"left out: {problem}", "mend the file, `vigilhost rules check FILE`, then reload")
    for rule in known["rules"]:
        name = f"rule {rule['name']}"
        if rule["health"] == "err":
            yield Finding("fail", name, f"cannot be evaluated: {rule['error']}; {rule['place']}",
                          "`vigilhost query` tries its expression")  # fmt: skip
        elif not rule["is_blind"]:
            evaluated = facts.ago(rule["evaluated_at"]) if rule["evaluated_at"] else "not yet"
            yield Finding("ok", name, f"{rule['state'] or 'recorded'}, evaluated {evaluated}")
    yield from _blind(facts, [rule["name"] for rule in known["rules"] if rule["is_blind"] and rule["health"] != "err"])
    yield Finding("ok" if count else "warn", "rules", f"{count} in force, of {directory} and of the agent's own",
                  "" if count else "nothing is ever judged; see alerting.rules.defaults")  # fmt: skip


def _blind(facts: Facts, names: list[str]) -> Iterator[Finding]:
    """Rules whose collector has given nothing lately."""
    if not names or facts.status is None:
        return
    if facts.status["uptime_s"] < _STARTING_S:
        yield Finding("note", "rules", f"{len(names)} wait for the first readings: the agent has just started")
    else:
        shown = ", ".join(sorted(set(names)))
        yield Finding("warn", "rules", f"see nothing and hold their state, because their collector fails: {shown}",
                      "mend the collectors above")  # fmt: skip


def receivers(facts: Facts) -> Iterator[Finding]:
    """Is anybody told, can each be reached, what happened to the last messages."""
    options = facts.settings.alerting
    if not options.enabled or not facts.settings.history.enabled:
        return
    if facts.loaded is None:
        return
    if not options.receivers:
        yield Finding("warn", "receivers", "none: alerts are shown by `vigilhost alerts` and nobody is told",
                      "`vigilhost init`, or write one into alerting.receivers")  # fmt: skip
    alerting = (facts.status or {}).get("alerting", {})
    told = alerting.get("receivers", {})
    for name, entry in options.receivers.items():
        yield from _receiver(name, told.get(name), unreachable(entry.options))
    if alerting.get("error"):
        yield Finding("fail", "alerting", alerting["error"], "`vigilhost alerts log` explains each decision")
    if alerting.get("firing"):
        yield Finding("note", "alerts", f"{alerting['firing']} fire now", "`vigilhost alerts` lists them")
    if options.heartbeat.url is None:
        yield Finding("note", "heartbeat", "none: nobody notices when this whole host dies",
                      "write alerting.heartbeat.url, of a service that notices when pings stay away")  # fmt: skip


def _receiver(name: str, known: Mapping[str, Any] | None, away: str) -> Iterator[Finding]:
    subject = f"receiver {name}"
    advice = f"`vigilhost notify test {name}` tries it; then correct alerting.receivers.{name}"
    if away:
        yield Finding("fail", subject, away, advice)
    elif known is not None and known["error"]:
        yield Finding("fail", subject, f"the last message was not taken: {known['error']}", advice)
    else:
        sent = f"{known['sent']} messages since the start" if known else "none sent yet"
        yield Finding("ok", subject, f"can be reached, {sent}")


def _seconds(moment: str | None) -> float | None:
    """Unix seconds of a time as /health writes it."""
    return datetime.fromisoformat(moment).astimezone(UTC).timestamp() if moment else None
