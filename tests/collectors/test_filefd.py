from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceMissing
from collectors.filefd import Filefd, parse_columns
from tests.collectors.hosts import readings
from tests.collectors.part_of_host import PartOfHost, fixed_host


def test_columns_become_the_fields_of_both_dialects() -> None:
    (reading,) = Filefd(host=fixed_host("small")).collect()
    influx = {f.influx: v for f, v in zip(reading.group.fields, reading.values, strict=True) if v is not None}
    assert influx == {
        "file-nr": 593, "file-max": 2466170, "inode-nr": 53602, "inode-free-nr": 611, "inode-preshrink-nr": 0,
        "dentry-nr": 69743, "dentry-unused-nr": 68101, "dentry-age-limit": 45, "dentry-want-pages": 0,
        "aio-nr": 0, "aio-max-nr": 65536,
    }  # fmt: skip
    prom = {f.prom: v for f, v in zip(reading.group.fields, reading.values, strict=True) if f.prom}
    assert prom == {"node_filefd_allocated": 593, "node_filefd_maximum": 2466170}


def test_open_files_are_read_anew(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/fs")
    filefd = Filefd(host=tree.host)
    list(filefd.collect())
    tree.later()
    assert readings(filefd.collect())[0][2]["file_nr"] == 609


def test_an_old_kernel_has_quotas_and_super_blocks(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/fs")
    tree.write("proc/sys/fs/super-max", "256\n")
    tree.write("proc/sys/fs/dquot-nr", "7\n")
    values = readings(Filefd(host=tree.host).collect())[0][2]
    assert (values["super_max"], values["dquot_nr"]) == (256, 7)


def test_a_file_that_holds_something_else_is_absent_beside_the_others(tmp_path: Path) -> None:
    tree = PartOfHost("small", tmp_path, "proc/sys/fs")
    tree.write("proc/sys/fs/file-nr", "593\tmany\n")
    values = readings(Filefd(host=tree.host).collect())[0][2]
    assert (values["file_nr"], "file_max" in values, values["aio_max_nr"]) == (593, False, 65536)


def test_a_container_that_hides_them_all_says_so() -> None:
    with pytest.raises(SourceMissing, match="none of its counters can be read"):
        list(Filefd(host=fixed_host("container")).collect())


@given(st.binary(max_size=60))
def test_any_bytes_give_numbers_or_none(noise: bytes) -> None:
    assert all(number is None or isinstance(number, int) for number in parse_columns(noise, (0, 1, 3)))
