"""How a plugin declares its options: dataclass fields with a type, a default and a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: T | Callable[[], T], help: str, **limits: Any) -> Any:
    """A dataclass field that the configuration loader, the sample file and the manual read.

    `default` may be a factory (list, dict, a dataclass). `limits`: `minimum`, `maximum` (numbers, after units),
    `example` (YAML text for the sample where the default is empty).
    """
    metadata = {"help": help, **limits}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, **limits: Any) -> Any:
    """An option that has no default."""
    return dataclasses.field(metadata={"help": help, **limits})
