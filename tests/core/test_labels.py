"""Label sets, and matchers that answer as RE2 does, whatever the pattern."""

import re
import time
from typing import NoReturn

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import labels
from agent.core.labels import Matcher, PatternError
from collectors.systemd import Systemd


def test_a_label_set_is_sorted_and_has_no_empty_values() -> None:
    assert labels.labels_of({"b": "2", "a": "1", "c": ""}) == (("a", "1"), ("b", "2"))


def test_labels_are_read_dropped_kept_and_set() -> None:
    some = labels.labels_of({"__name__": "up", "__unit__": "s", "job": "node", "zone": "x"})
    assert labels.value_of(some, "job") == "node"
    assert labels.value_of(some, "nope") == ""
    assert labels.drop(some, {"zone", "__unit__"}) == (("__name__", "up"), ("job", "node"))
    assert labels.keep(some, ("zone",)) == (("zone", "x"),)
    assert labels.without_name(some) == (("job", "node"), ("zone", "x"))
    assert labels.with_label((("b", "1"),), "a", "2") == (("a", "2"), ("b", "1"))
    assert labels.with_label((("b", "1"),), "b", "") == ()


def test_a_label_set_is_shown_with_escapes() -> None:
    assert labels.show((("a", 'x"\\\n\x01ü\u2028\udcc5'),)) == r'{a="x\"\\\n\x01ü\u2028\xc5"}'


MATCHES = [
    ("=", "a", "a", True, "equal texts are equal"),
    ("=", "", "", True, "an absent label equals the empty text"),
    ("!=", "a", "b", True, "different texts differ"),
    ("=~", "a|b", "b", True, "an alternation of literals"),
    ("=~", "(a|b)", "c", False, "none of the alternatives"),
    ("=~", "(?:a|)", "", True, "an empty alternative"),
    ("=~", "a", "ab", False, "patterns are anchored at the end"),
    ("=~", "b", "ab", False, "patterns are anchored at the start"),
    ("=~", ".*", "", True, "anything, nothing included"),
    ("=~", ".+", "", False, "something"),
    ("=~", ".+", "\n", True, "the dot matches a line break"),
    ("=~", "a.*", "a\nb", True, "the dot matches a line break after a literal"),
    ("=~", ".+b", "b", False, "something before the literal"),
    ("=~", ".+b.+", "abc", True, "something on both sides"),
    ("=~", ".+b.+", "bc", False, "nothing on the left"),
    ("=~", "(ab|c).*", "cd", True, "one of several beginnings"),
    ("=~", "(ab|c).+", "ab", False, "one of several beginnings, and nothing after it"),
    ("=~", ".+(ab|c)", "xab", True, "one of several ends"),
    ("=~", "a|b.*", "ab", False, "the rest belongs to the last alternative"),
    ("=~", r"a\.b", "axb", False, "an escaped dot is a dot"),
    ("=~", r"a\.*", "a...", True, "an escaped dot, repeated"),
    ("=~", r"a\\.*", "a\\b", True, "an escaped backslash before the dot"),
    ("=~", "(?i)ABC", "abc", True, "flags"),
    ("=~", r"\d{3}", "123", True, "classes and counts"),
    ("=~", r"\pL+", "straße", True, "Unicode classes, which Python's re lacks"),
    ("!~", "a|b", "c", True, "a negated pattern"),
    ("!~", "a.?", "ab", False, "a negated pattern that matches"),
]


@pytest.mark.parametrize(("op", "pattern", "value", "expected", "sentence"), MATCHES, ids=[row[4] for row in MATCHES])
def test_matcher(op: labels.MatchOp, pattern: str, value: str, expected: bool, sentence: str) -> None:
    assert Matcher("x", op, pattern).matches(value) is expected


@pytest.mark.parametrize("pattern", ["(", "a{2000}", r"(a)\1", "(?=a)", "(?<!a)", "a**", "\udcc5+", "[z-a]"])
def test_a_pattern_that_re2_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match=re.escape(labels.quote(pattern))):
        Matcher("x", "=~", pattern)


def test_a_pattern_that_hangs_a_backtracking_matcher_answers_at_once() -> None:
    start = time.process_time()
    assert not Matcher("x", "=~", "(a+)+b").matches("a" * 5000)
    assert time.process_time() - start < 5  # backtracking needs 2^5000 steps


def test_a_value_that_is_no_utf8_matches_no_pattern() -> None:
    assert not Matcher("x", "=~", "a?\\pL*").matches("\udcc5")


def test_a_label_set_is_selected_by_all_matchers_and_absent_labels_are_empty() -> None:
    some = labels.labels_of({"__name__": "up", "job": "node"})
    assert labels.select(some, [Matcher("job", "=~", "n.*"), Matcher("zone", "=", "")])
    assert not labels.select(some, [Matcher("job", "=~", "n.*"), Matcher("zone", "!=", "")])


PIECES = st.sampled_from(
    [".*", ".+", "(a|ab)", "a", "b", "|", "(", ")", "(?:", "\\.", "\\", ".", "?", "-", "\\-", "[ab]", "\n"]
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join), st.text("ab.-\n\\", max_size=5))
def test_short_cuts_for_simple_patterns_answer_as_re2(pattern: str, value: str) -> None:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        expected = re2.compile(pattern, options).fullmatch(value) is not None
    except re2.error:
        with pytest.raises(PatternError):
            labels.predicate(pattern)
    else:
        assert labels.predicate(pattern)(value) is expected


@pytest.mark.parametrize("pattern", ["(" * 5000 + "a" + ")" * 5000, "(a|b)" * 20, "|".join(map(str, range(5000)))])
def test_a_pattern_of_any_size_is_read(pattern: str) -> None:
    matches = labels.predicate(pattern)
    assert not matches("no")
    assert labels.predicate(f".*{pattern}")("no") is matches("no")


@pytest.mark.parametrize(
    "pattern",
    [Systemd().unit_exclude, "(loop|ram|zram|fd|sr).*", r"tmpfs|fuse\.lxcfs", "(?:a|b)c(d|e)"],
)
def test_patterns_of_the_defaults_need_no_re2(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(pattern: str) -> NoReturn:
        raise AssertionError(pattern)

    labels.predicate.cache_clear()
    monkeypatch.setattr(labels, "compile_pattern", compiled)
    assert not labels.predicate(pattern)("something else")
