"""From nodes to typed values: every option checked against its declared type, every error collected."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from agent.config.declared import Option, element_of, is_section, kind_name, members, options_of, unit_of
from agent.config.expand import expand
from agent.config.scalars import check_limits, read_bool, read_float, read_int, read_pattern, unit_form
from agent.config.secret_sources import read_secret
from agent.core import yaml_nodes as nodes
from agent.core.errors import VigilhostError
from agent.core.problems import MOST_PROBLEMS, Place, Problem, did_you_mean, join, shown
from agent.core.secrets import Secret
from agent.core.yaml_nodes import Node, Text

_SCALARS: dict[Any, Callable[[str], Any]] = {
    bool: read_bool,
    int: read_int,
    float: read_float,
    re.Pattern: read_pattern,
}
_COLLECTIONS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}


class Bad:
    """Stands for a value that was wrong; why is among the problems."""


BAD = Bad()

PluginReader = Callable[["Reader", str, Node, str], Any]


class Reader:
    """One reading of a configuration: what it may look at, and what it has found wrong so far.

    `plugins` reads the sections whose options belong to plugins; it gets this reader, the table's name, node and path.
    `closed`: sections of the first level whose secrets are for another process: each is taken for one that is there,
    and none is looked at.
    """

    def __init__(self, environ: Mapping[str, str], plugins: PluginReader, *, closed: Collection[str] = ()) -> None:
        self.environ = environ
        self.closed = closed
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.plain_secrets: list[tuple[Place, str]] = []  # written in the configuration itself: (place, path)
        self._plugins = plugins

    @property
    def is_full(self) -> bool:
        return len(self.errors) > MOST_PROBLEMS

    def error(self, place: Place, path: str, text: str) -> Bad:
        """Note an error; after so many only that there are more."""
        if len(self.errors) < MOST_PROBLEMS:
            self.errors.append(Problem(place, path, text))
        elif not self.is_full:
            self.errors.append(Problem(Place(place.file), "", "there are more errors; correct these first"))
        return BAD

    def warn(self, place: Place, path: str, text: str) -> None:
        self.warnings.append(Problem(place, path, text))

    def section(self, cls: type, node: Node, path: str) -> Any:
        """A dataclass made from a mapping, or BAD."""
        values = self.options(cls, node, path)
        if isinstance(values, Bad):
            return BAD
        try:
            return construct(cls, values)
        except ValueError as error:
            return self.error(node.place, path, str(error))

    def options(self, cls: type, node: Node, path: str, *, beside: frozenset[str] = frozenset(),
                least: Mapping[str, float] = types.MappingProxyType({})) -> dict[str, Any] | Bad:  # fmt: skip
        """The value of every option of `cls`, defaults included, or BAD.

        Keys in `beside` are read by someone else. `least`: minimum of an option that declares none.
        """
        declared = options_of(cls)
        mapping = as_mapping(node)
        if mapping is None:
            return self.error(node.place, path, nodes.NO_MAPPING)
        found_wrong = False
        for key in mapping.items.keys() - declared.keys() - beside:
            found_wrong = True
            if not self.is_full:
                self._unknown(key, mapping.places[key], path, (*declared, *beside))
        values = {}
        for name, option in declared.items():
            limits = {"minimum": least[name], **option.limits} if name in least else option.limits
            value = self._option(option, limits, mapping, join(path, name))
            found_wrong |= isinstance(value, Bad)
            values[option.field] = value
        return BAD if found_wrong else values

    def _unknown(self, key: str, place: Place, path: str, known: tuple[str, ...]) -> None:
        name, colon, _ = key.partition(":")
        if colon and name in known:
            self.error(place, join(path, name), "a space is missing after the colon")
            return
        hint = did_you_mean(name, known) or f"; the options here are {', '.join(sorted(known)) or 'none'}"
        self.error(place, join(path, key), f"no such option{hint}")

    def _option(self, option: Option, limits: Mapping[str, Any], mapping: nodes.Mapping, path: str) -> Any:
        node = mapping.items.get(option.name)
        if table := option.limits.get("plugins"):
            return self._plugins(self, table, node or nodes.Mapping(mapping.place), path)
        if node is not None:
            return self.value(option.kind, node, path, limits)
        if option.is_required:
            example = option.limits.get("example")
            return self.error(mapping.place, path, f"is missing; write it{f' like {example}' if example else ''}"
                              f" ({option.help.rstrip('.')})")  # fmt: skip
        return option.default()

    def value(self, kind: Any, node: Node, path: str, limits: Mapping[str, Any]) -> Any:
        """The value of a node for an option of type `kind`, or BAD."""
        choices = members(kind)
        if types.NoneType in choices:
            if isinstance(node, Text) and node.is_null:
                return None
            choices = tuple(choice for choice in choices if choice is not types.NoneType)
        if len(choices) > 1:
            return self._one_of(choices, node, path, limits)
        base, unit = unit_of(choices[0])
        if base is Secret:
            return read_secret(self, node, path) or BAD
        if is_section(base):
            return self.section(base, node, path)
        if typing.get_origin(base) is dict:
            return self._mapping(base, node, path, limits)
        if typing.get_origin(base) in _COLLECTIONS:
            return self._list(base, node, path, limits)

        def read(text: str) -> Any:
            value = unit_form(unit).read(text) if unit else _read_plain(base, text)
            if isinstance(value, int | float):
                check_limits(value, unit, limits.get("minimum"), limits.get("maximum"))
            return value

        return self._scalar(choices[0], node, path, read, limits.get("check"))

    def _one_of(self, choices: tuple[Any, ...], node: Node, path: str, limits: Mapping[str, Any]) -> Any:
        """The first type that takes the node; when none does, the complaint of the only one that is of its shape."""
        fitting = [choice for choice in choices if _shape(choice) is type(node)] or list(choices)
        if len(fitting) == 1:
            return self.value(fitting[0], node, path, limits)
        for choice in fitting:
            trial = Reader(self.environ, self._plugins)
            value = trial.value(choice, node, path, limits)
            if not isinstance(value, Bad):
                self.plain_secrets += trial.plain_secrets
                return value
        return self.error(node.place, path, f"{_what(node)} is neither {' nor '.join(map(kind_name, fitting))}")

    def _scalar(self, kind: Any, node: Node, path: str, read: Callable[[str], Any],
                check: Callable[[Any], object] | None) -> Any:  # fmt: skip
        if not isinstance(node, Text):
            return self.error(node.place, path, f"found {_what(node)}; write {_article(kind)}")
        if node.is_null:
            return self.error(node.place, path, f"has no value; write {_article(kind)}, or remove the line")
        try:
            expanded = expand(node.text, self.environ)
        except ValueError as error:
            return self.error(node.place, path, str(error))
        if kind in (bool, int, float) and not node.is_plain and not expanded.has_variable:
            return self.error(node.place, path, f"{shown(node.text)} is in quotes; write {_article(kind)} without")
        try:
            value = read(expanded.text)
            if check is not None:
                check(value)
        except ValueError as error:
            # Only what the file says is repeated: a variable may hold what nobody should see.
            hint = " (with its variables put in)" if expanded.has_variable else ""
            return self.error(node.place, path, f"{shown(node.text)}{hint} {error}")
        return value

    def _list(self, base: Any, node: Node, path: str, limits: Mapping[str, Any]) -> Any:
        if isinstance(node, Text) and node.is_null:
            return _COLLECTIONS[typing.get_origin(base)]([])
        if not isinstance(node, nodes.Sequence):
            return self.error(node.place, path, f"found {_what(node)}; write a list like [first, second]")
        element = element_of(base)
        values = [self.value(element, item, f"{path}[{at}]", limits) for at, item in enumerate(node.items)]
        return BAD if any(isinstance(value, Bad) for value in values) else _COLLECTIONS[typing.get_origin(base)](values)

    def _mapping(self, base: Any, node: Node, path: str, limits: Mapping[str, Any]) -> Any:
        mapping = as_mapping(node)
        if mapping is None:
            return self.error(node.place, path, f"found {_what(node)}; write a mapping like {{name: value}}")
        element = element_of(base)
        values = {key: self.value(element, item, join(path, key), limits) for key, item in mapping.items.items()}
        return BAD if any(isinstance(value, Bad) for value in values.values()) else values


def as_mapping(node: Node) -> nodes.Mapping | None:
    """The node as a mapping: an empty section is an empty one; None for what is neither."""
    if isinstance(node, Text) and node.is_null:
        return nodes.Mapping(node.place)
    return node if isinstance(node, nodes.Mapping) else None


def construct(cls: type, options: Mapping[str, Any], **given: Any) -> Any:
    """A new object of the class. Raise ValueError with its own reason, without secrets, when it does not want these."""
    try:
        return cls(**options, **given)
    except (ValueError, VigilhostError) as error:
        raise ValueError(hide_secrets(str(error), options)) from error
    except Exception as error:  # a plugin may be anybody's: its mistake is said, not ours to die of
        text = hide_secrets(f"{type(error).__name__}: {error}", options)
        raise ValueError(f"{cls.__name__} does not take these options: {text}") from error


def hide_secrets(text: str, values: Any) -> str:
    """A plugin's own complaint about its options, without the text of those that are secret."""
    for secret in _secrets(values):
        text = text.replace(secret, "***")
    return text


