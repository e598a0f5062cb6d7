"""Text of a query to tokens. One compiled pattern per token; strings are decoded by hand, escape by escape."""

import re
from typing import Final, NamedTuple

from agent.core.query import ParseError

MAX_LENGTH: Final = 100_000  # characters; a generated dashboard query has a few thousand

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_:]*|:[A-Za-z0-9_:]+")
_WORD_IN_BRACKETS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F][0-9a-fA-F_]*|(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?")
_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdwy]))+")
_GLUED = re.compile(r"[A-Za-z0-9_.]+")  # what may not follow a number without a space
_OPERATOR = re.compile(r"=~|!~|==|!=|>=|<=|[-+*/%^=<>(){}\[\],:@]")
_DURATION_PARTS = re.compile(
    r"(?:([0-9]+)y)?(?:([0-9]+)w)?(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?"
)
_UNIT_MS: Final = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
_MAX_DURATION_MS: Final = 292 * 31_536_000_000  # what a Go duration holds
_SIMPLE_ESCAPES: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_ESCAPE_DIGITS: Final = {"x": 2, "u": 4, "U": 8}


class Token(NamedTuple):
    """`kind` is number, duration, string, word, end, or the operator itself; `value`: text, number, seconds."""

    kind: str
    text: str
    start: int
    end: int
    value: float | str = ""


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def error(text: str, offset: int, message: str, hint: str = "") -> ParseError:
    """A ParseError at this offset."""
    line, column = place(text, offset)
    return ParseError(message, line, column, hint)


def tokens(text: str) -> list[Token]:
    """Every token, the last one of kind "end". Raise ParseError."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"query is {len(text)} characters long; {MAX_LENGTH} are allowed", 1, 1)
    found: list[Token] = []
    at, in_brackets = 0, False
    while True:
        space = _SPACE.match(text, at)
        if space:
            at = space.end()
        if at >= len(text):
            found.append(Token("end", "", at, at))
            return found
        token = _token(text, at, in_brackets)
        if token.kind in "[]":
            in_brackets = token.kind == "["
        found.append(token)
        at = token.end


def _token(text: str, at: int, in_brackets: bool) -> Token:
    char = text[at]
    if char in "\"'`":
        return _string(text, at)
    if char.isdigit() or (char == "." and text[at + 1 : at + 2].isdigit()):
        return _number(text, at)
    word = (_WORD_IN_BRACKETS if in_brackets else _WORD).match(text, at)
    if word:
        return Token("word", word[0], at, word.end(), word[0])
    operator = _OPERATOR.match(text, at)
    if operator:
        return Token(operator[0], operator[0], at, operator.end())
    raise error(text, at, f"found {char!r}, which no query contains outside quotes")


def _number(text: str, at: int) -> Token:
    duration = _DURATION.match(text, at)
    found = duration or _NUMBER.match(text, at)
    end = found.end() if found else at + 1
    following = _GLUED.match(text, end)
    if not found or following:
        stop = following.end() if following else end
        raise error(
            text, at, f"found {text[at:stop]!r}, expected a number or a duration", "write 1.5, 1e3, 5m or 1h30m"
        )
    if duration:
        return Token("duration", duration[0], at, end, duration_ms(text, at, duration[0]) / 1000)
    return Token("number", found[0], at, end, _number_value(text, at, found[0]))


def _number_value(text: str, at: int, digits: str) -> float:
    if digits.endswith("_") or "__" in digits or "_." in digits or "._" in digits or "_e" in digits.lower():
        raise error(text, at, f"found {digits!r}, expected underscores between digits only")
    plain = digits.replace("_", "")
    try:
        if plain[:2] in {"0x", "0X"}:
            return float(int(plain, 16))
        if len(plain) > 1 and plain[0] == "0" and not plain.strip("01234567"):
            return float(int(plain, 8))  # as Go reads a literal with a leading zero
        return float(plain)
    except OverflowError:
        raise error(text, at, f"found {digits[:20]!r}..., a number too large for a float") from None


def duration_ms(text: str, at: int, written: str) -> int:
    """Milliseconds of a written duration such as 1h30m. Raise ParseError, placed at offset `at` of `text`."""
    parts = _DURATION_PARTS.fullmatch(written)
    if parts is None:
        hint = "write each unit once, from large to small: 1y2w3d4h5m6s7ms"
        raise error(text, at, f"found {written!r}, expected a duration", hint)
    total = sum(int(count[:20]) * unit for count, unit in zip(parts.groups(), _UNIT_MS, strict=True) if count)
    if total > _MAX_DURATION_MS:
        raise error(text, at, f"found {written[:40]!r}, a duration above 292 years")
    return total


def _string(text: str, at: int) -> Token:
    """A quoted text. Raw bytes from \\x and octal escapes that are no UTF-8 become surrogate escapes."""
    delimiter = text[at]
    if delimiter == "`":
        end = text.find("`", at + 1)
        if end < 0:
            raise error(text, at, "found a text that is never closed, expected `")
        return Token("string", text[at : end + 1], at, end + 1, text[at + 1 : end])
    out = bytearray()
    here = at + 1
    while True:
        char = text[here : here + 1]
        if char in {"", "\n"}:
            raise error(text, at, f"found a text that is never closed, expected {delimiter}")
        if char == delimiter:
            return Token("string", text[at : here + 1], at, here + 1, out.decode("utf-8", "surrogateescape"))
        if char == "\\":
            here = _escape(text, here, out)
        else:
            out += char.encode("utf-8", "surrogatepass")
            here += 1


def _escape(text: str, at: int, out: bytearray) -> int:
    """Decode the escape at `at` into `out`; the offset behind it. Raise ParseError."""
    letter = text[at + 1 : at + 2]
    if letter in _SIMPLE_ESCAPES:
        out.append(_SIMPLE_ESCAPES[letter])
        return at + 2
    start, count, base = at + 2, _ESCAPE_DIGITS.get(letter, 0), 16
    if letter and letter in "01234567":
        start, count, base = at + 1, 3, 8
    digits = text[start : start + count]
    allowed = "01234567" if base == 8 else "0123456789abcdefABCDEF"
    code = int(digits, base) if count and len(digits) == count and not digits.strip(allowed) else -1
    limit = 0x10FFFF if count > 3 else 0xFF
    if not 0 <= code <= limit or 0xD800 <= code <= 0xDFFF:
        hint = "double the backslash, or quote with `backticks`"
        raise error(text, at, f"found the escape {text[at : start + count]!r}, which does not exist", hint)
    if limit == 0xFF:
        out.append(code)
    else:
        out += chr(code).encode()
    return start + count
