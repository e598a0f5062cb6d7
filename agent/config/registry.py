"""What a table of plugins is: names, and where their classes are; a class is imported when it is asked for."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.problems import did_you_mean


class PluginError(ValueError):
    """A plugin that cannot be had: no such name, or its module does not load. The text follows the plugin's path."""


@dataclass(frozen=True)
class Registry:
    """One table of plugins.

    `common`: the dataclass of options that each has beside its own; it has `enabled`.
    `group`: the entry-point group in which other packages offer more; None when they cannot.
    `has_types`: an entry may have any name and say `type: influxdb`.
    `least`: minimum of an own option that declares none.
    """

    noun: str
    builtin: Mapping[str, str]
    common: type
    off_by_default: frozenset[str] = frozenset()
    group: str | None = None
    has_types: bool = False
    least: Mapping[str, float] = field(default_factory=dict)

    @property
    def on_by_default(self) -> tuple[str, ...]:
        return tuple(name for name in self.builtin if name not in self.off_by_default)

    def names(self) -> list[str]:
        """Every plugin: ours in the table's order, then those of other packages."""
        return [*self.builtin, *sorted(self._offered().keys() - self.builtin.keys())]

    def find(self, name: str) -> Any:
        """The plugin's class. Raise PluginError."""
        target = self.builtin.get(name) or self._offered().get(name)
        if target is None:
            raise PluginError(self.no_such(name))
        return _load(target)

    def no_such(self, name: str) -> str:
        """What is wrong with a name that is no plugin's, as a sentence that follows it."""
        known = self.names()
        return f"no such {self.noun}" + (did_you_mean(name, known) or f"; there are {', '.join(known)}")

    def _offered(self) -> dict[str, str]:
        return _entry_points(self.group) if self.group else {}


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    """Name to `module:Class`. Not looked up before a name is unknown: it reads the metadata of every package."""
    from importlib import metadata  # costs more than the rest of this module

    return {point.name: point.value for point in metadata.entry_points(group=group)}


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), name)
    except Exception as error:  # a plugin's module may raise anything while it is imported
        reason = re.sub(r"\s+", " ", str(error)) or type(error).__name__
        raise PluginError(f"{target} cannot be loaded: {reason}") from error
    if not isinstance(loaded, type) or not hasattr(loaded, "__dataclass_fields__"):
        raise PluginError(f"{target} is not a dataclass; its options are dataclass fields")
    return loaded
