"""vigilhost.yaml: read, checked, explained and shown."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.config.files import DEFAULT_FILE
    from agent.config.hostname import load_hostname
    from agent.config.loading import Loaded, build_collectors, build_sinks, load
    from agent.config.plugins import Entry
    from agent.config.settings import Settings
    from agent.config.tables import CommonOptions
    from agent.core.problems import ConfigError, Place, Problem

# Imported when asked for: who reads one job of backup.d does not pay for the options of everything else.
_WHERE = {
    "DEFAULT_FILE": "agent.config.files", "Loaded": "agent.config.loading", "load": "agent.config.loading",
    "build_collectors": "agent.config.loading", "build_sinks": "agent.config.loading",
    "load_hostname": "agent.config.hostname",
    "Entry": "agent.config.plugins", "Settings": "agent.config.settings", "CommonOptions": "agent.config.tables",
    "ConfigError": "agent.core.problems", "Place": "agent.core.problems", "Problem": "agent.core.problems",
}  # fmt: skip
__all__ = ["DEFAULT_FILE", "CommonOptions", "ConfigError", "Entry", "Loaded", "Place", "Problem", "Settings",
           "build_collectors", "build_sinks", "load", "load_hostname"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
