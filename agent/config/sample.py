"""The sample configuration: every option with its default and its meaning, made from the declarations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.config.declared import Option, element_of, is_section, kind_name, members, options_of, purpose, unit_of
from agent.config.plugins import OTHERS
from agent.config.registry import PluginError, Registry
from agent.config.scalars import write_number
from agent.config.settings import Settings
from agent.config.tables import REGISTRIES
from agent.config.write import inline
from agent.core.secrets import Secret
from agent.core.units import Unit

_WIDTH = 110
_HEAD = """\
# Configuration of vigilhost: every option with its default. What is off unless configured is commented out.
#
# /etc/vigilhost/vigilhost.yaml, then conf.d/*.yaml beside it in the order of their names: mappings are joined, for all
# else the later file wins. Durations are written like 250ms, 90s, 5m or 1h30m, sizes like 64KiB, 100MB or 1GiB,
# percentages like 85%. In any text ${NAME} and ${NAME:-otherwise} are environment variables, and $$ is a dollar sign.
# A secret is {file: /path}, {credential: name} (systemd's LoadCredential=), ${NAME}, or the text itself.
# `vigilhost check` says what is wrong with a configuration, `vigilhost config show` what is in force.
"""


def sample(registries: Mapping[str, Registry] = REGISTRIES) -> str:
    """YAML that, loaded as it is, gives the defaults."""
    lines = [_HEAD.rstrip("\n")]
    for option in options_of(Settings).values():
        lines.append("")
        if table := option.limits.get("plugins"):
            lines += _comment(option.help)
            lines.append(f"{option.name}:")
            lines += _indented(_table(registries[table]))
        else:
            lines += _option(option, registries)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def remarks(option: Option, *, of_example: bool = True) -> str:
    """What the declaration says beside the help: limits, and an example."""
    parts = []
    unit = _number_unit(option.kind)
    for name, words in (("minimum", "At least"), ("maximum", "At most")):
        if (limit := option.limits.get(name)) is not None:
            parts.append(f"{words} {write_number(limit, unit)}.")
    example = option.limits.get("example")
    if of_example and example and "\n" not in example:
        parts.append(f"For example {example}.")
    return " ".join(parts)


def elements(option: Option) -> type | None:
    """The dataclass of a list's or mapping's elements, where they have options of their own."""
    for member in members(option.kind):
        element = element_of(unit_of(member)[0])
        if element is not None and is_section(element):
            return element  # type: ignore[no-any-return]
    return None


def _number_unit(kind: Any) -> Unit | None:
    """The unit of a number, also of the numbers in a list or mapping."""
    for member in members(kind):
        base, unit = unit_of(member)
        if unit is not None:
            return unit
        if element_of(base) is not None:
            return _number_unit(element_of(base))
    return None


def _option(option: Option, registries: Mapping[str, Registry] | None = None) -> Iterator[str]:
    default = None if option.is_required else option.default()
    if is_section(option.kind):
        yield from _comment(option.help)
        yield f"{option.name}:"
        for nested in options_of(option.kind).values():
            table = nested.limits.get("plugins")
            if table and registries is not None:
                yield from _indented(_comment(nested.help))
                yield f"  {nested.name}:"
                yield from _indented(_indented(_table(registries[table])))
            else:
                yield from _indented(_option(nested, registries))
        return
    is_empty = default is None or (isinstance(default, Secret) and not default)
    has_value = not is_empty and "default_text" not in option.limits
    kinds = [kind_name(member).capitalize() + "." for member in members(option.kind)]
    choices = "".join(f" {kind}" for kind in kinds if kind.startswith("One of"))
    words = f" Default: {option.limits['default_text']}." if "default_text" in option.limits else ""
    more = remarks(option, of_example=has_value and not default)
    yield from _comment(f"{option.help}{choices}{words} {more}")
    if (element := elements(option)) is not None:
        yield from _comment("Each has these options:")
        yield from _commented(_element(element))
    example = str(option.limits.get("example", "null"))
    if "\n" in example:
        block = (f"{option.name}:", *_indented(example.strip("\n").split("\n")))
        yield from block if option.is_required else _commented(block)
        if not has_value:
            return
    if has_value:
        yield f"{option.name}: {inline(option.kind, default)}"
    elif option.is_required:
        yield f"{option.name}: {example}"
    else:
        yield f"# {option.name}: {example}"


def _element(cls: type) -> Iterator[str]:
    """The options of an element, for a comment: there is no element by default."""
    for option in options_of(cls).values():
        default = "required" if option.is_required else inline(option.kind, option.default())
        text = f"{option.name} ({kind_name(option.kind)}; {default}): {option.help} {remarks(option)}"
        yield from textwrap.wrap(text.strip(), _WIDTH, initial_indent="  ", subsequent_indent="    ")
        if (nested := elements(option)) is not None and nested is not cls:
            yield from _indented(_element(nested))


def _table(registry: Registry) -> Iterator[str]:
    yield from _comment(f"Every {registry.noun} takes these beside its own options:")
    yield from _commented(_element(registry.common))
    if registry.on_by_default:
        yield from _comment(
            f"Whether the {registry.noun}s that are not named here run as well; false: only those named."
        )
        yield f"{OTHERS}: true"
    for name in registry.names():
        yield ""
        is_on = name in registry.on_by_default
        try:
            lines = list(_plugin(name, registry.find(name)))
        except PluginError as error:
            lines, is_on = [f"{name}: {error}"], False
        yield from lines if is_on else _commented(lines)


def _plugin(name: str, cls: type) -> Iterator[str]:
    yield from _comment(purpose(cls))
    options = options_of(cls).values()
    yield f"{name}:" if options else f"{name}: {{}}"
    for option in options:
        yield from _indented(_option(option))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _commented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"# {line}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {line}" if line else ""
