from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.errors import SourceMissing
from agent.core.host import Host
from agent.core.model import Failed, Reading, Value
from collectors.textfile import Textfile
from tests.collectors.hosts import HostTree, readings

DIRECTORY = "/var/lib/vigilhost/textfile"


def test_every_good_file_is_read_and_a_half_written_one_is_skipped_whole(tmp_path: Path) -> None:
    found = list(Textfile(host=HostTree("small", tmp_path).host).collect())
    values = {(name, tags): value for name, tags, value in readings(found)}
    assert values["apt_upgrades_pending", ("amd64", "Debian-Security:bookworm-security")] == {"value": 2}
    assert values["job_last_success_timestamp_seconds", ('nightly "full"',)] == {"value": 1.7e9}
    assert values["job_duration_seconds_bucket", ("600",)] == {"value": 40}
    assert not any(name == "half_written" for name, _ in values)
    assert values["textfile", ()] == {"scrape_error": 1}
    assert [item for item in found if isinstance(item, Failed)] == [
        Failed(f"{DIRECTORY}/half-written.prom", "line 2: does not end with a line feed; the text may be cut short")
    ]
    assert {tags[0] for name, tags in values if name == "textfile_mtime"} == {
        f"{DIRECTORY}/apt.prom",
        f"{DIRECTORY}/backup.prom",
    }


def test_mtime_is_that_of_the_file(tmp_path: Path) -> None:
    textfile = in_directory(tmp_path, {"a.prom": "a 1\n"})
    os.utime(tmp_path / "a.prom", ns=(0, 1_700_000_000_500_000_000))
    assert values_of(textfile)["textfile_mtime", (f"{tmp_path}/a.prom",)] == {"seconds": 1_700_000_000.5}


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    values = values_of(in_directory(tmp_path, {"a.prom.tmp": "rubbish", "b.txt": "rubbish", ".prom": "c 3\n"}))
    assert values == {
        ("c", ()): {"value": 3},
        ("textfile", ()): {"scrape_error": 0},
        ("textfile_mtime", (f"{tmp_path}/.prom",)): values["textfile_mtime", (f"{tmp_path}/.prom",)],
    }


def test_a_file_is_parsed_anew_when_it_was_written(tmp_path: Path) -> None:
    textfile = in_directory(tmp_path, {"a.prom": "a 1\n"})
    first = one(textfile, "a")
    same = one(textfile, "a")
    (tmp_path / "new").write_text("a 22\n")
    (tmp_path / "new").rename(tmp_path / "a.prom")
    later = one(textfile, "a")
    assert [first.values, same.values, later.values] == [(1,), (1,), (22,)]
    assert first.group is same.group is later.group


@pytest.mark.parametrize(
    ("files", "reason", "left", "why"),
    [
        ({"a.prom": "a 1 1700000000000\nb 1\n", "c.prom": "c 1\n"}, "a has timestamps of its own; leave them out",
         {"c"}, "a timestamp spoils the whole file"),
        ({"a.prom": "# TYPE a gauge\na 1\n", "b.prom": "# TYPE a counter\na 2\nb 1\n"},
         "a is a counter here and a gauge in an earlier file", {"a"}, "two types cannot stand beside each other"),
        ({"a.prom": "# HELP a One.\na 1\n", "b.prom": "# HELP a Two.\na{x=\"1\"} 2\n"},
         "HELP of a differs from that in an earlier file", {"a"}, "another help text costs no values"),
        ({"a.prom": "a" * 2000 + " 1\n"}, "larger than 1KiB", set(), "size is bounded"),
        ({"a.prom": "a 1\nb 1\nc 1\nd 1\n"}, "line 4: more than 3 samples", set(), "samples are bounded"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_the_rest_goes_on(
    tmp_path: Path, files: dict[str, str], reason: str, left: set[str], why: str
) -> None:
    textfile = in_directory(tmp_path, files)
    textfile.max_size, textfile.max_samples = 1024, 3
    found = list(textfile.collect())
    assert [item.reason for item in found if isinstance(item, Failed)] == [reason], why
    names = {name for name, _, _ in readings(found)}
    assert names - {"textfile", "textfile_mtime"} == left, why
    assert ("textfile", (), {"scrape_error": 1}) in readings(found)


def test_the_first_help_text_counts_and_a_missing_one_names_the_file(tmp_path: Path) -> None:
    textfile = in_directory(tmp_path, {"a.prom": "# HELP a One.\na 1\n", "b.prom": "# HELP a Two.\na 2\nb 1\n"})
    assert one(textfile, "a").group.fields[0].help == "One."
    assert one(textfile, "b").group.fields[0].help == f"Metric read from {tmp_path}/b.prom"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    textfile = in_directory(tmp_path, {})
    os.mkfifo(tmp_path / "p.prom")
    assert [item.reason for item in textfile.collect() if isinstance(item, Failed)] == ["not a regular file"]


def test_a_file_name_that_is_not_utf8_comes_through(tmp_path: Path) -> None:
    textfile = in_directory(tmp_path, {})
    (tmp_path / os.fsdecode(b"\xff\n.prom")).write_text("a 1\n")
    assert ("textfile_mtime", (f"{tmp_path}/?\n.prom",)) in values_of(textfile)


def test_without_the_directory_there_is_nothing_of_this_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=f"{DIRECTORY}: no such file or directory"):
        list(Textfile(host=Host(root=str(tmp_path))).collect())


def in_directory(path: Path, files: dict[str, str]) -> Textfile:
    for name, text in files.items():
        (path / name).write_text(text)
    return Textfile(directory=str(path))


def values_of(textfile: Textfile) -> dict[tuple[str, tuple[str, ...]], dict[str, Value]]:
    return {(name, tags): value for name, tags, value in readings(textfile.collect())}


def one(textfile: Textfile, measurement: str) -> Reading:
    return next(r for r in textfile.collect() if isinstance(r, Reading) and r.group.measurement == measurement)
