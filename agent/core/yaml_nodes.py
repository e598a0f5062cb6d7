"""YAML text as a tree of nodes that know their file and line.

A small, safe part of YAML: mappings, lists and texts. No tags, no duplicate keys, one document, and no guessing of
types: what a text means is decided by whoever reads it, so `on`, `1:30` and `2024-01-01` are just texts here. Anchors,
aliases and merge keys are refused in a configuration and understood in files that others write too (`with_aliases`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from agent.core.problems import MOST_PROBLEMS, Place, Problem, join, shown, shown_key

MOST_BYTES = 1 << 20  # of one file
MOST_DEPTH = 32  # mappings and lists inside each other
MOST_REPEATED = 20_000  # nodes that aliases stand for, all together

# libyaml's parser; the slow one of the same library only where PyYAML was built without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What YAML allows in a file is the complement of this.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NO_MAPPING = "found no mapping; write `option: value` (with a space after the colon)"
_NULLS = ("", "~", "null")


@dataclass(slots=True)
class Text:
    """A scalar as written, unescaped. `is_plain` is False in quotes and blocks: it is meant as text.

    `is_literal`: a block after `|`, whose first line stands below `place` and whose lines are those of the file.
    """

    place: Place
    text: str
    is_plain: bool = True
    is_literal: bool = False

    @property
    def is_null(self) -> bool:
        """True for nothing at all, `~` and `null`."""
        return self.is_plain and self.text in _NULLS


@dataclass(slots=True)
class Sequence:
    """A list."""

    place: Place
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """A mapping; `places` has the place of each key."""

    place: Place
    items: dict[str, Node] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


Node = Text | Sequence | Mapping


def read_file(path: str, problems: list[Problem], *, with_aliases: bool = False) -> Mapping | None:
    """The file's tree; None when it cannot be read or parsed, said in `problems`."""
    text = read_text(path, problems)
    return None if text is None else parse(text, path, problems, with_aliases=with_aliases)


