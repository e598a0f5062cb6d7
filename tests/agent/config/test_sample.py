"""What is made from the declarations: the sample, the manual's page and the effective configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ConfigError, backup_reference, load
from agent.config.declared import options_of
from agent.config.reference import reference
from agent.config.registry import Registry
from agent.config.sample import elements, sample
from agent.config.settings import Settings
from agent.config.show import show, summary
from agent.config.tables import REGISTRIES, CollectorCommon
from agent.config.write import inline, quote
from agent.core.options import option, required
from agent.core.problems import Problem
from agent.core.secrets import Secret
from agent.core.units import Percent, Seconds
from agent.core.yaml_nodes import parse
from tests.agent.config import fakes
from tests.agent.config.fakes import load_text

MANUAL = Path(__file__).parents[3] / "docs" / "configuration.md"


@dataclass
class Part:
    """A part."""

    name: str = required("Its name.")
    weight: Percent = option(10.0, "Its share.", maximum=100)


@dataclass
class Everything:
    """All forms an option can take."""

    name: ClassVar[str] = "everything"

    pattern: str = option(r"^\d+$", "A pattern.")
    parts: list[Part] = option(list, "Parts.", example="- name: a\n  weight: 5%")
    token: Secret | None = option(None, "A secret.", example="{file: /a}")
    limits: dict[str, Seconds] = option(dict, "Limits.", minimum=1)
    unit: Literal["a", "b"] | None = option(None, "A choice or none.")
    text: str = option("a: b", "A text that needs quotes.")


EVERYTHING = Registry(noun="collector", builtin={"everything": f"{__name__}:Everything"}, common=CollectorCommon)


def names(cls: type) -> Iterator[str]:
    for option_ in options_of(cls).values():
        yield option_.name
        if (element := elements(option_)) is not None:
            yield from names(element)


@pytest.mark.parametrize("registries", [REGISTRIES, fakes.REGISTRIES], ids=["ours", "fakes"])
def test_the_sample_loads_and_equals_the_defaults(tmp_path, registries) -> None:
    path = tmp_path / "vigilhost.yaml"
    path.write_text(sample(registries))
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    loaded = load(str(path), registries=registries)
    assert loaded.settings == load(str(empty), registries=registries).settings
    assert loaded.warnings == []


def test_the_sample_has_every_option_of_every_plugin() -> None:
    text = sample()
    for registry in REGISTRIES.values():
        for plugin in registry.builtin:
            for name in names(registry.find(plugin)):
                assert re.search(rf"^[ #]*{name}(:| \()", text, re.MULTILINE), f"{plugin}.{name}"


def test_every_option_says_what_it_is_for() -> None:
    for registry in REGISTRIES.values():
        for plugin in registry.builtin:
            for name, declared in options_of(registry.find(plugin)).items():
                assert declared.help.endswith((".", ")")), f"{plugin}.{name}: {declared.help!r} is not a sentence"


def test_the_sample_of_the_fakes_reads_well() -> None:
    text = sample(fakes.REGISTRIES)
    assert text[text.index("# What is measured.") :] == (Path(__file__).parent / "golden_sample.yaml").read_text()


def test_a_commented_section_works_once_it_is_uncommented(tmp_path) -> None:
    lines = sample(fakes.REGISTRIES).splitlines()
    start = lines.index("  # pipe:")
    lines[start : start + 4] = [line.replace("  # ", "  ", 1) for line in lines[start : start + 4]]
    settings = load_text(tmp_path, "\n".join(lines)).settings
    assert settings.sinks["pipe"].options == {"url": "http://127.0.0.1:1", "token": None, "retry": True}


def test_every_form_of_option_is_in_the_sample_and_loads(tmp_path) -> None:
    registries = {**fakes.REGISTRIES, "collectors": EVERYTHING}
    text = sample(registries)
    assert (
        "    #   name (text; required): Its name.\n    #   weight (percentage; 10%): Its share. At most 100%." in text
    )
    assert "    # parts:\n    #   - name: a\n    #     weight: 5%\n    parts: []" in text
    assert "    pattern: '^\\d+$'" in text
    assert "    # A choice or none. One of a, b.\n    # unit: null" in text
    (tmp_path / "v.yaml").write_text(text)
    options = load(str(tmp_path / "v.yaml"), registries=registries).settings.collectors["everything"].options
    assert (options["pattern"], options["text"]) == (r"^\d+$", "a: b")


def test_the_manual_is_what_the_declarations_say() -> None:
    assert MANUAL.read_text() == reference(), "run: python -m agent.config.reference > docs/configuration.md"
    page = MANUAL.with_name("backup-options.md")
    how = "run: python -m agent.config.backup_reference > docs/backup-options.md"
    assert page.read_text() == backup_reference.reference(), how


def test_the_manual_escapes_what_would_break_its_tables() -> None:
    rows = [line for line in reference({**REGISTRIES, "collectors": EVERYTHING}).splitlines() if line.startswith("| ")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {3, 5}


CONFIG = """
hostname: web1
tags: {env: prod, "a b": "c: d", odd: "\\u2028$${x}"}
log: {level: debug}
collectors:
  tank: {interval: 1m30s, alarm: 99.5%, buffer: 1500B, valves: [a, "b, c", "yes"], mode: exact, jitter: 100ms}
  pump: false
