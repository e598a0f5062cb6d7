"""`vigilhost query` and `vigilhost export` over a history whose agent has stopped."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.export_cmd import export
from agent.cli.query_cmd import names_apart, query
from agent.core.clock import FakeClock
from agent.core.labels import labels_of
from tests.agent.http.asking import END_S, POINTS, START_S, filled


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a history in it, and a configuration that points nowhere else."""
    directory = tmp_path_factory.mktemp("state")
    filled(directory / "history", FakeClock(END_S)).close()
    (directory / "vigilhost.yaml").write_text("{}\n")
    return directory


def asked(state: Path, *arguments: str) -> Result:
    where = ["--config", str(state / "vigilhost.yaml"), "--state-dir", str(state)]
    return CliRunner(env={"COLUMNS": "100"}).invoke(query, [*arguments, *where])


def exported(state: Path, *arguments: str) -> Result:
    where = ["--config", str(state / "vigilhost.yaml"), "--state-dir", str(state)]
    return CliRunner(env={"COLUMNS": "100"}).invoke(export, ["--until", str(END_S), *arguments, *where])


AT = ("--at", str(END_S))


def test_a_table_has_a_row_for_each_series(state: Path) -> None:
    done = asked(state, "node_odd", *AT)
    assert done.exit_code == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["value", "8.985e-05", "6.315e+23", "inf"]
    over_time = asked(state, "node_load1", *AT, "--since", "1h", "--step", "1m")
    assert over_time.stdout.splitlines()[1].split()[-6:] == ["61", "1.435", "0", "0.9833", "1.999", "1.669"]


def test_a_scalar_and_a_text_are_printed_as_they_are(state: Path) -> None:
    assert asked(state, "2 * 21").stdout == "42\n"
    assert asked(state, "'text'").stdout == "text\n"


def test_nothing_found_is_said_and_is_no_failure(state: Path) -> None:
    done = asked(state, "nothing", *AT)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing: no series has a value there" in done.stderr


def test_json_is_what_the_api_says(state: Path) -> None:
    found = json.loads(asked(state, "rate(node_load1[5m])", *AT, "--format", "json").stdout)
    assert found["resultType"] == "vector"
    assert found["infos"]


def test_csv_has_a_line_for_each_point(state: Path) -> None:
    done = asked(state, "node_disk_reads_completed_total", *AT, "--since", "1m", "--step", "30s", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 9
    assert {row["device"] for row in rows} == {'odd "ä"\n\\', "sda", "sdb"}


def test_a_chart_shows_lines_with_a_legend_or_bars(state: Path) -> None:
    lines = asked(state, "node_load1", *AT, "--since", "2h", "--format", "chart").stdout
    assert "┤" in lines
    assert '━━ node_load1{instance="web1", job="node"}  last 1.669' in lines
    bars = asked(state, "node_disk_reads_completed_total", *AT, "--format", "chart").stdout.splitlines()
    assert [row.split()[-1] for row in bars] == ["4.193k", "397", "599"]


@pytest.mark.parametrize(
    ("expression", "stderr"),
    [
        (
            "sum(node_load1",
            ["  sum(node_load1", "                ^", "error: found the end of the query"],
        ),
        ('{job=~"("}', ['  {job=~"("}', "        ^", "error: invalid regular expression"]),
        ("1 +\n* 2", ["  * 2", "  ^", "error: found '*'"]),
        ("node_odd + on(job) node_odd", ["error: found duplicate series"]),
    ],
)
def test_what_is_wrong_is_said_with_a_caret_below_it(state: Path, expression: str, stderr: list[str]) -> None:
    done = asked(state, expression, *AT)
    assert done.exit_code == 2
    said = done.stderr.splitlines()[1:]
    assert len(said) == len(stderr)
    for line, expected in zip(said, stderr, strict=True):
        assert line.startswith(expected)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1", "--at", "yesterday"), "'yesterday' is not a moment"),
        (("1", "--since", "x"), "--since: 'x' is not a duration"),
        (("1", "--since", "0s"), "--since: '0s' is no time at all"),
        (("1", "--step", "1m"), "--step needs --since"),
        (("'a'", "--format", "chart", *AT), "a text cannot be drawn"),
    ],
)
def test_wrong_options_are_refused(state: Path, arguments: tuple[str, ...], error: str) -> None:
    done = asked(state, *arguments)
    assert done.exit_code == 2
    assert error in done.stderr


def test_without_agent_and_history_both_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "vigilhost.yaml").write_text("{}\n")
    done = asked(tmp_path, "1")
    assert done.exit_code == 1
    assert "control.sock: no such file or directory" in done.stderr
    assert "history.sqlite: no such file" in done.stderr


def test_reading_changes_nothing_in_the_state_directory(state: Path) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in state.rglob("*") if path.is_file()}

    before = content()
    assert asked(state, "node_load1", *AT).exit_code == 0
    assert exported(state).exit_code == 0
    assert content() == before


def test_an_export_writes_every_sample_in_a_file_that_appears_whole(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "samples.csv"
    done = exported(state, "--since", "7d", "--match", "node_load1", "-o", str(target))
    assert done.exit_code == 0
    assert f"{POINTS} samples of 1 series" in done.stderr
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(rows) == POINTS
    assert (rows[0]["time"], rows[0]["value"]) == ("2023-11-14T22:13:20Z", "1")
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_an_export_that_fails_leaves_no_file(state: Path, tmp_path: Path) -> None:
    done = exported(state, "--match", "node_load1{", "-o", str(tmp_path / "samples.csv"))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[1:3] == ["  node_load1{", "             ^"]
    assert list(tmp_path.iterdir()) == []
    unwritable = exported(state, "-o", str(tmp_path / "nowhere" / "samples.csv"))
    assert (unwritable.exit_code, "no such file or directory" in unwritable.stderr) == (1, True)


@pytest.mark.parametrize(
    ("form", "beginning"),
    [
        ("jsonl", '{"metric":{"__name__":"node_load1"'),
        ("openmetrics", "# HELP node_load1 Load over 1 minute.\n# TYPE node_load1 gauge\nnode_load1{"),
        ("line-protocol", "node_load1,instance=web1,job=node value="),
    ],
)
def test_an_export_speaks_the_formats_others_read(state: Path, form: str, beginning: str) -> None:
    done = exported(state, "--since", "1m", "--match", "node_load1", "--format", form)
    assert done.stdout.startswith(beginning)


def test_names_leave_out_what_all_have_in_common() -> None:
    series = [labels_of({"__name__": "m", "job": "node", "device": device}) for device in ("sda", "sdb")]
    assert names_apart(series) == ['m{device="sda"}', 'm{device="sdb"}']
    assert names_apart(series[:1]) == ['m{device="sda", job="node"}']
    assert START_S < END_S
