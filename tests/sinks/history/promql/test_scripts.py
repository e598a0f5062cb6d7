"""Our scripts, each function and operator in them, and the conformance scripts where the machine has them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sinks.history.promql.ast import AGGREGATORS
from sinks.history.promql.signatures import SIGNATURES
from tests.sinks.history.promql import script

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
SCRIPTS = sorted((HERE / "scripts").glob("*.test"))
OPERATORS = ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", "<=", ">", ">=", "and", "or", "unless"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_answers_as_it_says(path: Path, record_property: Callable[[str, object], None]) -> None:
    results = list(script.run(path))
    assert results
    record_property("score", f"{sum(not fault for _, fault in results)}/{len(results)} passed")
    assert [f"{path.name}:{case.at}: {case.expr}: {fault}" for case, fault in results if fault] == []


def test_every_function_aggregation_and_operator_is_asked_at_least_three_times() -> None:
    text = "\n".join(line for path in SCRIPTS for line in path.read_text().splitlines() if line.startswith("eval"))
    asked = {name: len(re.findall(rf"\b{name}\b\s*(?:\(|by|without)", text)) for name in [*SIGNATURES, *AGGREGATORS]}
    asked |= {op: len(re.findall(rf"[\w)}}\]] {re.escape(op)} (?=[\w({{-])", text)) for op in OPERATORS}
    assert {name: count for name, count in asked.items() if count < 3} == {}


def test_conformance_scripts_pass(record_property: Callable[[str, object], None]) -> None:
    """PROMQLTEST_DIR is a folder of Prometheus' scripts, PROMQLTEST_RUNNER a runner: --engine MODULE:FACTORY FOLDER."""
    folder, runner = os.environ.get("PROMQLTEST_DIR"), os.environ.get("PROMQLTEST_RUNNER")
    if not folder or not runner:
        pytest.skip("PROMQLTEST_DIR and PROMQLTEST_RUNNER name no conformance scripts and runner on this machine")
    if not Path(folder).is_dir() or not Path(runner).is_file():
        pytest.fail(f"PROMQLTEST_DIR={folder} or PROMQLTEST_RUNNER={runner} does not exist")
    engine = "tests.sinks.history.promql.conformance_adapter:factory"
    done = subprocess.run(
        [sys.executable, runner, "-v", "--engine", engine, folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    score = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
    record_property("score", score)
    assert done.returncode == 0, done.stdout + done.stderr
