"""How a plugin declares its options: dataclass fields with a type, a default and a sentence."""

from __future__ import annotations

import dataclasses
from typing import Any


def option(default: object, help: str, **limits: Any) -> Any:
    """A dataclass field that the configuration loader, the sample file and the manual read.

    `default` may be a factory (list, dict, a dataclass). `limits`: `minimum`, `maximum` (numbers, after units);
    `check`, called with the value, raises ValueError with a sentence that follows it; `example` is YAML text for the
    sample where the default is empty; `default_text` says in words a default that differs from host to host;
    `plugins` names the table whose entries the section holds.
    """
    metadata = {"help": help, **limits}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, **limits: Any) -> Any:
    """An option that has no default."""
    return dataclasses.field(metadata={"help": help, **limits})
