"""Operators between two operands: scalars, a vector and a scalar, two matched vectors, sets of series."""

from itertools import product
from typing import TYPE_CHECKING, Final

from agent.core.labels import NAMING, Labels, drop, keep, show, value_of, with_label, without_name
from agent.core.query import ExecutionError
from sinks.history.promql.ast import SCALAR, SET_OPERATORS, Binary, Matching, value_type
from sinks.history.promql.numbers import ARITHMETIC, COMPARISON
from sinks.history.promql.values import Cells, Steps, StepSeries, merge, unique

if TYPE_CHECKING:
    from sinks.history.promql.evaluate import Evaluation

_MANY_TO_ONE: Final = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
_NOT_UNIQUE: Final = "multiple matches for labels: grouping labels must ensure unique matches"


def scalars(op: str, lhs: list[float], rhs: list[float]) -> list[float]:
    """The operator on each pair; a comparison gives 1 or 0."""
    function = ARITHMETIC.get(op)
    if function is None:
        compare = COMPARISON[op]
        return [1.0 if compare(a, b) else 0.0 for a, b in zip(lhs, rhs, strict=True)]
    return [function(a, b) for a, b in zip(lhs, rhs, strict=True)]


def vectors(run: "Evaluation", node: Binary, steps: Steps) -> list[StepSeries]:
    """The operator where at least one side is a vector. Raise ExecutionError on an ambiguous match."""
    if value_type(node.lhs) == SCALAR:
        numbers = run.scalar(node.lhs, steps)
        return _with_scalar(node, run.vector(node.rhs, steps), numbers, scalar_left=True)
    lhs = run.vector(node.lhs, steps)
    if value_type(node.rhs) == SCALAR:
        return _with_scalar(node, lhs, run.scalar(node.rhs, steps), scalar_left=False)
    with run.budget.holding(len(lhs), steps.count):
        rhs = run.vector(node.rhs, steps)
    if node.op in SET_OPERATORS:
        return _sets(node, lhs, rhs, steps)
    return _matched(run, node, lhs, rhs, steps)


def _with_scalar(node: Binary, series: list[StepSeries], numbers: list[float], scalar_left: bool) -> list[StepSeries]:
    """A comparison filters, and keeps the vector's value on whichever side it stands."""
    found = []
    drops_name = node.op in ARITHMETIC or node.return_bool
    for one in series:
        constants: Cells = list(numbers)
        lhs, rhs = (constants, one.values) if scalar_left else (one.values, constants)
        cells = _cells(node, lhs, rhs, kept=one.values)
        if cells is not None:
            found.append(StepSeries(one.labels, cells, one.drop_name or drops_name))
    return found


def _cells(node: Binary, lhs: Cells, rhs: Cells, kept: Cells) -> Cells | None:
    """The operator cell by cell, None where both are not there or a filter rejects them; None if nothing is left."""
    function = ARITHMETIC.get(node.op)
    if function is not None:
        out: Cells = [None if a is None or b is None else function(a, b) for a, b in zip(lhs, rhs, strict=True)]
    else:
        compare = COMPARISON[node.op]
        if node.return_bool:
            out = [
                None if a is None or b is None else 1.0 if compare(a, b) else 0.0 for a, b in zip(lhs, rhs, strict=True)
            ]
        else:
            out = [
                value if a is not None and b is not None and compare(a, b) else None
                for a, b, value in zip(lhs, rhs, kept, strict=True)
            ]
    return out if out.count(None) < len(out) else None


def _signature(labels: Labels, matching: Matching, ignored: frozenset[str]) -> Labels:
    return keep(labels, matching.labels) if matching.on else drop(labels, ignored)


def _by_signature(series: list[StepSeries], matching: Matching) -> dict[Labels, list[StepSeries]]:
    ignored = NAMING.union(matching.labels)
    groups: dict[Labels, list[StepSeries]] = {}
    for one in series:
        groups.setdefault(_signature(one.labels, matching, ignored), []).append(one)
    return groups


def _present(series: list[StepSeries], steps: Steps) -> list[bool]:
    """Which steps have a value in any of the series."""
    if len(series) == 1:
        return [value is not None for value in series[0].values]
    found = [False] * steps.count
    for one in series:
        found = [was or value is not None for was, value in zip(found, one.values, strict=True)]
    return found


# -- and, or, unless ---------------------------------------------------------------------------------------------------


