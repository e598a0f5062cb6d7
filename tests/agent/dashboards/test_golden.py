"""The dashboards as files that reviewers read in the diff."""

from __future__ import annotations

import pytest

from agent.dashboards.queries import DIALECTS
from tests.golden.update import HERE, made_files


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_the_dashboards_are_those_of_the_golden_files(name: str) -> None:
    file = f"dashboard_{name}.json"
    how = "if the change is meant: python -m tests.golden.update, and read the diff"
    assert made_files()[file] == HERE.joinpath(file).read_text(), how
