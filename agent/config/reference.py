"""The manual's page on the configuration, made from the declarations:

`python -m agent.config.reference > docs/configuration.md`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

from agent.config.declared import Option, is_section, kind_name, members, options_of, purpose
from agent.config.plugins import OTHERS
from agent.config.registry import Registry
from agent.config.sample import elements, remarks
from agent.config.settings import Settings
from agent.config.tables import REGISTRIES
from agent.config.write import inline

_HEAD = """\
# Configuration

This page is made from the declarations of the options: `python -m agent.config.reference > docs/configuration.md`.

The agent reads `/etc/vigilhost/vigilhost.yaml` (or the file given with `--config`) and then every `conf.d/*.yaml`
beside it, in the order of their names. Mappings are joined key by key; for lists and single values the later file wins;
an empty section changes nothing. No file is needed: every option has a default.

| command | what it does |
|---|---|
| `vigilhost check [FILE]` | says everything that is wrong, one line each with file and line; exit status 2 |
| `vigilhost config sample` | prints a complete file with every default and its meaning |
| `vigilhost config show` | prints what is in force, secrets masked |

**Values.** A duration has a unit: `250ms`, `90s`, `5m`, `1h30m`, `7d`; so has a size (`64KiB`, `100MB`, `1GiB`) and a
percentage (`85%`). True and false are `true` and `false` only; `yes` and `on` are refused rather than guessed at, and
`1:30` is never ninety of anything. Anchors, aliases, tags, duplicate keys, files above 1 MiB and more than 32 levels
are errors.

**Variables.** In any value `${NAME}` is an environment variable, `${NAME:-otherwise}` has a text for when it is unset
or empty, and `$$` is a dollar sign. Inside braces and brackets YAML wants quotes around it: `{env: "${STAGE}"}`.

**Secrets** are `{file: /path}` (relative to the configuration file that says so, without the line break at its end),
`{credential: name}` (from systemd's `LoadCredential=`), `${NAME}`, or the text itself. The agent warns when a file that
every user can read holds one. Secrets are never shown.
"""


def reference(registries: Mapping[str, Registry] = REGISTRIES) -> str:
    """The page. Raise PluginError when one of our own plugins cannot be imported."""
    return "\n".join([_HEAD, *chapters(Settings, registries)]) + "\n"


def chapters(settings: type, registries: Mapping[str, Registry]) -> list[str]:
    """The lines that tell every option of `settings` and of the plugins it takes. Raise PluginError."""
    options = options_of(settings).values()
    lines = ["## Options of the first level", ""]
    lines += _rows(option for option in options if not is_section(option.kind) and "plugins" not in option.limits)
    for option in options:
        if is_section(option.kind):
            lines += ["", f"## {option.name}", "", f"{purpose(option.kind)}", ""]
            lines += _rows(one for one in options_of(option.kind).values() if "plugins" not in one.limits)
            for nested in options_of(option.kind).values():
                if table := nested.limits.get("plugins"):
                    section = f"{option.name}.{nested.name}"
                    lines += ["", f"## {section}", "", nested.help, *_table(registries[table], section)]
        elif table := option.limits.get("plugins"):
            lines += ["", f"## {option.name}", "", option.help, *_table(registries[table], option.name)]
    return lines


def _table(registry: Registry, section: str) -> Iterator[str]:
    if registry.on_by_default:
        yield ""
        off = f"`{section}: {{name: false}}` turns one off, and `{OTHERS}: false` all that are not named"
        yield f"A {registry.noun} that is on by default runs without being named; {off}."
    if registry.has_types:
        yield ""
        yield f"The name of a {registry.noun} is its type, or any other name with `type:` (to have two of a kind)."
    yield from ("", f"Every {registry.noun} takes these beside its own options:", "")
    yield from _rows(options_of(registry.common).values())
    for name in registry.builtin:
        cls = registry.find(name)
        state = "On by default." if name in registry.on_by_default else "Off unless named."
        yield from ("", f"### {section}.{name}", "", f"{purpose(cls)} {state}".strip(), "")
        yield from _rows(options_of(cls).values())


def _rows(options: Iterable[Option]) -> Iterator[str]:
    rows = [row for option in options for row in _row(option, "")]
    if not rows:
        yield "It has no options of its own."
        return
    yield "| option | type | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows


def _row(option: Option, prefix: str) -> Iterator[str]:
    if option.is_required:
        default = "required"
    else:
        words = option.limits.get("default_text")
        default = words or f"`{inline(option.kind, option.default())}`"
    example = option.limits.get("example")
    of_example = f" For example `{example}`." if example and "\n" not in example else ""
    meaning = f"{option.help} {remarks(option, of_example=False)}".strip() + of_example
    cells = (f"`{prefix}{option.name}`", kind_name(option.kind), default, meaning)
    yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    section = next(filter(is_section, members(option.kind)), None)
    element = section or elements(option)
    if element is not None and not prefix.endswith(f"{option.name}[]."):
        step = "." if section is not None else "[]."
        for nested in options_of(element).values():
            yield from _row(nested, f"{prefix}{option.name}{step}")


if __name__ == "__main__":
    sys.stdout.write(reference())
