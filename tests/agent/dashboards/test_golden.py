"""The dashboards as files that reviewers read in the diff."""

from __future__ import annotations

import pytest

from tests.golden.update import HERE, made_files


@pytest.mark.parametrize("name", ["dashboard_vigilhost.json", "dashboard_queries.txt"])
def test_the_dashboards_are_those_of_the_golden_files(name: str) -> None:
    how = "if the change is meant: python -m tests.golden.update, and read the diff"
    assert made_files()[name] == HERE.joinpath(name).read_text(), how
