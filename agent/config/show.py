"""The effective configuration as YAML: every option with its value, secrets masked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from agent.config.declared import is_section, options_of
from agent.config.plugins import Entry
from agent.config.registry import Registry
from agent.config.settings import Settings
from agent.config.tables import REGISTRIES
from agent.config.write import inline, quote


def show(settings: Settings, registries: Mapping[str, Registry] = REGISTRIES) -> str:
    """YAML that configures the same, but for the secrets."""
    return "\n".join(_section(settings, registries)) + "\n"


def _section(section: Any, registries: Mapping[str, Registry]) -> Iterator[str]:
    for option in options_of(section.__class__).values():
        value = getattr(section, option.field)
        if table := option.limits.get("plugins"):
            yield f"{option.name}:"
            yield from _indented(_entries(value, registries[table]))
        elif is_section(option.kind):
            yield f"{option.name}:"
            yield from _indented(_section(value, registries))
        else:
            yield f"{option.name}: {inline(option.kind, value)}"


def _entries(entries: Mapping[str, Entry], registry: Registry) -> Iterator[str]:
    for name, entry in entries.items():
        yield f"{quote(name)}:"
        if entry.type != name:
            yield f"  type: {quote(entry.type)}"
        yield from _indented(_section(entry.common, {}))
        for option in options_of(entry.cls).values():
            yield f"  {option.name}: {inline(option.kind, entry.options[option.name])}"
    for name in registry.on_by_default:
        if name not in entries:
            yield f"{name}: false"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}"


def summary(settings: Settings) -> str:
    """What the configuration amounts to: `12 collectors, 1 sink`."""
    counts = [
        (len(getattr(settings, field.name)), field.name)
        for field in dataclasses.fields(settings)
        if field.metadata.get("plugins")
    ]
    return ", ".join(f"{count} {name.removesuffix('s') if count == 1 else name}" for count, name in counts)
