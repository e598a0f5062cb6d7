"""vigilhost.yaml: read, checked, explained and shown."""

from agent.config.loading import DEFAULT_FILE, Loaded, build_collectors, build_sinks, load, load_hostname
from agent.config.plugins import Entry
from agent.config.registry import CommonOptions
from agent.config.settings import Settings
from agent.core.problems import ConfigError, Place, Problem

__all__ = ["DEFAULT_FILE", "CommonOptions", "ConfigError", "Entry", "Loaded", "Place", "Problem", "Settings",
           "build_collectors", "build_sinks", "load", "load_hostname"]  # fmt: skip
