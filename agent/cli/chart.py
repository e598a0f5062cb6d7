"""Charts for a terminal: lines of braille dots between two axes, and bars for single values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

from rich.text import Text

COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a braille cell by row and column
_UNITS = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LEAST, _MOST = 1e-290, 1e300  # between them differences and quotients stay what they are
_BLOCKS = " ▏▎▍▌▋▊▉█"


class Line(NamedTuple):
    """One series to draw; times in ms."""

    name: str
    times_ms: Sequence[int]
    values: Sequence[float]


class _Canvas:
    """Dots, two by four in a cell; each cell remembers who drew there last."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._cells = [[0] * width for _ in range(height)]
        self._owners = [[0] * width for _ in range(height)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """Dot at column x from the left and row y from the top."""
        self._cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        self._owners[y // 4][x // 2] = owner

    def stroke(self, x: int, low: int, high: int, owner: int) -> None:
        for y in range(low, high + 1):
            self.dot(x, y, owner)

    def row(self, at: int) -> Text:
        text = Text()
        for cell, owner in zip(self._cells[at], self._owners[at], strict=True):
            text.append(chr(0x2800 + cell) if cell else " ", style=COLOURS[owner % len(COLOURS)] if cell else "")
        return text


def line_chart(lines: Sequence[Line], width: int, height: int, zone: tzinfo | None = None) -> list[Text]:
    """The chart with both axes, at most `width` wide and `height` + 2 high; empty when there is nothing to draw."""
    finite = [value for line in lines for value in line.values if _is_drawable(value)]
    if not finite:
        return []
    ticks = y_ticks(min(finite), max(finite), max(2, height // 4))
    labels = tick_labels(ticks)
    margin = max(map(len, labels))
    canvas = _Canvas(max(width - margin - 2, 10), height)
    first = min(line.times_ms[0] for line in lines if line.times_ms)
    last = max(line.times_ms[-1] for line in lines if line.times_ms)
    for owner, line in enumerate(lines):
        _draw(canvas, line, owner, (first, last), (ticks[0], ticks[-1]))
    named = {
        _row_of(tick, ticks[0], ticks[-1], height * 4) // 4: label for tick, label in zip(ticks, labels, strict=True)
    }
    rows = [
        Text.assemble((named.get(at, "").rjust(margin), "dim"), (" ┤" if at in named else " │", "dim"), canvas.row(at))
        for at in range(height)
    ]
    axis, dates = _time_axis(first, last, canvas.width, zone)
    rows.append(Text(" " * (margin + 1) + "└" + axis, style="dim"))
    rows.append(Text(" " * (margin + 2) + dates, style="dim"))
    return rows


def _draw(canvas: _Canvas, line: Line, owner: int, span: tuple[int, int], reach: tuple[float, float]) -> None:
    """Each column of dots shows everything between the least and the greatest value in its stretch of time."""
    columns, rows = canvas.width * 2, canvas.height * 4
    length = max(span[1] - span[0], 1)
    by_column: dict[int, list[int]] = {}
    for at, value in zip(line.times_ms, line.values, strict=True):
        if _is_drawable(value):
            column = min((at - span[0]) * columns // length, columns - 1)
            by_column.setdefault(column, []).append(_row_of(value, *reach, rows))
    gap = _usual_gap(line.times_ms) * columns / length
    before: tuple[int, int] | None = None
    for column in sorted(by_column):
        found = by_column[column]
        canvas.stroke(column, min(found), max(found), owner)
        if before is not None and column - before[0] <= gap * 1.5 + 1:
            _join(canvas, before, (column, found[0]), owner)
        before = column, found[-1]


def _join(canvas: _Canvas, start: tuple[int, int], end: tuple[int, int], owner: int) -> None:
    """Dots from the one to the other, so that a line stays a line where it is steep or sparse."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    for step in range(1, steps):
        x = start[0] + (end[0] - start[0]) * step / steps
        y = start[1] + (end[1] - start[1]) * step / steps
        canvas.dot(round(x), round(y), owner)


def _usual_gap(times_ms: Sequence[int]) -> int:
    """The median distance of points: a longer one is a hole in the data."""
    gaps = sorted(after - before for before, after in pairwise(times_ms))
    return gaps[len(gaps) // 2] if gaps else 0


def _is_drawable(value: float) -> bool:
    """Is the value finite, and so that the distance of two of them is?"""
    return abs(value) < _MOST


def _row_of(value: float, low: float, high: float, rows: int) -> int:
    """The row of dots from the top."""
    return min(max(round((high - value) / (high - low) * (rows - 1)), 0), rows - 1)


def y_ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about so many; always two or more."""
    if high - low <= max(abs(high), abs(low)) * 1e-12 or high - low < _LEAST:
        reach = abs(high) * 0.1 if abs(high) > _LEAST else 1.0
        low, high = low - reach, high + reach
    raw = (high - low) / wanted
    power = 10.0 ** floor(log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 3, 4, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * at for at in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """The ticks with one unit and as many decimals as tell them apart."""
    greatest = max(map(abs, ticks))
    size, unit = next(((size, unit) for size, unit in _UNITS if greatest >= size), (1.0, ""))
    for decimals in range(6):
        labels = [f"{tick / size:.{decimals}f}{unit}" for tick in ticks]
        wrong = max(abs(float(f"{tick / size:.{decimals}f}") * size - tick) for tick in ticks)
        if wrong <= (ticks[1] - ticks[0]) * 1e-6:
            return labels
    return [f"{tick:.3g}" for tick in ticks]


def short(value: float) -> str:
    """A value for people: four digits and a unit."""
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(value) >= size), (1.0, ""))
    return f"{value / size:.4g}{unit}"


def _time_axis(first_ms: int, last_ms: int, width: int, zone: tzinfo | None) -> tuple[str, str]:
    """The line of the axis and the times below it, at both ends and as often between as there is room for."""
    is_long = last_ms - first_ms > 86_400_000
    form = "%m-%d %H:%M" if is_long else "%H:%M" if last_ms - first_ms > 600_000 else "%H:%M:%S"
    size = len(_clock(first_ms, form, zone))
    count = max(2, min(7, (width + 4) // (size + 4)))
    axis, texts = ["─"] * width, [" "] * width
    for number in range(count):
        at = round((width - 1) * number / (count - 1))
        axis[at] = "┴"
        text = _clock(first_ms + (last_ms - first_ms) * number // (count - 1), form, zone)
        begin = min(max(at - size // 2, 0), max(width - size, 0))
        texts[begin : begin + size] = text
    return "".join(axis), "".join(texts)[:width]


def _clock(time_ms: int, form: str, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(time_ms / 1000, zone).strftime(form)


def bar_chart(values: Sequence[tuple[str, float]], width: int) -> list[Text]:
    """A bar for each named value, beginning at zero; negative ones are drawn as long as their size, in red."""
    greatest = max((abs(value) for _, value in values if isfinite(value)), default=0.0) or 1.0
    names = max((len(name) for name, _ in values), default=0)
    names = min(names, width // 2)
    room = max(width - names - 12, 8)
    rows = []
    for name, value in values:
        eighths = round(abs(value) / greatest * room * 8) if isfinite(value) else 0
        bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
        shown = name if len(name) <= names else name[: names - 1] + "…"
        rows.append(
            Text.assemble(shown.ljust(names), " ", (bar, "red" if value < 0 else COLOURS[0]), " ", short(value))
        )
    return rows
