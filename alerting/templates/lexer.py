"""Template text as tokens: the text between the actions, and the words inside `{{ }}`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from alerting.templates.values import TemplateError

KEYWORDS = frozenset(
    {"block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with", "true", "false"}
)

_SPACE = " \t\r\n"
_WORDS = re.compile(
    r"""
    (?P<space>[\ \t\r\n]+)
  | (?P<declare>:=) | (?P<assign>=) | (?P<pipe>\|) | (?P<open>\() | (?P<close>\)) | (?P<comma>,)
  | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<raw>`[^`]*`) | (?P<char>'(?:[^'\\\n]|\\[^\n]+?)')
  | (?P<field>\.[^\W\d]\w*) | (?P<variable>\$\w*)
  | (?P<number>[+-]?(?:0[xXbBoO][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?))
  | (?P<dot>\.) | (?P<word>[^\W\d]\w*)
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """`kind` is `text`, `left`, `right`, `eof`, a keyword, or the name of a group in the pattern above."""

    kind: str
    text: str
    at: int  # character of the template it starts at


def where(template: str, at: int) -> str:
    """line:column of a character, both from 1."""
    return f"{template.count(chr(10), 0, at) + 1}:{at - template.rfind(chr(10), 0, at)}"


def tokens(template: str) -> Iterator[Token]:
    """Every token in order, `eof` last; text is trimmed as `{{-` and `-}}` ask, comments are gone.

    Raise TemplateError.
    """
    at, trim = 0, False
    while (left := template.find("{{", at)) >= 0:
        trims_before = template[left + 2 : left + 3] == "-" and template[left + 3 : left + 4] in tuple(_SPACE)
        yield from _text(template, at, left, trim, trims_before)
        inside = left + (3 if trims_before else 2)
        start = inside + len(template[inside:]) - len(template[inside:].lstrip(_SPACE)) if trims_before else inside
        if template.startswith("/*", start):
            at, trim = _after_comment(template, start, left)
            continue
        yield Token("left", "{{", left)
        words = _Action(template, inside, left)
        yield from words
        at, trim = words.at, words.trims
    yield from _text(template, at, len(template), trim, False)
    yield Token("eof", "", len(template))


def _text(template: str, start: int, end: int, trim_start: bool, trim_end: bool) -> Iterator[Token]:
    text = template[start:end]
    text = text.lstrip(_SPACE) if trim_start else text
    text = text.rstrip(_SPACE) if trim_end else text
    if text:
        yield Token("text", text, start)


def _after_comment(template: str, start: int, left: int) -> tuple[int, bool]:
    close = template.find("*/", start + 2)
    if close < 0:
        raise TemplateError(f"{where(template, left)}: comment without an end; close it with */}}}}")
    ending = re.compile(r"([ \t\r\n]+-)?\}\}").match(template, close + 2)
    if ending is None:
        raise TemplateError(f"{where(template, left)}: a comment must fill its action; end it with */}}}}")
    return ending.end(), bool(ending[1])


class _Action:
    """The words of one action; afterwards `at` stands behind its `}}`, and `trims` tells of `-}}`."""

    def __init__(self, template: str, inside: int, left: int) -> None:
        self.template = template
        self.at = inside
        self.left = left
        self.trims = False

    def __iter__(self) -> Iterator[Token]:
        template = self.template
        while True:
            ending = re.compile(r"[ \t\r\n]+-\}\}|\}\}").match(template, self.at)
            if ending:
                self.trims = len(ending[0]) > 2
                yield Token("right", "}}", self.at)
                self.at = ending.end()
                return
            match = _WORDS.match(template, self.at)
            if match is None:
                raise self._unreadable()
            kind = match.lastgroup or ""
            text = match[0]
            if kind == "word" and text in KEYWORDS:
                kind = text
            if kind == "number" and (text[-1] == "_" or template[match.end() : match.end() + 1].isalnum()):
                raise TemplateError(f"{where(template, self.at)}: {text + template[match.end()]!r} is not a number")
            if kind == "space":
                # white space before `-}}` belongs to the marker
                text = text if not template.startswith("-}}", match.end()) else text[:-1]
                if not text:
                    continue
            yield Token(kind, text, self.at)
            self.at += len(text)

    def _unreadable(self) -> TemplateError:
        place = where(self.template, self.at)
        if self.at >= len(self.template):
            return TemplateError(
                f"{where(self.template, self.left)}: '{{{{' without an end; close the action with '}}}}'"
            )
        char = self.template[self.at]
        if char in "\"'`":
            return TemplateError(f"{place}: a quoted text without an end; close it with {char}")
        return TemplateError(f"{place}: {char!r} means nothing inside an action")
