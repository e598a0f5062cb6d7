from __future__ import annotations

from pathlib import Path

from agent.config.tables import COLLECTORS
from agent.metrics_reference import reference

MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_manual_is_what_the_collectors_declare() -> None:
    expected, found = reference().splitlines(), MANUAL.read_text().splitlines()
    how = "python -m agent.metrics_reference > docs/metrics.md"
    # only what differs, or pytest would show the whole page
    assert {"lacks": set(expected) - set(found), "has": set(found) - set(expected)} == {"lacks": set(), "has": set()}, (
        how
    )
    assert expected == found, how


def test_every_public_name_is_in_it() -> None:
    page = reference()
    for name in COLLECTORS.builtin:
        assert f"## {name}\n" in page
        for group in COLLECTORS.find(name).groups:
            for field in group.fields:
                assert not field.influx or f"| `{field.influx}` | {field.type.__name__} |" in page, field
                assert not field.prom or f"`{field.prom}" in page, field


def test_a_table_row_has_as_many_cells_as_its_heading() -> None:
    width = 0
    for line in reference().splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|---"):
            width = cells
        elif line.startswith("|") and width:
            assert cells == width, line
        else:
            width = 0
