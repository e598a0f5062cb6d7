"""Environment variables in texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.expand import escape, expand

ENVIRON = {"A": "1", "EMPTY": "", "LATIN": "\udcff"}


@pytest.mark.parametrize(
    ("text", "expanded", "has_literal"),
    [
        pytest.param("plain", "plain", True, id="a text without variables is itself"),
        pytest.param("", "", False, id="nothing is nothing"),
        pytest.param("${A}", "1", False, id="a variable"),
        pytest.param("x${A}y${A}", "x1y1", True, id="variables within a text"),
        pytest.param("${NO:-else}", "else", True, id="a variable that is unset takes the other text"),
        pytest.param("${EMPTY:-else}", "else", True, id="so does one that is empty"),
        pytest.param("${EMPTY}", "", False, id="an empty variable is an empty text"),
        pytest.param("${NO:-}", "", False, id="the other text may be empty"),
        pytest.param("$$", "$", True, id="two dollars are one"),
        pytest.param("$${A}", "${A}", True, id="and keep a variable from being one"),
        pytest.param("^a$", "^a$", True, id="a single dollar is itself"),
        pytest.param("$A", "$A", True, id="a name needs its braces"),
    ],
)
def test_variables_are_put_in(text: str, expanded: str, has_literal: bool) -> None:
    found = expand(text, ENVIRON)
    assert (found.text, found.has_literal) == (expanded, has_literal)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${NO}", "environment variable NO is not set; set it, or write ${NO:-otherwise}"),
        ("${LATIN}", "environment variable LATIN is not UTF-8"),
        ("${", "a '${' does not belong to a variable; write ${NAME}, ${NAME:-otherwise}, or $${ for the text"),
        ("${1}", "a '${' does not belong to a variable; write ${NAME}, ${NAME:-otherwise}, or $${ for the text"),
        ("${}", "a '${' does not belong to a variable; write ${NAME}, ${NAME:-otherwise}, or $${ for the text"),
        ("${A-b}", "a '${' does not belong to a variable; write ${NAME}, ${NAME:-otherwise}, or $${ for the text"),
    ],
)
def test_what_cannot_be_put_in_is_said(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        expand(text, ENVIRON)
    assert str(caught.value) == reason


@given(st.text("${}A:-b", max_size=20) | st.text())
def test_an_escaped_text_comes_back(text: str) -> None:
    assert expand(escape(text), {}).text == text
