"""The small words: redaction, access control lists, trusted programs, times of databases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.secrets import Secret
from backup import acl
from backup.assertions import moment, quoted
from backup.errors import Refused
from backup.redact import Redactor, secrets_in
from backup.sources.command import Command
from backup.trusted import check_own_file, check_program


def test_secrets_are_masked_wherever_they_stand() -> None:
    redact = Redactor([Secret("pass"), Secret("password1"), Secret("x")])
    assert redact("password1 and pass, but x") == "*** and ***, but x"
    assert redact.deep({"a password1": ["pass", 1, None, {"b": ("pass",)}]}) == {
        "a ***": ["***", 1, None, {"b": ["***"]}]
    }


def test_secrets_are_found_inside_options() -> None:
    command = Command(["/bin/true"], environment={"A": Secret("one"), "B": Secret("two")})
    assert [one.reveal() for one in secrets_in([command, {"c": [Secret("three")]}, None])] == ["one", "two", "three"]


@pytest.mark.root("only root can set one for others")
def test_an_access_control_list_is_written_as_the_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    text = "user::rw-,user:nobody:r--,user:12345:rwx,group::r--,mask::rwx,other::---"
    os.setxattr(tmp_path / "x", "system.posix_acl_access", acl.encode(text))
    assert os.getxattr(tmp_path / "x", "system.posix_acl_access") == acl.encode(text)


@pytest.mark.parametrize("text", ["", "user", "user::rwxx", "king::rwx", "user:nobody-at-all:rwx", "# only a remark"])
def test_what_is_no_access_control_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"access control list|no such user"):
        acl.encode(text)


def test_a_program_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.touch()
    check_program(str(program))
    check_program("/usr/bin/tar")
    program.chmod(0o777)
    with pytest.raises(Refused, match="others can write"):
        check_program(str(program))
    program.chmod(0o700)
    tmp_path.chmod(0o777)
    with pytest.raises(Refused, match="others can write"):
        check_program(str(program))
    tmp_path.chmod(0o700)
    with pytest.raises(Refused, match="absolute path"):
        check_program("p")


@pytest.mark.root("only root gives a file away")
def test_a_program_of_somebody_else_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.touch(mode=0o700)
    os.chown(program, 12345, 0)
    with pytest.raises(Refused, match="owned by user 12345"):
        check_program(str(program))


@pytest.mark.root("only root gives a link away")
@pytest.mark.parametrize("to", ["far", "{here}/far", "./far/../far"])
def test_a_link_on_the_way_is_as_good_as_its_owner(tmp_path: Path, to: str) -> None:
    (tmp_path / "far").mkdir(mode=0o700)
    (tmp_path / "far" / "p").touch(mode=0o700)
    link = tmp_path / "near"
    link.symlink_to(to.format(here=tmp_path))
    check_program(str(link / "p"))
    os.lchown(link, 12345, 0)
    with pytest.raises(Refused, match=r"near: owned by user 12345"):
        check_program(str(link / "p"))


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "near"
    link.symlink_to("near")
    with pytest.raises(Refused, match="leads through more than 40 links"):
        check_program(str(link / "p"))


def test_a_configuration_file_is_no_link_and_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("x")
    check_own_file(str(file))
    (tmp_path / "link.yaml").symlink_to(file)
    with pytest.raises(Refused, match="is a link; put the file itself there"):
        check_own_file(str(tmp_path / "link.yaml"))
    with pytest.raises(Refused, match="no regular file"):
        check_own_file(str(tmp_path))
    with pytest.raises(Refused, match="no such file"):
        check_own_file(str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    "text", ["1700000000", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20", "2023-11-14 23:13:20+01"]
)
def test_times_of_databases(text: str) -> None:
    assert moment(text) == 1_700_000_000.0


def test_identifiers_are_quoted() -> None:
    assert quoted('public.my"table') == '"public"."my""table"'
    with pytest.raises(ValueError, match="no time"):
        moment("yesterday")
