"""The functions templates may call: Prometheus', and a few of Alertmanager's for messages.

Facts: Prometheus' template reference. Those that need to know which alert or which
agent this is (`query`, `externalURL`, `tmpl`) are made by the expander.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import copysign, isfinite
from typing import Any
from urllib.parse import quote_plus

from alerting.templates.builtins import GO_FUNCTIONS, Callee
from alerting.templates.goformat import format_float
from alerting.templates.values import Duration, TemplateError, Time, type_name


def _number(value: Any) -> float:
    """What the humanizing functions take: a float, an integer, or a text that reads as one."""
    if isinstance(value, Duration):
        return value / 1e9
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value) if not re.search(r"[\s_]", value) else _no_number(value)
        except ValueError:
            return _no_number(value)
    raise TemplateError(f"can't convert {type_name(value)} to float")


def _no_number(value: str) -> float:
    raise TemplateError(f"{value!r} is not a number")


def _4g(value: float) -> str:
    return format_float(value, "g", 4)


_SMALL = ("m", "u", "n", "p", "f", "a", "z", "y")


def _scaled(value: float, base: float, prefixes: Sequence[str]) -> tuple[float, str]:
    prefix = ""
    for one in prefixes:
        if abs(value) < base:
            break
        prefix, value = one, value / base
    return value, prefix


def _scaled_up(value: float) -> tuple[float, str]:
    prefix = ""
    for one in _SMALL:
        if abs(value) >= 1:
            break
        prefix, value = one, value * 1000
    return value, prefix


def humanize(given: Any) -> str:
    """Four digits with a metric prefix: 1.234k."""
    value = _number(given)
    if value == 0 or not isfinite(value):
        return _4g(value)
    value, prefix = (
        _scaled(value, 1000, ("k", "M", "G", "T", "P", "E", "Z", "Y")) if abs(value) >= 1 else _scaled_up(value)
    )
    return _4g(value) + prefix


def humanize1024(given: Any) -> str:
    """Four digits with a binary prefix: 1.206ki."""
    value = _number(given)
    if abs(value) <= 1 or not isfinite(value):
        return _4g(value)
    value, prefix = _scaled(value, 1024, ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"))
    return _4g(value) + prefix


def humanize_duration(given: Any) -> str:
    """Seconds as days to seconds (1d 2h 3m 4s), below one second with a prefix (20ms)."""
    value = _number(given)
    if not isfinite(value):
        return _4g(value)
    if value == 0:
        return "0s"
    if abs(value) < 1:
        value, prefix = _scaled_up(value)
        return f"{_4g(value)}{prefix}s"
    sign, value = ("-", -value) if value < 0 else ("", value)
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{sign}{_4g(value)}s"


def humanize_percentage(given: Any) -> str:
    """A ratio as a percentage of four digits."""
    return _4g(_number(given) * 100) + "%"


def to_time(given: Any) -> Time:
    """Unix seconds as a moment, kept to the millisecond. Raise TemplateError for what is no moment."""
    value = _number(given)
    if not isfinite(value):
        raise TemplateError("value is NaN or Inf")
    if not -(2**63) <= value * 1e9 < 2**63:
        shown = format_float(value, "g", None)
        raise TemplateError(f"{shown} cannot be represented as a nanoseconds timestamp since it overflows int64")
    ns = int(value * 1e9)
    return Time(ns - int(copysign(abs(ns) % 1_000_000, ns)))  # Prometheus' own time has milliseconds


def humanize_timestamp(given: Any) -> str:
    """Unix seconds as a date and time in UTC."""
    value = _number(given)
    return str(to_time(value)) if isfinite(value) else _4g(value)


_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_DURATION_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)


def parse_duration(text: str) -> float:
    """Seconds of Prometheus' own form, `1h30m`. Raise TemplateError."""
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0.0
    if match is None or not text:
        raise TemplateError(f"not a valid duration string: {text!r}")
    return sum(int(count or 0) * size for count, size in zip(match.groups(), _DURATION_MS, strict=True)) / 1000


def title(text: str) -> str:
    """Every word with a capital; an underscore or a digit does not end a word, an apostrophe does."""
    out, before = [], " "
    for char in text:
        ascii_break = before < "\x80" and not (before.isalnum() or before == "_")
        starts = ascii_break or (before >= "\x80" and not before.isalnum() and before.isspace())
        out.append(char.title() if starts and len(char.title()) == 1 else char)
        before = char
    return "".join(out)


@lru_cache(maxsize=128)
def _pattern(pattern: str) -> Any:
    import re2  # for the first template that uses a pattern only: 3.4 MB

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise TemplateError(f"{pattern!r} is not a regular expression: {error}") from error


