"""Backups: the newest good copy of each job, the last run, the last drill, what the job leaves open."""

from __future__ import annotations

from collections.abc import Iterator

from agent.backup_results import Result
from agent.core.units import format_duration, format_size
from agent.doctor.coverage import open_ends
from agent.doctor.facts import Facts, about
from agent.doctor.finding import Finding
from backup.job import Job


def backups(facts: Facts) -> Iterator[Finding]:
    """Each job, from what its runs left in the state directory."""
    if facts.status is not None and facts.status["backups"].get("error"):
        yield Finding("fail", "backups", f"no job runs by itself: {facts.status['backups']['error']}",
                      "move that file away; each job then waits for its next slot")  # fmt: skip
    if not facts.jobs and not facts.job_errors:
        yield Finding("warn", "backups", f"there is no job in {facts.jobs_dir}: nothing of this host is kept",
                      "`vigilhost init`, or docs/backup.md")  # fmt: skip
    for name, job in facts.jobs.items():
        yield from _job(facts, job, facts.result(name))
        for text in open_ends(job):
            yield Finding("note", f"backup {name}", text)


def _job(facts: Facts, job: Job, known: Result | None) -> Iterator[Finding]:
    subject = f"backup {job.name}"
    by_hand = f"`vigilhost backup run {job.name}` runs it now and shows what happens"
    if known is None or (known.status == "never" and known.last_success_at is None):
        yield Finding("warn", subject, "has never run", by_hand)
        return
    last = known.last_success_at
    if known.status == "fail":
        yield Finding("fail", subject, f"the last run failed: {known.error}; last success {facts.ago(last)}",
                      f"{by_hand}; `vigilhost backup doctor {job.name}` looks without copying")  # fmt: skip
    age = facts.now - (last or known.known_since)
    if job.rpo is not None and age > job.rpo:
        yield Finding("fail", subject, f"the newest good copy is {about(age)} old, rpo is {format_duration(job.rpo)}",
                      by_hand)  # fmt: skip
    elif known.status != "fail":
        size = sum(copies.size_bytes or 0 for copies in known.targets.values())
        yield Finding("ok", subject, f"last success {facts.ago(last)}, {format_size(size | 1)}")
    if known.status == "warn":
        yield Finding("warn", subject, f"the last run had warnings: {'; '.join(known.warnings[:3])}",
                      f"`vigilhost backup show {job.name}` has all of them")  # fmt: skip
    for target, copies in known.targets.items():
        if target in job.targets and copies.status == "fail" and known.status != "fail":
            yield Finding("fail", subject, f"target {target}: {copies.error}; last success there "
                          f"{facts.ago(copies.last_success_at)}", f"`vigilhost backup doctor {job.name}`")  # fmt: skip
    yield from _drill(facts, job, known)


def _drill(facts: Facts, job: Job, known: Result) -> Iterator[Finding]:
    if known.drill_undone is not None:
        yield Finding("warn", f"backup {job.name}", f"the last restore drill could not be done: {known.drill_undone}",
                      f"`vigilhost backup drill {job.name}` shows what it lacks")  # fmt: skip
    if known.drill_status == "fail":
        yield Finding("fail", f"backup {job.name}", f"the last restore drill failed: {known.drill_error}; last passed "
                      f"{facts.ago(known.drill_at)}", f"`vigilhost backup drill {job.name}` repeats it")  # fmt: skip
    elif job.drill is not None and known.drill_at is None:
        yield Finding("warn", f"backup {job.name}", "was never drilled",
                      f"`vigilhost backup drill {job.name}` proves that it restores")  # fmt: skip
    elif known.drill_at is not None:
        took = f", it took {about(known.rto_s)}" if known.rto_s is not None else ""
        yield Finding("ok", f"backup {job.name}", f"restore drill passed {facts.ago(known.drill_at)}{took}")
