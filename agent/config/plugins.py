"""The sections whose options belong to plugins: `collectors`, `sinks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config.declared import defaults_of, options_of
from agent.config.registry import PluginError, Registry
from agent.config.scalars import read_bool
from agent.config.schema import BAD, Bad, Reader, as_mapping, construct
from agent.core import yaml_nodes as nodes
from agent.core.problems import Place, join
from agent.core.yaml_nodes import Node, Text

OTHERS = "others"  # the key that turns off what is not named; no plugin can have this name


@dataclass(slots=True)
class Entry:
    """A plugin that is turned on, with the value of each of its options.

    Two entries are equal when they were configured alike, wherever that is written: what did not change in a reload.
    """

    name: str
    type: str  # its name in the table; the same as `name` unless `type:` says otherwise
    cls: Any
    options: dict[str, Any]
    common: Any  # the table's dataclass of common options
    place: Place = field(compare=False, repr=False)

    def build(self, **given: Any) -> Any:
        """A new plugin object. `given`: fields that are no options (`host`), taken by the classes that have them.

        Raise ValueError with the plugin's reason when the options do not go together.
        """
        fields = {known.name for known in dataclasses.fields(self.cls) if known.init}
        extra = {name: value for name, value in given.items() if name in fields}
        return construct(self.cls, self.options, **extra)


def read_table(registries: Mapping[str, Registry], reader: Reader, table: str, node: Node, path: str) -> Any:
    """Every entry that is turned on, in the table's order, named ones of other packages last; or BAD."""
    registry = registries[table]
    mapping = as_mapping(node)
    if mapping is None:
        return reader.error(node.place, path, f"found no mapping; write {path}: {{name: {{option: value}}}}")
    entries: dict[str, Entry] = {}
    found_wrong = False
    wants_others = True
    for name, child in mapping.items.items():
        if name == OTHERS and registry.on_by_default:
            value = reader.value(bool, child, join(path, name), {})
            wants_others, found_wrong = value is True, found_wrong or isinstance(value, Bad)
            continue
        entry = BAD if reader.is_full else _entry(reader, registry, name, child, mapping.places[name], join(path, name))
        found_wrong |= isinstance(entry, Bad)
        if isinstance(entry, Entry):
            entries[name] = entry
    for name in registry.on_by_default if wants_others else ():
        if name not in mapping.items:
            default = _untouched(reader, registry, name, node.place, join(path, name))
            found_wrong |= isinstance(default, Bad)
            if isinstance(default, Entry):
                entries[name] = default
    order = {name: at for at, name in enumerate(registry.builtin)}
    return BAD if found_wrong else dict(sorted(entries.items(), key=lambda item: order.get(item[0], len(order))))


def _untouched(reader: Reader, registry: Registry, name: str, place: Place, path: str) -> Entry | Bad:
    """The entry of a plugin that runs although the configuration does not name it."""
    try:
        cls = registry.find(name)
    except PluginError as error:
        return reader.error(place, path, str(error))
    return Entry(name, name, cls, defaults_of(cls), registry.common(), place)


def _entry(reader: Reader, registry: Registry, name: str, node: Node, key: Place, path: str) -> Entry | Bad | None:
    """The entry as configured; None when it is turned off."""
    if isinstance(node, Text) and not node.is_null:
        try:
            is_on = read_bool(node.text)
        except ValueError as error:
            return reader.error(node.place, path, f"{error}, or options as {{option: value}}")
        if not is_on:
            return _turned_off(reader, registry, name, key, path)
        node = nodes.Mapping(node.place)
    mapping = as_mapping(node)
    if mapping is None:
        return reader.error(node.place, path, "found a list; write {option: value}, true or false")
    enabled = mapping.items.get("enabled")
    if enabled is not None:
        is_enabled = reader.value(bool, enabled, join(path, "enabled"), {})
        if isinstance(is_enabled, Bad):
            return BAD
        if not is_enabled:
            # Its class stays unimported, so its other options are not looked at.
            return _turned_off(reader, registry, name, key, path)
    return _enabled(reader, registry, name, mapping, key, path)


def _turned_off(reader: Reader, registry: Registry, name: str, key: Place, path: str) -> Bad | None:
    """None; a wrong name turns nothing off, which is worth an error (unless the table takes any name)."""
    if name in registry.builtin or registry.has_types or name in registry.names():
        return None
    return reader.error(key, path, registry.no_such(name))


def _enabled(reader: Reader, registry: Registry, name: str, mapping: nodes.Mapping, key: Place,
             path: str) -> Entry | Bad:  # fmt: skip
    kind, typed = name, mapping.items.get("type") if registry.has_types else None
    if typed is not None:
        kind, key = reader.value(str, typed, join(path, "type"), {}), typed.place
        if isinstance(kind, Bad):
            return BAD
    try:
        cls = registry.find(kind)
        options_of(cls)
    except NameError as error:
        return reader.error(
            key, path, f"the {registry.noun} cannot be used: its options have a type that is unknown: {error}"
        )
    except PluginError as error:
        hint = "; another name needs `type:`" if registry.has_types and typed is None else ""
        return reader.error(key, join(path, "type") if typed is not None else path, f"{error}{hint}")
    shared = frozenset(options_of(registry.common))
    beside = shared | ({"type"} if registry.has_types else frozenset())
    own = reader.options(cls, mapping, path, beside=beside, least=registry.least)
    only_shared = {option: child for option, child in mapping.items.items() if option in shared}
    common = reader.section(registry.common, nodes.Mapping(mapping.place, only_shared, mapping.places), path)
    if isinstance(own, Bad) or isinstance(common, Bad):
        return BAD
    return Entry(name, kind, cls, own, common, mapping.place)
