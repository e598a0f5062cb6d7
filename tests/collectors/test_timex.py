from __future__ import annotations

import ctypes
import os
from typing import Any

import pytest

from agent.core.errors import SourceError, SourceMissing
from agent.core.model import Reading
from collectors.timex import TIMEX, TIMEX_SECONDS, ClockState, Timex, read_clock

STA_PLL, STA_NANO, STA_UNSYNC = 0x1, 0x2000, 0x40


def read(state: int = 0, **fields: int) -> tuple[Reading, dict[str, Any], dict[str, Any]]:
    """The Telegraf reading, its values, and node_exporter's values, of a clock with these fields."""
    first, second = Timex(_read=lambda: (state, ClockState(**fields))).collect()
    assert (first.group, second.group) == (TIMEX, TIMEX_SECONDS)
    return first, first.as_dict(), second.as_dict()


@pytest.mark.parametrize(
    ("status", "offset_ns", "offset_s"),
    [(STA_PLL | STA_NANO, -1500, -1.5e-6), (STA_PLL, -1_500_000, -1.5e-3)],
)
def test_the_status_tells_whether_offsets_are_nano_or_microseconds(
    status: int, offset_ns: int, offset_s: float
) -> None:
    _, telegraf, node = read(status=status, offset=-1500, jitter=-1500)
    assert (telegraf["offset_ns"], telegraf["pps_jitter_ns"]) == (offset_ns, offset_ns)
    assert (node["offset"], node["pps_jitter"]) == pytest.approx((offset_s, offset_s))


def test_errors_and_ticks_are_microseconds_and_frequencies_are_shifted_by_16_bits() -> None:
    _, telegraf, node = read(maxerror=1516, esterror=4, tick=10000, freq=3608112, ppsfreq=65536, stabil=-32768)
    assert (telegraf["maxerror_ns"], telegraf["estimated_error_ns"], telegraf["tick_ns"]) == (1516000, 4000, 10000000)
    assert telegraf["frequency_offset_ppm"] == pytest.approx(55.055419)
    assert (telegraf["pps_frequency_ppm"], telegraf["pps_stability_ppm"]) == (1.0, -0.5)
    assert (node["maxerror"], node["tick"]) == (0.001516, 0.01)
    assert node["frequency"] == pytest.approx(1.000055055, abs=1e-9)
    assert node["pps_frequency"] == pytest.approx(1e-6)


def test_pulse_counters_and_tai_offset_stand_in_their_own_fields() -> None:
    fields = {"jitcnt": 11, "calcnt": 12, "errcnt": 13, "stbcnt": 14, "tai": 37, "shift": 8, "constant": 7}
    _, telegraf, node = read(**fields)
    names = ("pps_jitter_total", "pps_calibration_total", "pps_error_total", "pps_stability_exceeded_total")
    assert [telegraf[name] for name in names] == [node[name] for name in names] == [11, 12, 13, 14]
    assert (telegraf["tai_offset_sec"], telegraf["pps_shift_sec"], telegraf["loop_time_constant"]) == (37, 8, 7)
    assert (node["tai_offset"], node["pps_shift"], node["loop_time_constant"]) == (37.0, 8.0, 7)


@pytest.mark.parametrize(
    ("state", "tag", "is_synchronized"),
    [(0, "ok", True), (1, "insert", True), (4, "wait", True), (5, "error", False), (9, "unknown-9", True)],
)
def test_the_state_is_a_tag_and_tells_whether_the_clock_follows(state: int, tag: str, is_synchronized: bool) -> None:
    reading, telegraf, node = read(state, status=STA_UNSYNC)
    assert reading.tags == (tag,)
    assert (telegraf["synchronized"], node["sync_status"]) == (is_synchronized, int(is_synchronized))
    assert telegraf["status"] == node["status"] == STA_UNSYNC


def test_types_are_those_of_the_fields() -> None:
    first, *_ = read(freq=1, offset=2)
    assert all(type(value) is field.type for field, value in zip(TIMEX.fields, first.values, strict=True))


def test_this_kernel_answers_and_a_tick_lasts_ten_milliseconds() -> None:
    state, clock = read_clock()
    assert 0 <= state <= 5
    assert 9000 <= clock.tick <= 11000  # the kernel accepts no more than ten percent off


def test_a_sandbox_that_forbids_the_call_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        def adjtimex(self, clock: object) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Forbidden())
    with pytest.raises(SourceError, match=f"adjtimex: {os.strerror(1).lower()}; a sandbox must allow it"):
        list(Timex().collect())


def test_a_system_without_the_call_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(SourceMissing, match="no such call"):
        list(Timex().collect())
