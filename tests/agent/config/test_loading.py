"""Files, conf.d and the command line together."""

from __future__ import annotations

import os

import pytest

from agent.config import ConfigError, Settings, files, load
from agent.config.address import parse_address
from tests.agent.config.fakes import REGISTRIES, complaints, load_text


def test_with_no_file_at_all_everything_has_its_default(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "DEFAULT_FILE", str(tmp_path / "etc" / "vigilhost.yaml"))
    loaded = load(None, registries=REGISTRIES)
    assert (loaded.files, loaded.warnings) == ([], [])
    assert loaded.settings.listen == "127.0.0.1:9811"
    assert loaded.settings.state_dir == "/var/lib/vigilhost"
    assert loaded.settings.hostname == os.uname().nodename
    assert loaded.settings.tags == {}
    assert (loaded.settings.log.level, loaded.settings.log.format) == ("info", "auto")
    assert list(loaded.settings.collectors) == ["tank"]
    assert loaded.settings.sinks == {}


def test_the_default_file_is_read_when_it_is_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "DEFAULT_FILE", str(tmp_path / "vigilhost.yaml"))
    (tmp_path / "vigilhost.yaml").write_text("hostname: web1")
    assert load(None, registries=REGISTRIES).settings.hostname == "web1"


def test_a_file_that_was_asked_for_must_be_there(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "v.yaml"), registries=REGISTRIES)
    assert str(caught.value) == f"{tmp_path}/v.yaml: cannot be read: no such file or directory"


def test_files_of_conf_d_are_joined_in_the_order_of_their_names(tmp_path) -> None:
    loaded = load_text(
        tmp_path,
        "hostname: a\ntags: {env: prod, rack: 1}\ncollectors: {tank: {interval: 1s, valves: [a, b]}}",
        b="hostname: c\ntags: {rack: 2}",
        a="hostname: b\ncollectors: {tank: {valves: [c], mode: exact}}",
    )
    assert [os.path.basename(file) for file in loaded.files] == ["vigilhost.yaml", "a.yaml", "b.yaml"]
    assert loaded.settings.hostname == "c"
    assert loaded.settings.tags == {"env": "prod", "rack": "2"}
    options = loaded.settings.collectors["tank"].options
    assert (options["interval"], options["valves"], options["mode"]) == (1.0, ["c"], "exact")


def test_every_error_names_the_file_it_is_in_and_they_come_in_order(tmp_path) -> None:
    lines = complaints(tmp_path, "listn: x\nhostname: ''\n", a="\nlog: {level: loud}", b="a: 1\n\tb")
    assert lines == [
        "vigilhost.yaml:1: listn: no such option; did you mean 'listen'?",
        "vigilhost.yaml:2: hostname: '' is empty; write a name, or remove the line",
        "conf.d/a.yaml:2: log.level: 'loud' is not one of the choices; write one of debug, info, warning, error",
        "conf.d/b.yaml:2: a tab indents this line; indent with spaces",
    ]


def test_hidden_files_are_skipped_and_the_other_suffix_is_warned_about(tmp_path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / ".old.yaml").write_text("}")
    (tmp_path / "conf.d" / "README").write_text("}")
    (tmp_path / "conf.d" / "more.yml").write_text("}")
    loaded = load_text(tmp_path, "")
    assert [str(warning) for warning in loaded.warnings] == [
        f"{tmp_path}/conf.d/more.yml: is not read; give it a name in .yaml"
    ]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: path.symlink_to(path), "too many levels of symbolic links", id="a link to itself"),
        pytest.param(lambda path: path.write_text(""), "not a directory", id="a file"),
    ],
)
def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path, make, reason: str) -> None:
    make(tmp_path / "conf.d")
    assert complaints(tmp_path, "") == [f"conf.d: cannot be read: {reason}; let the agent's user list it"]


def test_the_command_line_wins(tmp_path) -> None:
    (tmp_path / "v.yaml").write_text("listen: 127.0.0.1:1\nstate_dir: /a")
    settings = load(
        str(tmp_path / "v.yaml"), {"listen": "[::1]:2", "state_dir": "./${x}$$"}, registries=REGISTRIES
    ).settings
    assert (settings.listen, settings.state_dir) == ("[::1]:2", "./${x}$$")


def test_an_error_of_the_command_line_names_the_switch(tmp_path) -> None:
    (tmp_path / "v.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "v.yaml"), {"listen": "9811", "state_dir": ""}, registries=REGISTRIES)
    assert list(map(str, caught.value.errors)) == [
        "--listen: listen: '9811' is not an address with a port; write it like 127.0.0.1:9811 or [::1]:9811",
        "--state-dir: state_dir: '' is empty; write a name, or remove the line",
    ]


def test_the_shape_of_the_manual(tmp_path) -> None:
    (tmp_path / "token").write_text("abc")
    settings: Settings = load_text(
        tmp_path,
        """
        listen: 127.0.0.1:9811
        state_dir: /var/lib/vigilhost
        tags: {env: prod}
        collectors:
          tank: {interval: 1s}
          pump: {interval: 30s, offset: 5s}
        sinks:
          pipe: {url: "http://127.0.0.1:8086", token: {file: token}, retry: false}
        """,
    ).settings
    assert settings.tags == {"env": "prod"}
    assert settings.collectors["pump"].common.offset == 5.0
    assert settings.sinks["pipe"].options["token"].reveal() == "abc"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9811", ("127.0.0.1", 9811)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("", 80)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "9811", "127.0.0.1", "::1:80", "[::1]", "[:x]:1", "300.0.0.1:1", "a:99999", "a b:1", "a:١"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not an|has a port)"):
        parse_address(text)