def _secrets(value: Any) -> Iterator[str]:
    """The text of every secret inside a value."""
    if isinstance(value, Secret):
        if value:
            yield value.reveal()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secrets(item)
    elif is_section(value.__class__):
        for option in options_of(value.__class__).values():
            yield from _secrets(getattr(value, option.field))


def _read_plain(base: Any, text: str) -> Any:
    if base is str:
        return text
    if typing.get_origin(base) is Literal:
        return _read_literal(typing.get_args(base), text)
    read = _SCALARS.get(typing.get_origin(base) or base)
    if read is None:
        raise ValueError(f"cannot be taken: the option is declared as {kind_name(base)}, which no option can be")
    return read(text)


def _read_literal(choices: tuple[Any, ...], text: str) -> Any:
    by_text = {str(choice): choice for choice in choices}
    if text not in by_text:
        hint = did_you_mean(text, by_text) or f"; write one of {', '.join(by_text)}"
        raise ValueError(f"is not one of the choices{hint}")
    return by_text[text]


def _shape(kind: Any) -> type:
    """The class of node that a type is written as."""
    base, _ = unit_of(kind)
    if is_section(base) or typing.get_origin(base) is dict:
        return nodes.Mapping
    return nodes.Sequence if typing.get_origin(base) in _COLLECTIONS else Text


def _what(node: Node) -> str:
    """The shape of what was found. Not its text: where a mapping belongs, `token:abc` is a secret."""
    if isinstance(node, nodes.Mapping):
        return "a mapping"
    if isinstance(node, nodes.Sequence):
        return "a list"
    return "nothing" if node.is_null else "a single value"


def _article(kind: Any) -> str:
    name = kind_name(kind)
    return name if name.startswith(("one of", "true or")) or name == "text" else f"a {name}"
