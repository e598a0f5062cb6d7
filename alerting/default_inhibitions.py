"""Which of the rules that come with the agent keep others quiet: the graver of two, and a backup that runs.

What a backup does to its own host is no news while it runs. Where the rule BackupRuns is off there is no such quiet.
"""

from __future__ import annotations

from typing import Final

from alerting.inhibition import InhibitRule
from alerting.matching import parse_matchers

# graver, milder, what both are about
_PAIRS: Final = (
    ("HostDiskFullCritical", "HostDiskFull", ("instance", "mountpoint")),
    ("HostDiskFullCritical", "HostDiskFillsSoon", ("instance", "mountpoint")),
    ("HostDiskFull", "HostDiskFillsSoon", ("instance", "mountpoint")),
    ("HostMemoryExhausted", "HostMemoryLow", ("instance",)),
    ("AgentSinkNeedsYou", "AgentSinkDown", ("instance", "sink")),
    ("BackupOverdue", "BackupFailed", ("instance", "exported_job")),
    ("BackupRuns", "HostCpuBusy", ("instance",)),
    ("BackupRuns", "HostCpuPressure", ("instance",)),
    ("BackupRuns", "HostIoPressure", ("instance",)),
    ("BackupRuns", "HostDiskSaturated", ("instance",)),
    ("BackupRuns", "HostSwapping", ("instance",)),
)


def default_inhibitions() -> tuple[InhibitRule, ...]:
    """A rule for each pair."""
    return tuple(
        InhibitRule(parse_matchers(f"alertname={graver}"), parse_matchers(f"alertname={milder}"), equal)
        for graver, milder, equal in _PAIRS
    )
