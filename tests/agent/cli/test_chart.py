from __future__ import annotations

import math
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.chart import Line, bar_chart, line_chart, tick_labels, y_ticks

HOUR_MS = 3_600_000


def drawn(*lines: Line, width: int = 40, height: int = 6) -> str:
    return "\n".join(text.plain for text in line_chart(lines, width, height, UTC))


def test_a_ramp_rises_from_corner_to_corner_between_labelled_axes() -> None:
    ramp = Line("ramp", [at * HOUR_MS // 60 for at in range(61)], [float(at) for at in range(61)])
    assert drawn(ramp) == "\n".join(
        [
            "60 ┤                              ⢀⣀⠤⠤⠒⠉",
            "   │                        ⢀⣀⠤⠔⠒⠉⠁     ",
            "   │                  ⢀⡠⠤⠔⠊⠉⠁           ",
            "30 ┤            ⣀⡠⠤⠒⠊⠉⠁                 ",
            "   │      ⣀⠤⠤⠒⠉⠉                        ",
            " 0 ┤⣀⠤⠒⠒⠉⠉                              ",
            "   └┴───────────┴──────────┴───────────┴",
            "    00:00     00:20      00:40     01:00",
        ]
    )


def test_a_hole_in_the_data_is_a_hole_in_the_line() -> None:
    times = [at * 60_000 for at in range(60) if not 20 <= at < 40]
    assert drawn(Line("gap", times, [1.0] * len(times)), width=45) == "\n".join(
        [
            "1.1 ┤                                        ",
            "    │                                        ",
            "    │                                        ",
            "1.0 ┤⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉              ⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉",
            "    │                                        ",
            "0.9 ┤                                        ",
            "    └┴────────────┴────────────┴────────────┴",
            "     00:00      00:19        00:39      00:59",
        ]
    )


def test_nothing_finite_is_nothing_to_draw() -> None:
    assert line_chart([Line("x", [1, 2], [math.nan, math.inf])], 40, 5) == []
    assert line_chart([], 40, 5) == []


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.5", "1.0"]),
        (0, 7e9, ["0G", "4G", "8G"]),
        (-3, 4, ["-4", "0", "4"]),
        (5, 5, ["4.5", "5.0", "5.5"]),
        (0, 0, ["-1", "0", "1"]),
        (1_500, 2_500, ["1.5k", "2.0k", "2.5k"]),
    ],
)
def test_the_axis_has_round_numbers_around_the_values(low: float, high: float, labels: list[str]) -> None:
    assert tick_labels(y_ticks(low, high, 2)) == labels


@given(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15), st.integers(2, 10))
def test_the_axis_always_holds_the_values(one: float, other: float, wanted: int) -> None:
    low, high = sorted((one, other))
    ticks = y_ticks(low, high, wanted)
    reach = abs(ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + reach
    assert ticks[-1] >= high - reach
    assert 2 <= len(ticks) <= wanted + 3
    assert len(tick_labels(ticks)) == len(ticks)


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats()), min_size=1, max_size=50),
    st.integers(1, 200),
    st.integers(1, 30),
)
def test_every_chart_fits_its_frame(points: list[tuple[int, float]], width: int, height: int) -> None:
    ordered = sorted(dict(points).items())
    rows = line_chart([Line("x", [at for at, _ in ordered], [x for _, x in ordered])], width, height, UTC)
    assert not rows or len(rows) == height + 2
    assert len({len(row.plain) for row in rows[:-1]}) <= 1


def test_bars_are_as_long_as_their_values() -> None:
    rows = [text.plain for text in bar_chart([("a", 100.0), ("bcd", 50.0), ("none", 0.0), ("odd", math.nan)], 40)]
    lengths = [row.count("█") for row in rows]
    assert lengths[0] == 2 * lengths[1] > 0
    assert lengths[2:] == [0, 0]
    assert [row.split()[0] for row in rows] == ["a", "bcd", "none", "odd"]
    assert max(map(len, rows)) <= 40
