"""Grafana's published schema, as the Python models that Grafana Labs generate from it (grafana-foundation-sdk).

The models take anything, so the check is ours: what a model does not know is lost when it is written again, and every
value must be of the type that its model declares.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

plugins.register_default_plugins()  # the models of panels' options and of Prometheus' queries


def faults(document: dict[str, Any]) -> list[str]:
    """What of the document the schema does not know or wants otherwise."""
    model = Dashboard.from_json(document)
    written = json.loads(json.dumps(model, cls=JSONEncoder))
    return [*_lost(document, written, ""), *_mistyped(model, Dashboard, "")]


def _lost(given: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            if name not in written:
                # An optional property that is null is not written again.
                if value is not None:
                    yield f"{path}.{name}: no such property"
            else:
                yield from _lost(value, written[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for at, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from _lost(one, other, f"{path}[{at}]")
    elif given != written:
        yield f"{path}: {given!r} became {written!r}"


def _mistyped(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Where the value is not of its declared type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        if hasattr(value, "from_json"):
            yield from _mistyped(value, type(value), path)
    elif origin in (typing.Union, types.UnionType):
        tries = [list(_mistyped(value, part, path)) for part in parts]
        if all(tries):
            # The one that came furthest into the value.
            yield from max(tries, key=lambda found: len(found[0].partition(":")[0]))
    elif origin is typing.Literal:
        if value not in parts:
            yield f"{path}: {_shown(value)} is none of {parts}"
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{path}: {_shown(value)} is no {origin.__name__}"
            return
        members = enumerate(value) if origin is list else value.items()
        for at, one in members:
            yield from _mistyped(one, parts[-1], f"{path}[{at}]")
    elif isinstance(hint, type):
        yield from _mistyped_object(value, hint, path)


def _mistyped_object(value: Any, hint: type, path: str) -> Iterator[str]:
    if issubclass(hint, enum.Enum):
        if value not in {member.value for member in hint}:
            yield f"{path}: {_shown(value)} is none of {[member.value for member in hint]}"
    elif hasattr(hint, "from_json"):
        if isinstance(value, dict):  # some lists of models are left as they came
            given, value = value, hint.from_json(value)
            yield from _lost(given, json.loads(json.dumps(value, cls=JSONEncoder)), path)
        if not isinstance(value, hint):
            yield f"{path}: {_shown(value)} is no {hint.__name__}"
            return
        for name, declared in typing.get_type_hints(type(value)).items():
            yield from _mistyped(getattr(value, name), declared, f"{path}.{name}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{path}: {_shown(value)} is no number"
    elif not isinstance(value, hint) or (isinstance(value, bool) and hint is int):
        yield f"{path}: {_shown(value)} is no {hint.__name__}"


def _shown(value: Any) -> str:
    return repr(value)[:80]