def match(pattern: str, text: str) -> bool:
    """Does the pattern occur anywhere in the text?"""
    return _pattern(pattern).search(text) is not None


_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|(\$))")


def re_replace_all(pattern: str, replacement: str, text: str) -> str:
    """Every occurrence replaced; `$1`, `${1}` and `${name}` are groups, `$$` is a dollar sign."""
    compiled = _pattern(pattern)
    out: list[str] = []
    copied, at, last_end = 0, 0, -1
    while at <= len(text):
        found = compiled.search(text, at)
        if found is None:
            break
        if not (found.end() == found.start() == last_end):  # an empty match right behind a match is none
            out.append(text[copied : found.start()])
            out.append(_REFERENCE.sub(lambda reference: _referred(found, reference), replacement))  # noqa: B023
            copied = found.end()
        last_end = found.end()
        at = found.end() if found.end() > found.start() else found.end() + 1
    return "".join([*out, text[copied:]])


def _referred(found: Any, reference: re.Match[str]) -> str:
    if reference[3]:
        return "$"
    name = reference[1] or reference[2]
    try:
        return found.group(int(name) if name.isdigit() else name) or ""
    except (IndexError, KeyError):
        return ""


def strip_port(host_port: str) -> str:
    """`host:9100` without its port; what is no host and port stays as it is."""
    parts = _host_and_port(host_port)
    return parts[0] if parts else host_port


def strip_domain(host_port: str) -> str:
    """The first name of a host, its port kept; an address stays whole."""
    host, port = _host_and_port(host_port) or (host_port, "")
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        name = host.split(".")[0]
        joined = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        return joined if port else name
    return host_port


def _host_and_port(text: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", text)
    if found is None:
        return None
    return (found[1], found[2]) if found[1] is not None else (found[3], found[4])


def _link(expression: str, tab: int) -> str:
    return f"/graph?g0.expr={quote_plus(expression, safe='-_.~')}&g0.tab={tab}"


def _args(*values: Any) -> dict[str, Any]:
    return {f"arg{at}": value for at, value in enumerate(values)}


def _first(samples: list[Any]) -> Any:
    if not samples:
        raise TemplateError("first() called on vector with no elements")
    return samples[0]


def _sort_by_label(label: str, samples: list[Any]) -> list[Any]:
    return sorted(samples, key=lambda sample: sample.fields["Labels"].get(label, ""))


def _to_json(value: Any) -> str:
    plain = json.dumps(value, default=lambda other: getattr(other, "fields", None) or str(other), ensure_ascii=False)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


FUNCTIONS: Mapping[str, Callee] = {
    **GO_FUNCTIONS,
    # Prometheus'
    "first": Callee(_first, ("samples",)),
    "label": Callee(lambda name, sample: sample.fields["Labels"].get(name, ""), ("text", "sample")),
    "value": Callee(lambda sample: sample.fields["Value"], ("sample",)),
    "strvalue": Callee(lambda sample: sample.fields["Labels"].get("__value__", ""), ("sample",)),
    "sortByLabel": Callee(_sort_by_label, ("text", "samples")),
    "args": Callee(_args, ("*any",)),
    "humanize": Callee(humanize, ("any",)),
    "humanize1024": Callee(humanize1024, ("any",)),
    "humanizeDuration": Callee(humanize_duration, ("any",)),
    "humanizePercentage": Callee(humanize_percentage, ("any",)),
    "humanizeTimestamp": Callee(humanize_timestamp, ("any",)),
    "toTime": Callee(to_time, ("any",)),
    "toDuration": Callee(lambda value: Duration(int(_number(value) * 1e9)), ("any",)),
    "parseDuration": Callee(parse_duration, ("text",)),
    "title": Callee(title, ("text",)),
    "toUpper": Callee(lambda text: text.upper(), ("text",)),
    "toLower": Callee(lambda text: text.lower(), ("text",)),
    "match": Callee(match, ("text", "text")),
    "reReplaceAll": Callee(re_replace_all, ("text", "text", "text")),
    "stripPort": Callee(strip_port, ("text",)),
    "stripDomain": Callee(strip_domain, ("text",)),
    "graphLink": Callee(lambda expression: _link(expression, 0), ("text",)),
    "tableLink": Callee(lambda expression: _link(expression, 1), ("text",)),
    "safeHtml": Callee(lambda text: text, ("text",)),
    "urlQueryEscape": Callee(lambda text: quote_plus(text, safe="-_.~"), ("text",)),
    # Alertmanager's, for messages
    "join": Callee(lambda separator, texts: separator.join(texts), ("text", "list")),
    "stringSlice": Callee(lambda *texts: list(texts), ("*text",)),
    "toJson": Callee(_to_json, ("any",)),
    "trimSpace": Callee(lambda text: text.strip(), ("text",)),
}