sinks:
  pipe: {url: http://127.0.0.1:8086, retry: false}
  spare: {type: pipe, url: "http://[::1]:1"}
"""


def test_what_is_shown_configures_the_same(tmp_path) -> None:
    first = load_text(tmp_path, CONFIG).settings
    text = show(first, fakes.REGISTRIES)
    assert load_text(tmp_path, text).settings == first
    assert "    interval: 1m30s\n    alarm: 99.5%\n    buffer: 1500B\n" in text


def test_what_is_turned_off_is_shown(tmp_path) -> None:
    text = show(load_text(tmp_path, "collectors: {others: false}").settings, fakes.REGISTRIES)
    assert "collectors:\n  tank: false\n" in text
    assert load_text(tmp_path, text).settings.collectors == {}


def test_the_summary_counts(tmp_path) -> None:
    assert summary(load_text(tmp_path, CONFIG).settings) == "1 collector, 2 sinks"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", "plain"),
        ("127.0.0.1:9811", "127.0.0.1:9811"),
        ("/var/lib", "/var/lib"),
        ("a b", "a b"),
        ("yes", '"yes"'),
        ("1:30", '"1:30"'),
        ("1.5", '"1.5"'),
        ("2024-01-01", '"2024-01-01"'),
        ("", '""'),
        ("a: b", '"a: b"'),
        ("a # b", '"a # b"'),
        ("${A}", '"$${A}"'),
        (r"\d", r"'\d'"),
        ('"', '"\\""'),
        ("a\nb", '"a\\nb"'),
    ],
)
def test_quotes_where_they_are_needed(text: str, quoted: str) -> None:
    assert quote(text) == quoted


@given(st.lists(st.text(st.characters(codec="utf-8")) | st.text("a'\"\\:#,[]{}&*!|>%@` ~-$\n\t"), max_size=4))
def test_every_text_reads_back(tmp_path_factory, texts: list[str]) -> None:
    problems: list[Problem] = []
    written = inline(list[str], texts)
    assert parse(f"a: {written}", "f", problems) is not None, problems
    directory = tmp_path_factory.getbasetemp()
    try:
        settings = load_text(directory, f"collectors: {{tank: {{valves: {written}}}}}").settings
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    assert settings.collectors["tank"].options["valves"] == texts


def test_settings_have_a_sentence_for_each_section() -> None:
    for declared in options_of(Settings).values():
        assert declared.help.endswith(".")
