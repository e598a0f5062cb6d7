"""The kernel's clock discipline (what NTP tells it), from the read-only form of adjtimex(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from agent.core.errors import SourceError, SourceMissing
from agent.core.model import Field, Group, Reading, Value, counter, gauge
from agent.core.options import option
from agent.core.units import Seconds

_STA_NANO = 0x2000
_TIME_ERROR = 5
_STATES = ("ok", "insert", "delete", "progress", "wait", "error")


def _int(name: str, help: str, twin: str, unit: str = "count") -> Field:
    return gauge(name, unit, help, type=int, influx=name, twin=f"node_timex_{twin}")


def _ppm(name: str, help: str, twin: str) -> Field:
    return gauge(name, "value", help, influx=name, twin=f"node_timex_{twin}")


TIMEX = Group("timex", (
    _int("offset_ns", "Nanoseconds the clock is off its reference.", "offset_seconds"),
    _ppm("frequency_offset_ppm", "Correction of the clock's pace.", "frequency_adjustment_ratio"),
    _int("maxerror_ns", "Nanoseconds the clock can be off at most.", "maxerror_seconds"),
    _int("estimated_error_ns", "Nanoseconds the clock is probably off.", "estimated_error_seconds"),
    _int("status", "Bits of the clock's state.", "status", "code"),
    _int("loop_time_constant", "Time constant of the phase-locked loop.", "loop_time_constant"),
    _int("tick_ns", "Nanoseconds between two clock ticks.", "tick_seconds"),
    _ppm("pps_frequency_ppm", "Frequency of the pulse per second.", "pps_frequency_hertz"),
    _int("pps_jitter_ns", "Nanoseconds of jitter of the pulse per second.", "pps_jitter_seconds"),
    _int("pps_shift_sec", "Length of the calibration interval, log2 of seconds.", "pps_shift_seconds"),
    _ppm("pps_stability_ppm", "Average change of frequency of the pulse per second.", "pps_stability_hertz"),
    _int("pps_jitter_total", "Pulses whose jitter was over the limit.", "pps_jitter_total"),
    _int("pps_calibration_total", "Calibration intervals.", "pps_calibration_total"),
    _int("pps_error_total", "Calibrations that failed.", "pps_error_total"),
    _int("pps_stability_exceeded_total", "Pulses whose stability was over the limit.", "pps_stability_exceeded_total"),
    _int("tai_offset_sec", "Seconds from UTC to international atomic time.", "tai_offset_seconds"),
    gauge("synchronized", "bool", "Whether the clock follows a server.", type=bool,
          influx="synchronized", twin="node_timex_sync_status"),
), tags=("status",))  # fmt: skip

TIMEX_SECONDS = Group("timex_seconds", (
    gauge("offset", "seconds", "How far the clock is off its reference.", prom="node_timex_offset_seconds"),
    gauge("frequency", "ratio", "Pace the clock is given, 1 being its own.",
          prom="node_timex_frequency_adjustment_ratio"),
    gauge("maxerror", "seconds", "How far the clock can be off at most.", prom="node_timex_maxerror_seconds"),
    gauge("estimated_error", "seconds", "How far the clock is probably off.",
          prom="node_timex_estimated_error_seconds"),
    gauge("status", "code", "Bits of the clock's state.", prom="node_timex_status"),
    gauge("loop_time_constant", "count", "Time constant of the phase-locked loop.",
          prom="node_timex_loop_time_constant"),
    gauge("tick", "seconds", "Time between two clock ticks.", prom="node_timex_tick_seconds"),
    gauge("pps_frequency", "hertz", "Frequency of the pulse per second.", prom="node_timex_pps_frequency_hertz"),
    gauge("pps_jitter", "seconds", "Jitter of the pulse per second.", prom="node_timex_pps_jitter_seconds"),
    gauge("pps_shift", "seconds", "Length of the calibration interval.", prom="node_timex_pps_shift_seconds"),
    gauge("pps_stability", "hertz", "Average change of frequency of the pulse per second.",
          prom="node_timex_pps_stability_hertz"),
    counter("pps_jitter_total", "count", "Pulses whose jitter was over the limit.",
            prom="node_timex_pps_jitter_total"),
    counter("pps_calibration_total", "count", "Calibration intervals.", prom="node_timex_pps_calibration_total"),
    counter("pps_error_total", "count", "Calibrations that failed.", prom="node_timex_pps_error_total"),
    counter("pps_stability_exceeded_total", "count", "Pulses whose stability was over the limit.",
            prom="node_timex_pps_stability_exceeded_total"),
    gauge("tai_offset", "seconds", "From UTC to international atomic time.", prom="node_timex_tai_offset_seconds"),
    gauge("sync_status", "bool", "1 when the clock follows a server.", prom="node_timex_sync_status"),
))  # fmt: skip


class ClockState(ctypes.Structure):
    """struct timex of adjtimex(2), field by field."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "time_sec", "time_usec")),
        *((name, ctypes.c_long) for name in ("tick", "ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def read_clock() -> tuple[int, ClockState]:
    """State of the clock (0 to 5) and its parameters; changes nothing.

    Raise SourceMissing where there is no adjtimex, SourceError when a sandbox forbids it.
    """
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except AttributeError as error:
        raise SourceMissing("adjtimex: this system has no such call") from error
    clock = ClockState(modes=0)
    state = adjtimex(ctypes.byref(clock))
    if state < 0:
        reason = os.strerror(ctypes.get_errno()).lower()
        raise SourceError(f"adjtimex: {reason}; a sandbox must allow it (SystemCallFilter with @clock forbids it)")
    return state, clock


def telegraf_values(state: int, clock: ClockState) -> tuple[Value, ...]:
    """Values of TIMEX: nanoseconds and parts per million."""
    unit = 1 if clock.status & _STA_NANO else 1000
    return (
        clock.offset * unit, clock.freq / 65536, clock.maxerror * 1000, clock.esterror * 1000,
        clock.status, clock.constant, clock.tick * 1000,
        clock.ppsfreq / 65536, clock.jitter * unit, clock.shift, clock.stabil / 65536,
        clock.jitcnt, clock.calcnt, clock.errcnt, clock.stbcnt, clock.tai, state != _TIME_ERROR,
    )  # fmt: skip


def node_values(state: int, clock: ClockState) -> tuple[Value, ...]:
    """Values of TIMEX_SECONDS: seconds and ratios."""
    unit = 1e9 if clock.status & _STA_NANO else 1e6
    millionths = 65536 * 1e6
    return (
        clock.offset / unit, 1 + clock.freq / millionths, clock.maxerror / 1e6, clock.esterror / 1e6,
        clock.status, clock.constant, clock.tick / 1e6,
        clock.ppsfreq / millionths, clock.jitter / unit, float(clock.shift), clock.stabil / millionths,
        clock.jitcnt, clock.calcnt, clock.errcnt, clock.stbcnt, float(clock.tai), int(state != _TIME_ERROR),
    )  # fmt: skip


@dataclass(slots=True)
class Timex:
    """Whether and how well the clock follows a time server."""

    name: ClassVar[str] = "timex"
    groups: ClassVar[tuple[Group, ...]] = (TIMEX, TIMEX_SECONDS)

    interval: Seconds = option(30.0, "Time between two readings.")
    _read: Callable[[], tuple[int, ClockState]] = read_clock

    def collect(self) -> Iterator[Reading]:
        state, clock = self._read()
        status = _STATES[state] if state < len(_STATES) else f"unknown-{state}"
        yield TIMEX.row((status,), telegraf_values(state, clock))
        yield TIMEX_SECONDS.row((), node_values(state, clock))
