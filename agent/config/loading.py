"""From files to Settings, and from Settings to what they describe."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.files import DEFAULT_FILE, files_of
from agent.config.plugins import Entry, read_table
from agent.config.registry import Registry
from agent.config.schema import Bad, Reader
from agent.config.settings import Settings
from agent.config.tables import REGISTRIES, CommonOptions
from agent.core import yaml_nodes as nodes
from agent.core.collector import Collector
from agent.core.problems import ConfigError, Place, Problem
from agent.core.yaml_nodes import Text


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, what is doubtful about it, and the files it was read from."""

    settings: Settings
    warnings: list[Problem]
    files: list[str]


def load(
    path: str | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    registries: Mapping[str, Registry] = REGISTRIES,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read `path` and the files of `conf.d` beside it. Raise ConfigError with all that is wrong.

    `path` None: /etc/vigilhost/vigilhost.yaml, which need not exist. `overrides`: options of the first level given on
    the command line, `{"state_dir": "./.state"}`; they win over every file.
    """
    errors: list[Problem] = []
    warnings: list[Problem] = []
    files = files_of(path, errors, warnings)
    trees = [tree for file in files if (tree := nodes.read_file(file, errors)) is not None]
    root = functools.reduce(nodes.merge, [*trees, _given(overrides or {})], nodes.Mapping(Place(path or DEFAULT_FILE)))
    reader = Reader(environ, functools.partial(read_table, registries))
    settings = reader.section(Settings, root, "")
    errors += reader.errors
    if not isinstance(settings, Bad):
        errors += _untaken(settings)
    if errors or isinstance(settings, Bad):
        raise ConfigError(_in_order(errors, files))
    warnings += reader.warnings + _readable_secrets(reader.plain_secrets)
    return Loaded(settings, _in_order(warnings, files), files)


def build_collectors(settings: Settings) -> list[tuple[Collector, CommonOptions]]:
    """A new object for every collector that is turned on, with its common options. Raise ConfigError."""
    host = settings.paths.host
    return [(_built(entry, "collectors", host=host), entry.common) for entry in settings.collectors.values()]


def build_sinks(settings: Settings) -> list[tuple[str, Any]]:
    """The name and a new object of every sink that is turned on. Raise ConfigError."""
    return [(entry.name, _built(entry, "sinks")) for entry in settings.sinks.values()]


def _built(entry: Entry, section: str, **given: Any) -> Any:
    try:
        return entry.build(**given)
    except ValueError as error:
        raise ConfigError([Problem(entry.place, f"{section}.{entry.name}", str(error))]) from error


def _untaken(settings: Settings) -> list[Problem]:
    """What the plugins themselves say against their options: each is made once, and dropped."""
    errors = []
    for section, entries in (("collectors", settings.collectors), ("sinks", settings.sinks)):
        for entry in entries.values():
            try:
                _built(entry, section, host=settings.paths.host)
            except ConfigError as error:
                errors += error.errors
    return errors


def _given(overrides: Mapping[str, str]) -> nodes.Mapping:
    """Options of the command line as a file of their own; each stands at its switch."""
    places = {name: Place(f"--{name.replace('_', '-')}") for name in overrides}
    items: dict[str, nodes.Node] = {
        # A dollar sign of the command line was the shell's business.
        name: Text(places[name], text.replace("$", "$$"), is_plain=False) for name, text in overrides.items()
    }  # fmt: skip
    return nodes.Mapping(Place("the command line"), items, places)


def _readable_secrets(plain: list[tuple[Place, str]]) -> list[Problem]:
    """A warning for each file that every user can read and that holds a secret itself."""
    paths: dict[str, list[tuple[Place, str]]] = {}
    for place, path in plain:
        paths.setdefault(place.file, []).append((place, path))
    warnings = []
    for file, found in paths.items():
        try:
            mode = os.stat(file).st_mode
        except OSError:
            continue  # it was read a moment ago; nothing can be said about it now
        if mode & stat.S_IROTH:
            names = ", ".join(path for _, path in found)
            text = f"holds a secret ({names}) and can be read by every user of this host; chmod o-rwx it"
            warnings.append(Problem(found[0][0], "", text))
    return warnings


def _in_order(problems: list[Problem], files: list[str]) -> list[Problem]:
    order = {file: at for at, file in enumerate(files)}

    def position(problem: Problem) -> tuple[int, int, int]:
        return order.get(problem.place.file, len(order)), problem.place.line, problem.place.column

    return sorted(problems, key=position)
