"""Go's fmt: verbs, flags, and how floats and maps print. Facts: the documentation of Go's packages fmt and strconv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import copysign, isinf, isnan
from typing import Any

from alerting.templates.values import Duration, Struct, Time, type_name

_MOST_WIDTH = 1_000_000  # Go's own cap; a wider field prints BADWIDTH
_NAMES, _SYNTAX = "N", "S"  # what the flags + and # mean with %v
_DIRECTIVE = re.compile(r"([+\-# 0]*)(\[[^\]]*\])?(\*|\d+)?(?:(\.)(\[[^\]]*\])?(\*|\d+)?)?(\[[^\]]*\])?(.)?", re.DOTALL)


@dataclass(slots=True)
class Spec:
    """One directive: `%-08.3f` has flags `-0`, width 8, precision 3."""

    flags: str = ""
    width: int | None = None
    precision: int | None = None

    def pad(self, text: str, zeros: bool = False, is_text: bool = False) -> str:
        """To the width, on the left unless `-`; zeros go between a sign and the digits."""
        lacking = (self.width or 0) - len(text)
        if lacking <= 0:
            return text
        if "-" in self.flags:
            return text + " " * lacking
        if zeros and "0" in self.flags:
            if is_text:
                return "0" * lacking + text
            sign = text[:1] if text[:1] in "+- " else ""
            return sign + "0" * lacking + text[len(sign) :]
        return " " * lacking + text


def sprint(values: Sequence[Any]) -> str:
    """fmt.Sprint: a space between two neighbours of which neither is a text."""
    out: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out.append(" ")
        out.append(show(value))
    return "".join(out)


def sprintln(values: Sequence[Any]) -> str:
    """fmt.Sprintln: spaces between all, a line break at the end."""
    return " ".join(map(show, values)) + "\n"


def show(value: Any) -> str:
    """%v of a value that stands alone."""
    if isinstance(value, str):
        return value
    return _format(value, "v", Spec())


def sprintf(template: str, values: Sequence[Any]) -> str:
    """fmt.Sprintf, its remarks about wrong arguments included: `%!d(string=x)`, `%!s(MISSING)`, `%!(EXTRA int=1)`."""
    return _Printer(values).run(template)


class _Printer:
    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.at = 0
        self.is_reordered = False
        self.is_bad_index = False

    def run(self, template: str) -> str:
        out: list[str] = []
        at = 0
        while (percent := template.find("%", at)) >= 0:
            out.append(template[at:percent])
            match = _DIRECTIVE.match(template, percent + 1)
            assert match is not None  # every part is optional
            out.append(self._directive(match))
            at = match.end()
        out.append(template[at:])
        if not self.is_reordered and self.at < len(self.values):
            extra = ", ".join(map(_typed, self.values[self.at :]))
            out.append(f"%!(EXTRA {extra})")
        return "".join(out)

    def _directive(self, match: re.Match[str]) -> str:
        flags, first, width, dot, second, precision, third, verb = match.groups()
        self.is_bad_index = False
        spec = Spec(flags.replace("0", "") if "-" in flags else flags)
        before = self._indexed(first)
        if width:
            spec.width, problem = self._number(width, "%!(BADWIDTH)")
            before += problem
            if spec.width is not None and spec.width < 0:
                spec.width, spec.flags = -spec.width, spec.flags.replace("0", "") + "-"
        if dot:
            self._indexed(second)
            spec.precision, problem = self._number(precision, "%!(BADPREC)") if precision else (0, "")
            before += problem
            if spec.precision is not None and spec.precision < 0:
                spec.precision = None
        self._indexed(third)
        if verb is None:
            return before + "%!(NOVERB)"
        if verb == "%":
            return before + "%"
        if self.is_bad_index:
            return f"{before}%!{verb}(BADINDEX)"
        if self.at >= len(self.values):
            return f"{before}%!{verb}(MISSING)"
        value = self.values[self.at]
        self.at += 1
        if verb == "v":  # there they ask for field names and for Go's syntax
            spec.flags = spec.flags.replace("+", _NAMES).replace("#", _SYNTAX)
        return before + _format(value, verb, spec)

    def _indexed(self, bracket: str | None) -> str:
        if bracket:
            self.is_reordered = True
            number = bracket[1:-1]
            if number.isdigit() and 1 <= int(number) <= len(self.values):
                self.at = int(number) - 1
            else:
                self.is_bad_index = True
        return ""

    def _number(self, text: str, complaint: str) -> tuple[int | None, str]:
        if text != "*":
            return (int(text), "") if len(text) < 8 and int(text) <= _MOST_WIDTH else (None, complaint)
        value = self.values[self.at] if self.at < len(self.values) else None
        self.at += 1
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_WIDTH:
            return value, ""
        return None, complaint


def _typed(value: Any) -> str:
    return "<nil>" if value is None else f"{type_name(value)}={show(value)}"


def _format(value: Any, verb: str, spec: Spec) -> str:
    if verb == "T":
        return spec.pad(type_name(value)[: spec.precision], zeros=True)
    if isinstance(value, bool):
        return spec.pad(str(value).lower(), zeros=True) if verb in "tv" else _wrong(value, verb, spec)
    if isinstance(value, (Duration, Time)) and verb in "vsq":
        return _text(str(value), verb, spec)
    if isinstance(value, int):
        return _integer(value, verb, spec)
    if isinstance(value, float):
        return _float(value, verb, spec)
    if isinstance(value, str):
        return _text(value, verb, spec)
    if value is None:
        return spec.pad("<nil>") if verb == "v" else f"%!{verb}(<nil>)"
    return _compound(value, verb, spec)


def _wrong(value: Any, verb: str, spec: Spec) -> str:
    return f"%!{verb}({type_name(value)}={_format(value, 'v', spec)})"


def _compound(value: Any, verb: str, spec: Spec) -> str:
    """Maps by ascending key, slices, and structs, each element by the same directive."""
    if isinstance(value, dict):
        pairs = (f"{_format(key, verb, spec)}:{_format(value[key], verb, spec)}" for key in sorted(value))
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, Struct):
        named = _NAMES in spec.flags
        shown = (
            (f"{name}:" if named else "") + _format(one, verb, spec)
            for name, one in value.fields.items()
            if not callable(one)
        )
        return ("&" if value.is_pointer else "") + "{" + " ".join(shown) + "}"
    if isinstance(value, list):
        return "[" + " ".join(_format(one, verb, spec) for one in value) + "]"
    return _wrong(value, verb, spec)


def _integer(value: int, verb: str, spec: Spec) -> str:
    sign = "-" if value < 0 else "+" if "+" in spec.flags else " " if " " in spec.flags else ""
    bases = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
    if verb in bases:
        digits = format(abs(value), bases[verb])
        if spec.precision == 0 and value == 0:
            return spec.pad("")
        digits = digits.zfill(spec.precision or 0)
        prefix = "0o" if verb == "O" else ""
        if "#" in spec.flags:
            prefix = {"b": "0b", "o": "0" if digits[:1] != "0" else "", "x": "0x", "X": "0X"}.get(verb, prefix)
        if spec.precision is None and "0" in spec.flags and spec.width:
            digits = digits.zfill(spec.width - len(sign))
        return spec.pad(sign + prefix + digits)
    if verb in "eEfFgG":
        return _wrong(value, verb, spec)
    char = chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
    if verb == "c":
        return spec.pad(char)
    if verb == "q":
        return spec.pad("'" + {"'": "\\'", '"': '"'}.get(char, quote(char, "+" in spec.flags)[1:-1]) + "'")
    if verb == "U":
        code = f"{value & 0xFFFF_FFFF_FFFF_FFFF:X}".zfill(max(4, spec.precision or 0))
        return spec.pad(f"U+{code}" + (f" '{char}'" if "#" in spec.flags and char.isprintable() else ""))
    return _wrong(value, verb, spec)


def _float(value: float, verb: str, spec: Spec) -> str:
    if verb not in "vgGeEfF":
        return _wrong(value, verb, spec)
    text = format_float(value, {"v": "g", "F": "f"}.get(verb, verb), spec.precision if verb in "vgG" else
                        6 if spec.precision is None else spec.precision)  # fmt: skip
    if isinf(value) or isnan(value):
        if isinf(value) and " " in spec.flags and "+" not in spec.flags:
            text = text.replace("+", " ")
        if isnan(value) and ("+" in spec.flags or " " in spec.flags):
            text = ("+" if "+" in spec.flags else " ") + text
        return Spec(spec.flags.replace("0", ""), spec.width).pad(text)
    if text[0] != "-" and ("+" in spec.flags or " " in spec.flags):
        text = ("+" if "+" in spec.flags else " ") + text
    return spec.pad(text, zeros=True)


def format_float(value: float, verb: str, precision: int | None) -> str:
    """strconv.FormatFloat of a float64 with `e`, `E`, `f`, `g` or `G`; precision None is the shortest exact form."""
    if isnan(value):
        return "NaN"
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb in "eEf":
        return f"{value:.{precision}{verb}}" if precision is not None else _shortest(value, verb)
    sign = "-" if copysign(1, value) < 0 else ""
    digits, exponent = _digits(abs(value), precision)
    limit = 6 if precision is None else precision or 1  # Go's own choice for the shortest form
    if precision is not None and limit > len(digits) and len(digits) >= exponent:
        limit = len(digits)
    if exponent - 1 < -4 or exponent - 1 >= limit:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{mantissa}{'E' if verb == 'G' else 'e'}{exponent - 1:+03d}"
    return sign + _plain(digits, exponent)


def _digits(value: float, precision: int | None) -> tuple[str, int]:
    """Significant digits without trailing zeros, and where the point stands: ("15", 1) is 1.5."""
    if value == 0:
        return "0", 1
    text = repr(value) if precision is None else f"{value:.{max(precision, 1) - 1}e}"
    _, digits, exponent = Decimal(text).as_tuple()
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    return shown, len(digits) + int(exponent)


def _plain(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def _shortest(value: float, verb: str) -> str:
    digits, point = _digits(abs(value), None)
    sign = "-" if copysign(1, value) < 0 else ""
    if verb == "f":
        return sign + _plain(digits, point)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}{verb}{(point - 1 if value else 0):+03d}"


def _text(value: str, verb: str, spec: Spec) -> str:
    if verb in "vs":
        if _SYNTAX in spec.flags:
            return spec.pad(quote(value))
        return spec.pad(value if spec.precision is None else value[: spec.precision], True, is_text=True)
    if verb == "q":
        cut = value if spec.precision is None else value[: spec.precision]
        if "#" in spec.flags and "`" not in cut and cut.replace("\t", " ").isprintable():
            return spec.pad(f"`{cut}`", True, is_text=True)
        return spec.pad(quote(cut, "+" in spec.flags), True, is_text=True)
    if verb in "xX":
        raw = value.encode("utf-8", "surrogateescape")[: spec.precision]
        shown = raw.hex(" ") if " " in spec.flags else raw.hex()
        return spec.pad(shown.upper() if verb == "X" else shown)
    return _wrong(value, verb, spec)


def quote(text: str, ascii_only: bool = False) -> str:
    """strconv.Quote; `ascii_only` as QuoteToASCII."""
    named = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
             '"': '\\"', "\\": "\\\\"}  # fmt: skip
    out = []
    for char in text:
        code = ord(char)
        if char in named:
            out.append(named[char])
        elif char.isprintable() and (code < 0x80 or not ascii_only):
            out.append(char)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(out)}"'
