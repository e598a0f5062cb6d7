from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from agent.core.errors import SourceError
from collectors.each_alone import AT_ONCE, EachAlone
from tests.servers.process import wait_until


def test_each_target_has_its_own_outcome_in_the_order_given() -> None:
    def call(target: int) -> int:
        if target % 3 == 0:
            raise SourceError(f"{target} is broken")
        return target * 10

    found = {target: str(outcome) for target, outcome in EachAlone(call, range(3 * AT_ONCE), 10).outcomes()}
    assert list(found) == list(range(3 * AT_ONCE))
    assert all(said == (f"{at} is broken" if at % 3 == 0 else str(at * 10)) for at, said in found.items())


def test_a_target_that_hangs_is_left_behind_alone_and_asked_again_once_it_is_back() -> None:
    gate, calls = threading.Event(), []

    def call(target: str) -> str:
        calls.append(target)
        if target == "dead":
            gate.wait(30)
        return f"{target} answered"

    each = EachAlone(call, ["a", "dead", "b"], 0.5)

    def one_round() -> list[str]:
        return [str(outcome) for _, outcome in each.outcomes()]

    assert one_round() == ["a answered", "no answer within 500ms", "b answered"]
    assert one_round() == ["a answered", "an earlier call has not come back", "b answered"]
    assert calls.count("dead") == 1
    gate.set()
    wait_until(lambda: not each._under_way, "the call to come back")
    assert one_round() == ["a answered", "dead answered", "b answered"]


@pytest.mark.parametrize("targets", [["x"], ["x", "y"]])
def test_a_bug_is_raised_where_the_round_was_asked_for(targets: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        list(EachAlone(lambda target: 1 // 0, targets, 10).outcomes())


def test_a_target_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
        import time
        from collectors.each_alone import EachAlone
        print([str(what) for _, what in EachAlone(time.sleep, [3600, 0], 0.5).outcomes()])
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout == "['no answer within 500ms', 'None']\n"