def read_text(path: str, problems: list[Problem]) -> str | None:
    """What is written in the file; None when it cannot be read, said in `problems`."""
    whole = Place(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        problems.append(Problem(whole, "", f"cannot be read: {(error.strerror or str(error)).lower()}"))
        return None
    if len(data) > MOST_BYTES:
        problems.append(Problem(whole, "", f"is larger than {MOST_BYTES >> 20} MiB; split it into several files"))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(path, data.count(b"\n", 0, error.start) + 1)
        problems.append(Problem(place, "", f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"))
        return None


def parse(text: str, file: str, problems: list[Problem], *, with_aliases: bool = False) -> Mapping | None:
    """The tree of `text`; None when it is no YAML mapping. Everything wrong is added to `problems`."""
    if bad := _UNPRINTABLE.search(text):
        place = Place(file, text.count("\n", 0, bad.start()) + 1)
        problems.append(Problem(place, "", f'character U+{ord(bad[0]):04X} is not allowed; write it as "\\u...."'))
        return None
    builder = _Builder(file, problems, with_aliases)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text, file))
        return None
    except _GaveUpError:
        return None
    root = builder.root
    if root is None or (isinstance(root, Text) and root.is_null):
        return Mapping(Place(file, 1))
    if not isinstance(root, Mapping):
        problems.append(
            Problem(root.place, "", "found no mapping; write `option: value` (with a space after the colon)")
        )
        return None
    return root


def merge(base: Mapping, over: Mapping) -> Mapping:
    """Both together: mappings key by key, for all else `over` wins; an empty section of `over` changes nothing."""
    items, places = dict(base.items), dict(base.places)
    for key, node in over.items.items():
        old = items.get(key)
        if isinstance(old, Mapping) and isinstance(node, Mapping) and not _is_other_source(old, node):
            items[key] = merge(old, node)
        elif isinstance(old, Mapping) and isinstance(node, Text) and node.is_plain and not node.text:
            continue
        else:
            items[key] = node
        places[key] = over.places[key]
    return Mapping(over.place, items, places)


def _is_other_source(old: Mapping, new: Mapping) -> bool:
    """Whether a secret's source is replaced: `{file: ...}` by `{credential: ...}` must not become both."""
    return {*old.items, *new.items} == {"file", "credential"} and len(old.items) == len(new.items) == 1


class _GaveUpError(Exception):
    """The rest of the file is not worth reading; the reason is among the problems."""


@dataclass(slots=True)
class _Open:
    """A mapping or list being filled."""

    node: Sequence | Mapping
    path: str
    key: str | None = None  # of the value that comes next; None when that value is dropped
    wants_key: bool = True


class _Builder:
    """Makes the tree from the parser's events, without recursion."""

    def __init__(self, file: str, problems: list[Problem], with_aliases: bool) -> None:
        self.root: Node | None = None
        self._with_aliases = with_aliases
        self._anchors: dict[str, Node] = {}
        self._repeated = 0
        self._file = file
        self._problems = problems
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.NodeEvent):
            self._take_node(event, self._place(event.start_mark))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            if isinstance(closed.node, Mapping) and "<<" in closed.node.items and self._with_aliases:
                self._merge_keys(closed.node)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                place = self._place(event.start_mark)
                self._give_up(Problem(place, "", "a second document begins; a file holds one: remove this `---`"))

    def _take_node(self, event: Any, place: Place) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._place_node(self._aliased(str(event.anchor), place))
            return
        if event.anchor is not None and not self._with_aliases:
            self._say(place, "anchors (`&name`) are not allowed; remove it")
        if event.tag is not None:
            self._say(place, "tags (`!name`) are not allowed; remove it")
        if isinstance(event, yaml.ScalarEvent):
            text = Text(place, event.value, event.style not in ("'", '"', "|", ">"), event.style == "|")
            if event.anchor is not None:
                self._anchors[event.anchor] = text
            self._place_node(text)
            return
        if len(self._open) >= MOST_DEPTH:
            self._give_up(Problem(place, "", f"is nested deeper than {MOST_DEPTH} levels"))
        node = Mapping(place) if isinstance(event, yaml.MappingStartEvent) else Sequence(place)
        path = self._path()
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._place_node(node)
        self._open.append(_Open(node, path))

    def _aliased(self, anchor: str, place: Place) -> Node:
        """The node that an alias stands for, itself and not a copy; an empty text where it may not be used."""
        if not self._with_aliases:
            self._say(place, "aliases (`*name`) are not allowed; write the value again")
            return Text(place, "")
        node = self._anchors.get(anchor)
        if node is None or any(one.node is node for one in self._open):
            self._say(place, f"the alias {shown(anchor)} names no anchor before it")
            return Text(place, "")
        self._repeated += _size(node, MOST_REPEATED)
        if self._repeated > MOST_REPEATED:  # each may stand for many that stand for many
            self._give_up(Problem(place, "", f"aliases stand for more than {MOST_REPEATED} values; write fewer"))
        return node

    def _merge_keys(self, into: Mapping) -> None:
        """Carry out `<<`: keys of the mappings it names, where the mapping has none of its own."""
        given = into.items.pop("<<")
        place = into.places.pop("<<")
        for one in given.items if isinstance(given, Sequence) else [given]:
            if not isinstance(one, Mapping):
                self._say(place, "`<<` takes a mapping or a list of mappings")
                continue
            for key, node in one.items.items():
                if key not in into.items:
                    into.items[key], into.places[key] = node, one.places[key]

    def _place_node(self, node: Node) -> None:
        """Put a finished text, or a list or mapping that will be filled, where the innermost open one expects it."""
        if not self._open:
            self.root = node
            return
        into = self._open[-1]
        if isinstance(into.node, Sequence):
            into.node.items.append(node)
        elif into.wants_key:
            into.key, into.wants_key = self._key(node, into.node), False
        else:
            if into.key is not None:
                into.node.items[into.key] = node
            into.wants_key = True

    def _key(self, node: Node, into: Mapping) -> str | None:
        """The key's text; None when it cannot be one, then its value is dropped."""
        if not isinstance(node, Text):
            self._say(node.place, "a list or mapping cannot be a key; quote it if it is meant as text")
            return None
        if node.is_null:
            self._say(node.place, "a key is missing before the colon")
            return None
        if first := into.places.get(node.text):
            path = join(self._open[-1].path, node.text)
            text = f"{shown_key(node.text)} is given twice, first on line {first.line}; keep one"
            self._add(Problem(node.place, path, text))
            return None
        into.places[node.text] = node.place
        return node.text

    def _path(self) -> str:
        """The option that the next node belongs to."""
        if not self._open:
            return ""
        into = self._open[-1]
        if isinstance(into.node, Sequence):
            return f"{into.path}[{len(into.node.items)}]"
        return join(into.path, into.key) if not into.wants_key and into.key is not None else into.path

    def _place(self, mark: Any) -> Place:
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _say(self, place: Place, text: str) -> None:
        self._add(Problem(place, self._path(), text))

    def _add(self, problem: Problem) -> None:
        self._problems.append(problem)
        if len(self._problems) >= MOST_PROBLEMS:
            self._give_up(Problem(Place(self._file), "", "there are more errors; correct these first"))

    def _give_up(self, problem: Problem) -> None:
        self._problems.append(problem)
        raise _GaveUpError


def _size(node: Node, most: int) -> int:
    """Nodes in a tree, counted no further than `most`."""
    count, waiting = 0, [node]
    while waiting and count <= most:
        one = waiting.pop()
        count += 1
        if not isinstance(one, Text):
            waiting += one.items.values() if isinstance(one, Mapping) else one.items
    return count


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """The parser's complaint on one line. Its own text never repeats the file's, which may hold a secret."""
    mark: Any = error.problem_mark or error.context_mark
    lines = text.split("\n")
    if mark is None or mark.line >= len(lines):
        return Problem(Place(file, len(lines)), "", f"is not YAML: {error.problem}")
    content = lines[mark.line]
    place = Place(file, mark.line + 1, mark.column + 1)
    if "\t" in content[: len(content) - len(content.lstrip())]:
        return Problem(place, "", "a tab indents this line; indent with spaces")
    context = f" {error.context}" if error.context else ""
    start: Any = error.context_mark
    where = f" that starts on line {start.line + 1}" if start is not None and start.line != mark.line else ""
    hint = "; inside braces and brackets a ${NAME} needs quotes" if "${" in content else ""
    return Problem(place, "", f"is not YAML: {error.problem}{context}{where}{hint}")
