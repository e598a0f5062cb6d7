"""The name of this host, apart: who needs no more of the configuration need not import what the rest is for."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.declared import options_of
from agent.config.files import DEFAULT_FILE, files_of
from agent.config.plugins import read_table
from agent.config.schema import Bad, Reader
from agent.core import yaml_nodes as nodes
from agent.core.options import option
from agent.core.problems import ConfigError, Place, Problem


def _host_name() -> str:
    return os.uname().nodename


def check_not_empty(text: str) -> None:
    """Raise ValueError for a name of nothing."""
    if not text:
        raise ValueError("is empty; write a name, or remove the line")


def hostname_option() -> Any:
    """The field `hostname` of the settings."""
    return option(
        _host_name, "Name of this host on everything it sends.", default_text="the name of the host",
        example="web1.example.org", check=check_not_empty,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Named:
    hostname: str = hostname_option()


def load_hostname(path: str | None = None, *, environ: Mapping[str, str] = os.environ) -> tuple[str, list[str]]:
    """The option `hostname` alone, and the files it may stand in: for who must not depend on the rest being right.

    Raise ConfigError.
    """
    errors: list[Problem] = []
    files = files_of(path, errors, [])
    trees = [tree for file in files if (tree := nodes.read_file(file, errors)) is not None]
    root = functools.reduce(nodes.merge, trees, nodes.Mapping(Place(path or DEFAULT_FILE)))
    reader = Reader(environ, functools.partial(read_table, {}))
    declared, node = options_of(_Named)["hostname"], root.items.get("hostname")
    found = declared.default() if node is None else reader.value(str, node, declared.name, declared.limits)
    if errors or isinstance(found, Bad):
        raise ConfigError(errors + reader.errors)
    return found, files
