"""What a dataclass declares as options: the fields made with `agent.core.options.option` and `required`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.secrets import Secret
from agent.core.units import Unit

_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `name` is its key in YAML, `field` the dataclass field: `for_` is the option `for`.

    `limits` is what its declaration gave beside the help:

    `minimum`, `maximum`: of numbers, in the option's unit, also of those in a list or mapping.
    `check`: called with the value; raises ValueError with a sentence that follows the value (`is not an address; ...`).
    `example`: YAML text, shown where the default is empty or there is none.
    `default_text`: what the default is in words, where it differs from host to host.
    `plugins`: the name of the table (`agent.config.tables`) whose plugins this section configures.
    """

    name: str
    field: str
    kind: Any  # the resolved annotation, `Annotated` kept
    help: str
    limits: Mapping[str, Any]
    _default: Any

    @property
    def is_required(self) -> bool:
        return self._default is _REQUIRED

    def default(self) -> Any:
        """A fresh default value; not for a required option."""
        return self._default() if self.limits.get("has_factory") else self._default


@functools.cache
def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass by name, in declared order.

    Raise TypeError when it is no dataclass, NameError when an annotation names what its module does not import.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    kinds = typing.get_type_hints(cls, include_extras=True)
    options = [_option(field, kinds[field.name]) for field in dataclasses.fields(cls) if _is_option(field)]
    return {option.name: option for option in options}


def defaults_of(cls: type) -> dict[str, Any]:
    """The default of each option that has one, without resolving types: the way of a collector left as it is."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    defaults = {}
    for field in filter(_is_option, dataclasses.fields(cls)):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
    return defaults


def purpose(cls: type) -> str:
    """The first paragraph of the docstring, on one line; empty when there is none."""
    text = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return "" if text.startswith(f"{cls.__name__}(") else text


def _is_option(field: dataclasses.Field[Any]) -> bool:
    return "help" in field.metadata


def _option(field: dataclasses.Field[Any], kind: Any) -> Option:
    limits = {key: value for key, value in field.metadata.items() if key != "help"}
    default: Any = _REQUIRED
    if field.default_factory is not dataclasses.MISSING:
        default, limits["has_factory"] = field.default_factory, True
    elif field.default is not dataclasses.MISSING:
        default = field.default
    name, help = field.name.rstrip("_"), field.metadata["help"]
    return Option(name, field.name, kind, help, types.MappingProxyType(limits), default)


# The types an option may have, taken apart.


def unit_of(kind: Any) -> tuple[Any, Unit | None]:
    """`Annotated[float, Unit("duration")]` as (float, its unit); other types as they are, with None."""
    if typing.get_origin(kind) is typing.Annotated:
        unit = next((extra for extra in kind.__metadata__ if isinstance(extra, Unit)), None)
        return kind.__origin__, unit
    return kind, None


def members(kind: Any) -> tuple[Any, ...]:
    """The members of `X | Y`; one for every other type."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def is_section(kind: Any) -> bool:
    """Whether the type is a dataclass, written as a mapping of its own options."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def element_of(kind: Any) -> Any:
    """The type of the elements of a list, or of the values of a mapping; None for other types."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return args[1]
    return args[0] if origin in (list, tuple, set, frozenset) else None


_PLAIN_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", Secret: "secret",
                re.Pattern: "regular expression", types.NoneType: "null"}  # fmt: skip


def kind_name(kind: Any) -> str:
    """The type for people: `duration`, `list of text`, `one of auto, json`, `size or null`."""
    choices = members(kind)
    if len(choices) > 1:
        return " or ".join(map(kind_name, choices))
    base, unit = unit_of(kind)
    origin = typing.get_origin(base)
    if unit is not None:
        return {"percent": "percentage"}.get(unit.name, unit.name)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(base)))
    if origin is dict:
        return f"mapping of name to {kind_name(element_of(base))}"
    if element_of(base) is not None:
        return f"list of {kind_name(element_of(base))}"
    return "options" if is_section(base) else _PLAIN_NAMES.get(origin or base, str(base))
