"""The files that backups are measured with."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.sample_files import MIB, copy_files, fill_files


def sizes(directory: Path) -> dict[str, int]:
    return {str(file.relative_to(directory)): file.stat().st_size for file in directory.rglob("*") if file.is_file()}


def test_each_kind_has_about_its_share(tmp_path: Path) -> None:
    fill_files(tmp_path, 128)
    share = {part: sum(sizes(tmp_path / part).values()) / MIB for part in ("usr", "logs", "photographs")}
    assert 0 < share["usr"] <= 64  # less where the next file of a directory is larger than what is left to fill
    assert 30 <= share["logs"] <= 40
    assert share["photographs"] == 32


def test_what_is_found_is_copied_once_as_it_is_until_there_is_enough(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "b").mkdir(parents=True)
    (place / "a").write_bytes(b"1234")
    os.link(place / "a", place / "a2")
    (place / "b" / "c").write_bytes(b"123456")
    (place / "link").symlink_to("a")
    copy_files(str(place), tmp_path / "all", 10)
    assert sizes(tmp_path / "all") == {"a": 4, "b/c": 6}
    copy_files(str(place), tmp_path / "some", 9)
    assert sizes(tmp_path / "some") == {"a": 4}
