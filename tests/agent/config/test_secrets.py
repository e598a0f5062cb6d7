"""Secrets: where their text comes from, and that no message ever holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import ConfigError
from agent.config.show import show
from agent.core.secrets import Secret
from tests.agent.config.fakes import REGISTRIES, complaints, load_text

CANARY = "hunter2-canary"


def config(token: str) -> str:
    return f"sinks:\n  pipe:\n    url: x\n    token: {token}\n"


def token_of(directory: Path, token: str, **environ: str) -> object:
    return load_text(directory, config(token), environ=environ).settings.sinks["pipe"].options["token"]


def test_from_a_file_without_the_line_break_at_its_end(tmp_path) -> None:
    secret = tmp_path / "token"
    secret.write_text(f"{CANARY}\n")
    secret.chmod(0o600)
    assert token_of(tmp_path, f"{{file: {secret}}}") == Secret(CANARY)


def test_from_a_file_beside_the_one_that_names_it(tmp_path) -> None:
    (tmp_path / "token").write_text(CANARY)
    assert token_of(tmp_path, "{file: token}") == Secret(CANARY)


def test_from_a_credential_of_systemd(tmp_path) -> None:
    (tmp_path / "influx").write_text(CANARY)
    assert token_of(tmp_path, "{credential: influx}", CREDENTIALS_DIRECTORY=str(tmp_path)) == Secret(CANARY)


@pytest.mark.parametrize("token", ["${T}", "'${T}'", "hunter2-${PART}", "${NOT_SET:-hunter2-canary}"])
def test_from_the_environment(tmp_path, token: str) -> None:
    assert token_of(tmp_path, token, T=CANARY, PART="canary") == Secret(CANARY)


def test_from_the_configuration_itself(tmp_path) -> None:
    assert token_of(tmp_path, CANARY) == Secret(CANARY)


@pytest.mark.parametrize(
    ("token", "line"),
    [
        ("{file: nowhere}", "sinks.pipe.token.file: '{dir}/nowhere' cannot be read: no such file or directory"),
        ("{file: empty}", "sinks.pipe.token.file: '{dir}/empty' is empty; write the secret into it"),
        ("{file: latin}", "sinks.pipe.token.file: '{dir}/latin' is not UTF-8 text"),
        ("{file: large}",
         "sinks.pipe.token.file: '{dir}/large' is larger than 64 KiB; name the file that holds the secret alone"),
        ("{file: fifo}",
         "sinks.pipe.token.file: '{dir}/fifo' is not a regular file; name the file that holds the secret"),
        ("{file: }", "sinks.pipe.token.file: has no value; write {{file: name}}"),
        ("{file: a, credential: b}",
         "sinks.pipe.token: takes one source; write {{file: /path}} or {{credential: name}}"),
        ("{}", "sinks.pipe.token: takes one source; write {{file: /path}} or {{credential: name}}"),
        ("{credential: a}", (
            "sinks.pipe.token.credential: there is no $CREDENTIALS_DIRECTORY; start the agent from a systemd unit with"
            " LoadCredential=a:/path")),
        ("''",
         "sinks.pipe.token: is empty; write {{file: /path}}, {{credential: name}}, ${{NAME}}, or the text itself"),
        ("${NO}", "sinks.pipe.token: environment variable NO is not set; set it, or write ${{NO:-otherwise}}"),
    ],
)  # fmt: skip
def test_a_secret_that_cannot_be_had(tmp_path, token: str, line: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    os.mkfifo(tmp_path / "fifo")
    expected = f"vigilhost.yaml:4: {line.format(dir=tmp_path)}".replace(f"{tmp_path}/", "")
    assert complaints(tmp_path, config(token)) == [expected]


def test_a_credential_stays_in_its_directory(tmp_path) -> None:
    lines = complaints(tmp_path, config("{credential: ../x}"), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert lines == [
        (
            "vigilhost.yaml:4: sinks.pipe.token.credential: '../x' is not the name of a credential;"
            " write it as LoadCredential= has it"
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(config(f"[{CANARY}]"), id="a list"),
        pytest.param(config(f"{{{CANARY}: 1}}"), id="a mapping with it as key"),
        pytest.param(config(f"{{{CANARY}: 1, {CANARY}: 1}}").replace(CANARY, "x:" + CANARY), id="that key twice"),
        pytest.param(config(f"a${{{CANARY}"), id="a variable that is not closed"),
        pytest.param(config("a${hunter2}b"), id="something like a variable inside it"),
        pytest.param(config(f"'{CANARY}"), id="a quote that is not closed"),
        pytest.param(config(f"&{CANARY} 3"), id="an anchor"),
        pytest.param(config(f"*{CANARY}"), id="an alias"),
        pytest.param(config(f"!{CANARY} 3"), id="a tag"),
        pytest.param(f"sinks:\n  pipe: {{url: x, token:{CANARY}}}", id="no space after the colon, in braces"),
        pytest.param(f"sinks:\n  pipe:\n    token:{CANARY}", id="no space after the colon, alone"),
        pytest.param(f"sinks:\n  pipe:\n    token:{CANARY}\n    url: x", id="no space after the colon, first"),
        pytest.param(
            f"sinks:\n  pipe:\n    url: x\n    token:{CANARY}: 3", id="no space after the colon, with another"
        ),
        pytest.param(f"sinks:\n  pipe: {CANARY}", id="in place of the options"),
        pytest.param(f"sinks: {CANARY}", id="in place of the section"),
        pytest.param(f"sinks:\n  pipe:\n    url: x\n    tokn: {CANARY}", id="under a misspelt option"),
        pytest.param(f"sinks:\n  grumpy:\n    token: {CANARY}", id="told by the plugin itself"),
    ],
)
def test_no_error_repeats_a_secret(tmp_path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert "hunter2" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_unusable_value_from_the_environment_is_not_repeated(tmp_path) -> None:
    lines = complaints(tmp_path, "listen: ${T}\n", environ={"T": CANARY})
    assert lines == [
        (
            "vigilhost.yaml:1: listen: '${T}' (with its variables put in) is not an address with a port;"
            " write it like 127.0.0.1:9811 or [::1]:9811"
        )
    ]


def test_a_plain_secret_in_a_file_that_everyone_can_read_is_a_warning(tmp_path) -> None:
    loaded = load_text(tmp_path, config(CANARY), mode=0o644)
    assert [str(warning) for warning in loaded.warnings] == [
        (
            f"{tmp_path}/vigilhost.yaml:4: holds a secret (sinks.pipe.token)"
            " and can be read by every user of this host; chmod o-rwx it"
        )
    ]


@pytest.mark.parametrize(
    ("token", "mode"),
    [pytest.param(CANARY, 0o640, id="a file that others cannot read"), pytest.param("${T}", 0o644, id="a variable")],
)
def test_there_is_no_warning_for(tmp_path, token: str, mode: int) -> None:
    assert load_text(tmp_path, config(token), mode=mode, environ={"T": CANARY}).warnings == []


def test_the_file_with_the_secret_is_the_one_that_is_warned_about(tmp_path) -> None:
    (tmp_path / "token").write_text(CANARY)
    (tmp_path / "token").chmod(0o644)
    (warning,) = load_text(tmp_path, config("{file: token}"), mode=0o644).warnings
    assert str(warning) == (
        f"{tmp_path}/vigilhost.yaml:4: sinks.pipe.token.file: '{tmp_path}/token'"
        " can be read by every user of this host; chmod o-rwx it"
    )


def test_what_is_shown_has_no_secret(tmp_path) -> None:
    text = show(load_text(tmp_path, config(CANARY)).settings, REGISTRIES)
    assert 'token: "***"' in text
    assert CANARY not in text
