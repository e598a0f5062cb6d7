"""What an operator may choose about history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.core.options import option
from agent.core.units import Bytes, Seconds

MOST_UNFLUSHED_S: Final = 1800.0  # held in memory while the disk takes nothing


def _check_name(text: str) -> None:
    if not text:
        raise ValueError("is empty; write a name like node")


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """The history this host keeps of itself."""

    enabled: bool = option(True, "Whether history is kept; rules and queries need it.")
    head: Seconds = option(600.0, "Newest part kept in memory.", minimum=60.0, maximum=3600.0)
    flush: Seconds = option(600.0, "Time between two writes to disk; a crash loses nothing, the journal has it.",
                            minimum=10.0, maximum=1200.0)  # fmt: skip
    raw: Seconds = option(86_400.0, "How long every sample is kept.", minimum=3600.0)
    five_minutes: Seconds = option(30 * 86_400.0, "How long a summary of each 5 minutes is kept.", minimum=3600.0)
    one_hour: Seconds = option(365 * 86_400.0, "How long a summary of each hour is kept.", minimum=3600.0)
    max_disk: Bytes = option(1024**3, "Most that history takes on disk; the oldest goes first.", minimum=4 * 1024**2)
    max_series: int = option(20_000, "Most series remembered; further ones are left out and counted.", minimum=100)
    job: str = option("node", "Label `job` of every series.", check=_check_name)
    instance: str = option("", "Label `instance` of every series.", default_text="the hostname", example="web1")
