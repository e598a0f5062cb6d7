from __future__ import annotations

import pytest

from alerting.flap import FlapDamper, FlapPolicy
from alerting.notify.message import Alert
from tests.alerting.pictures import T0, alert

POLICY = FlapPolicy(changes=4, window=600, first_hold=300, longest_hold=1200)


def picture(truth: str, step: float = 60.0) -> str:
    """What is told each step: F firing, f held as flapping, . resolved."""
    damper, told, base = FlapDamper(POLICY), [], alert()
    for index, mark in enumerate(truth):
        now = T0 + index * step
        freed = damper.due(now)
        (seen,) = damper.pass_on([base if mark == "F" else base.resolved(now)], now)
        assert not freed or (freed[0].state == seen.state) or seen.is_flapping
        told.append("f" if seen.is_flapping else "F" if seen.is_firing else ".")
    return "".join(told)


@pytest.mark.parametrize(
    ("truth", "told", "sentence"),
    [
        ("FFFFFF....", "FFFFFF....", "a steady alert passes"),
        ("FF..FFFFFF", "FF..FFFFFF", "three changes are not flapping"),
        ("F.F.......", "F.Ffffff..", "the fourth change is flapping; changed in no hold, so free when it ends"),
        ("F.F.F.........", "F.Ffffffffffff", "it changed while held, so it is held again, twice as long"),
        ("F.F.FFFFFFFFFFFFFFFF", "F.FfffffffffffffffFF", "and is told as it is when it has calmed down"),
    ],
)
def test_flapping(truth: str, told: str, sentence: str) -> None:
    assert picture(truth) == told, sentence


def test_a_hold_grows_no_longer_than_allowed() -> None:
    assert set(picture("F." * 100)[4:]) == {"f"}
    damper = FlapDamper(POLICY)
    for index in range(100):
        now = T0 + index * 60
        damper.due(now)
        damper.pass_on([alert() if index % 2 else alert().resolved(now)], now)
    (state,) = damper.states.values()
    assert state.hold == 1200


def test_what_calmed_down_comes_back_as_it_is() -> None:
    damper, base = FlapDamper(POLICY), alert()
    for index in range(4):
        damper.pass_on([base if index % 2 == 0 else base.resolved(T0 + index)], T0 + index)
    due = damper.next_due()
    assert due == T0 + 3 + 300
    assert damper.due(due) == [base.resolved(T0 + 3)]
    assert damper.next_due() is None


def test_quiet_alerts_are_forgotten() -> None:
    damper = FlapDamper(POLICY)
    many: list[Alert] = [alert(instance=str(index)) for index in range(100)]
    damper.pass_on(many, T0)
    damper.pass_on([one.resolved(T0) for one in many], T0 + 1)
    damper.due(T0 + 601)
    assert damper.states == {}


def test_no_limit_means_no_damping() -> None:
    damper = FlapDamper(FlapPolicy(changes=0))
    for index in range(50):
        (seen,) = damper.pass_on([alert() if index % 2 == 0 else alert().resolved(T0)], T0 + index)
        assert not seen.is_flapping