def _sets(node: Binary, lhs: list[StepSeries], rhs: list[StepSeries], steps: Steps) -> list[StepSeries]:
    left, right = _by_signature(lhs, node.matching), _by_signature(rhs, node.matching)
    if node.op == "or":
        return unique(lhs + _filtered(right, left, steps, wanted=False))
    return _filtered(left, right, steps, wanted=node.op == "and")


def _filtered(
    groups: dict[Labels, list[StepSeries]], others: dict[Labels, list[StepSeries]], steps: Steps, wanted: bool
) -> list[StepSeries]:
    """The cells of `groups` where the other side has (wanted) or lacks (not wanted) their signature."""
    found = []
    for signature, series in groups.items():
        other = others.get(signature)
        if other is None:
            if not wanted:
                found += series
            continue
        present = _present(other, steps)
        for one in series:
            cells: Cells = [
                value if there is wanted else None for value, there in zip(one.values, present, strict=True)
            ]
            if cells.count(None) < len(cells):
                found.append(StepSeries(one.labels, cells, one.drop_name))
    return found


# -- matched pairs -----------------------------------------------------------------------------------------------------


def _matched(
    run: "Evaluation", node: Binary, lhs: list[StepSeries], rhs: list[StepSeries], steps: Steps
) -> list[StepSeries]:
    if not lhs or not rhs:
        return []
    right_is_many = node.matching.group == "right"
    many, one = (rhs, lhs) if right_is_many else (lhs, rhs)
    ones, manies = _by_signature(one, node.matching), _by_signature(many, node.matching)
    if len(ones) < len(one):
        _refuse_duplicates(ones, _present(many, steps), "left" if right_is_many else "right")
    found: list[StepSeries] = []
    for signature, series in manies.items():
        partners = ones.get(signature)
        if partners is None:
            continue
        if len(series) > 1 and not node.matching.group:
            _refuse_many(series, _present(partners, steps))
        group = []
        for a, b in product(series, partners):
            left, right = (b, a) if right_is_many else (a, b)
            cells = _cells(node, left.values, right.values, kept=left.values)
            if cells is not None:
                labels = _result_labels(node, a.labels, b.labels)
                group.append(StepSeries(labels, cells, node.return_bool or a.drop_name))
        if len(group) > 1 and node.matching.group:
            _refuse_same(group)
        found += group
        run.budget.cells(len(found), steps.count)
    return unique(found)


def _refuse_duplicates(ones: dict[Labels, list[StepSeries]], needed: list[bool], side: str) -> None:
    """Raise ExecutionError where the "one" side has two series of a signature at a step the other side has any."""
    for signature, series in ones.items():
        if len(series) < 2:
            continue
        holder: list[StepSeries | None] = [None] * len(needed)
        for one in series:
            for step, value in enumerate(one.values):
                if value is None or not needed[step]:
                    continue
                other = holder[step]
                if other is not None:
                    pair = ", ".join(sorted((show(one.labels), show(other.labels))))
                    raise ExecutionError(
                        f"found duplicate series for the match group {show(signature)} on the {side} hand-side of the "
                        f"operation: [{pair}];many-to-many matching not allowed: "
                        "matching labels must be unique on one side"
                    )
                holder[step] = one


def _result_labels(node: Binary, many: Labels, one: Labels) -> Labels:
    matching = node.matching
    labels = many
    if node.op in ARITHMETIC:
        labels = without_name(labels)
    if not matching.group:
        return keep(labels, matching.labels) if matching.on else drop(labels, matching.labels)
    for name in matching.include:
        labels = with_label(labels, name, value_of(one, name))
    return labels


def _refuse_many(series: list[StepSeries], matched: list[bool]) -> None:
    """Raise ExecutionError where two series of a signature meet a partner at a step; a filter makes no difference."""
    for step, row in enumerate(zip(*[one.values for one in series], strict=True)):
        if matched[step] and len(row) - row.count(None) > 1:
            raise ExecutionError(_MANY_TO_ONE)


def _refuse_same(group: list[StepSeries]) -> None:
    """Raise ExecutionError where two results of a signature have the same labels at a step."""
    by_labels: dict[Labels, Cells] = {}
    for one in group:
        known = by_labels.get(one.labels)
        if known is None:
            by_labels[one.labels] = list(one.values)
        else:
            merge(known, one.values, _NOT_UNIQUE)
