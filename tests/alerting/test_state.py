"""Pictures, one mark an evaluation. Seen: x breach, . none, ? none and blind. Become: p pending, F firing, f firing and
held for want of data, q pending and held, k kept firing, R resolved, . nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import labels_of
from alerting.state import Breach, Instance, Timing, shifted, step

LABELS = labels_of({"alertname": "DiskFull"})
T0 = 1_700_000_000.0


def mark(instance: Instance | None) -> str:
    if instance is None:
        return "."
    if instance.phase == "resolved":
        return "R"
    if instance.stale_since is not None:
        return "f" if instance.phase == "firing" else "q"
    if instance.phase == "pending":
        return "p"
    return "F" if instance.absent_since is None else "k"


def picture(seen: str, hold: float = 0.0, keep: float = 0.0, every: float = 60.0) -> str:
    instance, marks = None, []
    for index, one in enumerate(seen):
        breach = Breach(index, ()) if one == "x" else None
        instance = step(instance, LABELS, breach, T0 + index * every, Timing(hold, keep), one == "?")
        marks.append(mark(instance))
    return "".join(marks)


@pytest.mark.parametrize(
    ("seen", "become", "timing", "sentence"),
    [
        ("x", "F", (0, 0), "without `for` the first evaluation fires"),
        ("xxxx..", "pppFRR", (180, 0), "fires once `for` has passed, resolves on the first good reading"),
        ("xxx.xxxx", "ppp.pppF", (180, 0), "a pending alert vanishes, and begins anew"),
        ("xx.", "pFR", (60, 0), "exactly `for` is enough"),
        ("xx", "pp", (61, 0), "a second less is not"),
        ("x..x", "FRRF", (0, 0), "a resolved alert that comes back fires again"),
        ("x..xx", "FRRFF", (0, 0), "and stays"),
        ("xx..xx", "pFRRpF", (60, 0), "a resolved alert that comes back is pending again"),
        ("x" + "." * 18, "F" + "R" * 16 + "..", (0, 0), "resolved ones are kept fifteen minutes"),
        ("x....", "FkkRR", (0, 120), "keep_firing_for counts from the first absent evaluation"),
        ("x..x...", "FkkFkkR", (0, 120), "and starts again after a breach"),
        ("xx.x..", "pp.p..", (180, 180), "keep_firing_for keeps no pending alert"),
        ("x???.", "FfffR", (0, 0), "no data is not ok: held, and resolved when data says so"),
        ("x???x", "FfffF", (0, 0), "or firing on"),
        ("xx???x", "ppqqqp", (180, 0), "a pending alert is held too, and its clock stands still"),
        ("xx???xx", "ppqqqpF", (180, 0), "until it has been seen for long enough"),
        ("xx??.", "ppqq.", (180, 0), "a held pending alert vanishes when data says so"),
        ("??", "..", (0, 0), "blindness makes no alert"),
        ("x.?..", "FkfkR", (0, 120), "the clock of keep_firing_for stands still as well"),
        ("x.??", "FRRR", (0, 0), "what is resolved stays resolved"),
    ],
)  # fmt: skip
def test_the_life_of_an_alert(seen: str, become: str, timing: tuple[float, float], sentence: str) -> None:
    assert picture(seen, *timing) == become, sentence


def test_a_firing_alert_shows_the_present_value_and_annotations() -> None:
    first = step(None, LABELS, Breach(1, (("summary", "1"),)), T0, Timing())
    second = step(first, LABELS, Breach(2, (("summary", "2"),)), T0 + 60, Timing())
    assert second is not None
    assert (second.value, second.annotations, second.fired_at) == (2, (("summary", "2"),), T0)


def test_a_clock_set_back_neither_fires_early_nor_waits_for_the_old_future() -> None:
    pending = step(None, LABELS, Breach(1, ()), T0, Timing(180))
    assert pending is not None
    pending = shifted(pending, -3600)
    for minutes, phase in ((1, "pending"), (2, "pending"), (3, "firing")):
        pending = step(pending, LABELS, Breach(1, ()), T0 - 3600 + 60 * minutes, Timing(180))
        assert pending is not None
        assert pending.phase == phase


def test_a_clock_set_ahead_does_not_count_as_time_seen() -> None:
    pending = step(None, LABELS, Breach(1, ()), T0, Timing(180))
    assert pending is not None
    after = step(shifted(pending, 86400), LABELS, Breach(1, ()), T0 + 86400 + 60, Timing(180))
    assert after is not None
    assert after.phase == "pending"


@given(st.text("x.?", max_size=60), st.sampled_from((0.0, 60.0, 150.0)), st.sampled_from((0.0, 60.0, 150.0)))
def test_whatever_is_seen(seen: str, hold: float, keep: float) -> None:
    """Only what fired resolves; nothing fires in the absence of a breach; blindness changes no phase."""
    become = picture(seen, hold, keep)
    before = "."
    for what, now in zip(seen, become, strict=True):
        if now == "R" and before != "R":
            assert before in "Ffk"
        if now == "F":
            assert what == "x"
        if what == "?" and before in "Ffk":
            assert now == "f"
        if what == "?" and before in "pq":
            assert now == "q"
        before = now
