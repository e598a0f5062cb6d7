"""The names of our collectors. A class is imported when its collector is turned on."""

from __future__ import annotations

from collections.abc import Mapping

BUILTIN: Mapping[str, str] = {
    "agent": "agent.telemetry:SelfMetrics",
    "memory": "collectors.memory:Memory",
}

OFF_BY_DEFAULT: frozenset[str] = frozenset()
