"""The table of checks, in the order of the page. A new check is one more line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agent.doctor import copies, ground, host, running, state_files
from agent.doctor.facts import Facts
from agent.doctor.finding import Finding

Check = Callable[[Facts], Iterator[Finding]]

# Heading, check. Checks under one heading stand together on the page.
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("agent", ground.agent),
    ("configuration", ground.configuration),
    ("permissions", ground.permissions),
    ("collectors", running.collectors),
    ("sinks", running.sinks),
    ("sinks", running.journal),
    ("sinks", state_files.left_behind),
    ("history", running.history),
    ("history", state_files.versions),
    ("disk", state_files.room),
    ("alerting", running.rules),
    ("alerting", running.receivers),
    ("backups", copies.backups),
    ("clock", host.clock),
    ("this host", host.unwatched),
    ("this host", host.unkept),
)


def examine(facts: Facts) -> dict[str, list[Finding]]:
    """The findings under each heading."""
    page: dict[str, list[Finding]] = {}
    for heading, check in CHECKS:
        page.setdefault(heading, []).extend(check(facts))
    return page
