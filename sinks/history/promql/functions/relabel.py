"""Functions that change labels or the order by them."""

import re
from typing import TYPE_CHECKING, Any, Final

from agent.core.labels import METRIC_NAME, PatternError, compile_pattern, value_of, with_label
from agent.core.query import ExecutionError
from sinks.history.promql.ast import Call
from sinks.history.promql.values import Steps, StepSeries, unique

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_REFERENCE: Final = re.compile(r"\$(?:(\$)|([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\})")
_DIGITS: Final = re.compile(r"(\d+)")


def _valid_name(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name)


def _expanded(template: str, match: Any, groups: dict[str, int]) -> str:
    """The template with $1, ${1}, $name, ${name} and $$ replaced; what does not exist is empty."""

    def value(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        index = int(name) if name.isdigit() and len(name) < 4 else groups.get(name, -1)
        if not 0 <= index <= match.re.groups:
            return ""
        return match.group(index) or ""

    return _REFERENCE.sub(value, template)


def _with(s: StepSeries, name: str, value: str) -> StepSeries:
    """The series with a label set; setting the metric name is a reason to keep it."""
    return StepSeries(with_label(s.labels, name, value), s.values, s.drop_name and name != METRIC_NAME)


def label_replace(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """label_replace(v, target, replacement, source, pattern). Raise ExecutionError on a bad pattern or name."""
    target, replacement, source, pattern = [run.text(arg) for arg in call.args[1:]]
    try:
        compiled = compile_pattern(pattern)
    except PatternError as error:
        raise ExecutionError(f"invalid regular expression in label_replace(): {pattern}") from error
    if not _valid_name(target):
        raise ExecutionError(f"invalid destination label name in label_replace(): {target}")
    found = []
    for s in run.vector(call.args[0], steps):
        match = compiled.fullmatch(value_of(s.labels, source))
        found.append(s if match is None else _with(s, target, _expanded(replacement, match, compiled.groupindex)))
    return unique(found)


def label_join(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """label_join(v, target, separator, source...). Raise ExecutionError on a bad name."""
    target, separator, *sources = [run.text(arg) for arg in call.args[1:]]
    for source in sources:
        if not _valid_name(source):
            raise ExecutionError(f"invalid source label name in label_join(): {source}")
    if not _valid_name(target):
        raise ExecutionError(f"invalid destination label name in label_join(): {target}")
    return unique(
        [
            _with(s, target, separator.join([value_of(s.labels, source) for source in sources]))
            for s in run.vector(call.args[0], steps)
        ]
    )


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which numbers inside a text count as numbers: cpu2 before cpu10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(text) if part]


def sort_by_label(run: "Evaluation", call: Call, steps: Steps) -> list[StepSeries]:
    """sort_by_label(v, label...) and sort_by_label_desc: natural order of these labels, then of all."""
    names = [run.text(arg) for arg in call.args[1:]]
    run.warn_sort(call)

    def key(s: StepSeries) -> tuple[object, ...]:
        return (*[_natural(value_of(s.labels, name)) for name in names], s.labels)

    return sorted(run.vector(call.args[0], steps), key=key, reverse=call.func.endswith("_desc"))
