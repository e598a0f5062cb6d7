"""What a parsed template is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: text, number, true, false, nil."""

    value: Any


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`"""


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x`, with the fields asked of it: `$x.a.b`."""

    name: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fields:
    """`.a.b`, or `(pipeline).a.b` where `of` is given."""

    fields: tuple[str, ...]
    of: Operand | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function, alone or at the head of a command."""

    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """An operand and its arguments."""

    words: tuple[Operand, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each taking the value of the one before as its last argument; `declares` are variables set by it."""

    commands: tuple[Command, ...]
    declares: tuple[str, ...] = ()
    is_assignment: bool = False


Operand: TypeAlias = Literal | Dot | Variable | Fields | Function | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    """What is copied as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose value is printed, unless it sets a variable."""

    pipeline: Pipeline
    at: int


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """`{{template "name" pipeline}}`."""

    name: str
    pipeline: Pipeline | None
    at: int


@dataclass(frozen=True, slots=True)
class Leave:
    """`break` or `continue`."""

    kind: str


Node: TypeAlias = Text | Action | Branch | Call | Leave


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole template: its own nodes, and those of the templates it defines."""

    source: str
    body: tuple[Node, ...]
    defined: dict[str, tuple[Node, ...]] = field(default_factory=dict)
