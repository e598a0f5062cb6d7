"""Texts to trees and back; what is wrong is named with its place."""
# ruff: noqa: E501  (a table's row is one line)

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.query import ParseError, QueryError, UnsupportedError
from sinks.history.promql.ast import Binary, Subquery, VectorSelector, value_type, walk
from sinks.history.promql.engine import Engine
from sinks.history.promql.parser import MAX_HEIGHT, parse
from sinks.history.promql.selectors import selectors
from sinks.history.promql.unparse import duration, unparse
from tests.sinks.history.promql.memory_storage import MemoryStorage

ERRORS = [
    ("", "1:1: found no expression, expected a query"),
    ("# only a remark", "1:16: found no expression, expected a query"),
    ("rate(foo)", "1:6: found an instant vector as argument 1 of rate, expected a range vector; append a range such as [5m]"),
    ("rate(sum(foo))", "1:6: found an instant vector as argument 1 of rate, expected a range vector; append a subquery such as [5m:1m]"),
    ("rat(foo[5m])", "1:1: found 'rat', which is no function; did you mean 'rate'?"),
    ("zzqqxx(foo)", "1:1: found 'zzqqxx', which is no function"),
    ("sum(foo", "1:8: found the end of the query, expected ')'"),
    ("sum foo", "1:5: found 'foo', expected an operator or the end of the query"),
    ("foo bar", "1:5: found 'bar', expected an operator or the end of the query"),
    ("foo = 1", "1:5: found '=', expected an operator or the end of the query; comparison is written =="),
    ("foo{a=b}", "1:7: found 'b', expected a quoted text; label values stand in quotes"),
    ('foo{a=="b"}', "1:6: found '==', expected one of = != =~ !~; equality is a single = in braces"),
    ('foo{a:b="c"}', "1:5: found 'a:b', expected a label name or a quoted metric name"),
    ('foo{a="b" c="d"}', "1:11: found 'c', expected '}'; conditions are written name=\"value\", with a comma between them"),
    ('foo{__name__="bar"}', "1:1: metric name is set twice: 'foo' and 'bar'"),
    ('foo{"bar"}', "1:5: metric name is set twice: 'foo' and 'bar'"),
    ("{}", "1:1: selector matches everything, expected at least one condition that does not fit the empty text; name a metric, or write {__name__=~\".+\"} for all of them"),
    ('{a=~".*"}', "1:1: selector matches everything, expected at least one condition that does not fit the empty text; name a metric, or write {__name__=~\".+\"} for all of them"),
    ('foo{a=~"("}', '1:8: invalid regular expression: "(": missing ): ('),
    ('foo{a=~"(?=x)"}', '1:8: invalid regular expression: "(?=x)": invalid perl operator: (?=; lookaround and backreferences do not exist in RE2'),
    ("foo[5m", "1:7: found the end of the query, expected ']'"),
    ("foo[]", "1:5: found ']', expected a range such as 5m"),
    ("foo[0s]", "1:5: found a range of 0s, expected more than 0"),
    ("foo[5m:0s]", "1:8: found a step of 0s, expected more than 0"),
    ("foo[5m][5m]", "1:8: ranges are only allowed after vector selectors; one range is enough"),
    ("sum(foo)[5m]", "1:9: ranges are only allowed after vector selectors; a range after an expression is a subquery: write [5m:1m]"),
    ("foo offset 5m [5m]", "1:15: found a range after offset or @, expected it before them"),
    ("foo[5m][5m:1m]", "1:8: found a subquery of a range vector, expected one of an instant vector"),
    ("5m30", "1:1: found '5m30', expected a number or a duration; write 1.5, 1e3, 5m or 1h30m"),
    ("foo[30m1h]", "1:5: found '30m1h', expected a duration; write each unit once, from large to small: 1y2w3d4h5m6s7ms"),
    ("foo[999999999999999999999y]", "1:5: found '999999999999999999999y', a duration above 292 years"),
    ("1__0", "1:1: found '1__0', expected underscores between digits only"),
    ("1 == 2", "1:3: comparisons between scalars must use BOOL modifier; write == bool"),
    ("foo + bool bar", "1:7: found bool after '+', expected it after a comparison only"),
    ("foo and 1", "1:5: found a scalar beside 'and', expected instant vectors on both sides"),
    ("foo or on(a) group_left bar", "1:5: found group_left with 'or', which never groups"),
    ("foo + on(a) 1", "1:5: vector matching only allowed between instant vectors"),
    ("foo + group_left bar", "1:7: found 'group_left', expected on(...) or ignoring(...) before it"),
    ("foo * on(a) group_left(a) bar", "1:5: label 'a' must not occur in ON and GROUP clause at once"),
    ("foo[5m] + 1", "1:1: found a range vector beside '+', expected a scalar or an instant vector"),
    ('1 + "a"', "1:5: found a string beside '+', expected a scalar or an instant vector"),
    ('-"a"', "1:1: found '-' before a string, expected a scalar or an instant vector"),
    ("sum(1)", "1:5: found a scalar in sum, expected an instant vector; vector(...) makes one of a scalar"),
    ("sum(foo, bar)", "1:4: found 2 argument(s) for sum, expected 1; write sum(vector)"),
    ("topk(foo)", "1:5: found 1 argument(s) for topk, expected 2; write topk(parameter, vector)"),
    ("topk(foo, foo)", "1:6: found an instant vector as parameter of topk, expected a scalar"),
    ("count_values(1, foo)", "1:14: found a scalar as parameter of count_values, expected a string"),
    ("abs()", "1:1: found 0 argument(s) for abs, expected 1"),
    ("round(foo, 1, 2)", "1:1: found 3 argument(s) for round, expected 1 to 2"),
    ("label_join(foo)", "1:1: found 1 argument(s) for label_join, expected at least 3"),
    ("abs(foo[5m])", "1:5: found a range vector as argument 1 of abs, expected an instant vector; wrap it in a function of a range, such as rate or avg_over_time"),
    ("sum(foo,)", "1:8: found ',' before ')', expected another argument or no comma"),
    ("sum by (a foo)", "1:11: found 'foo', expected ')'"),
    ('sum by ("\\xff") (foo)', '1:9: found "\\xff", a label name that is not UTF-8'),
    ('{"", a="b"}', "1:2: found an empty label name"),
    ("foo offset", "1:11: found the end of the query, expected an offset such as 5m"),
    ("foo offset 5m offset 5m", "1:15: found a second offset, expected one"),
    ("(foo) offset 5m", "1:7: found offset after an expression, expected it right after a selector or a subquery"),
    ("foo @ bar", "1:7: found 'bar', expected a Unix time in seconds, start() or end()"),
    ("foo @ NaN", "1:7: found @ NaN, a timestamp out of bounds"),
    ("foo @ 1e300", "1:7: found @ 1e300, a timestamp out of bounds"),
    ("foo @ 1 @ 2", "1:9: found a second @, expected one"),
    ('"abc', "1:1: found a text that is never closed, expected \""),
    ("`abc", "1:1: found a text that is never closed, expected `"),
    (r'"\q"', "1:2: found the escape '\\\\q', which does not exist; double the backslash, or quote with `backticks`"),
    (r'"\ud800"', "1:2: found the escape '\\\\ud800', which does not exist; double the backslash, or quote with `backticks`"),
    ("foo & bar", "1:5: found '&', which no query contains outside quotes"),
    ("bool", "1:1: found the keyword 'bool', expected an expression; write {\"bool\"} for a metric"),
    ("foo +\n  *", "2:3: found '*', expected an expression"),
    ("foo +\n\n sum(bar) by ä", "3:14: found 'ä', which no query contains outside quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ERRORS, ids=[row[0] or "empty" for row in ERRORS])
def test_error_names_place_finding_and_remedy(text: str, expected: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value) == expected
    assert caught.value.kind == "bad_data"


UNSUPPORTED = [
    "limitk(3, foo)", "limit_ratio by (a) (0.5, foo)", "info(foo)", "foo + fill(0) bar", "foo + on(a) fill_left(0) bar",
    "foo[5m + 1m]", "foo[(5m)]", "foo[step()]", "foo offset (5m)", "foo anchored", "step()", "holt_winters(a[5m], 1, 1)",
]  # fmt: skip


@pytest.mark.parametrize("text", UNSUPPORTED)
def test_what_is_left_out_is_called_not_supported(text: str) -> None:
    with pytest.raises(ParseError, match=r"not supported|called"):
        parse(text)


def test_unsupported_functions_raise_their_own_error() -> None:
    with pytest.raises(UnsupportedError, match="1:5: limitk is not supported; use topk"):
        parse("1 + limitk(3, foo)")


SAME = [
    "1", "-1", "+Inf", "NaN", "1e-07", '"a\\"b\\n"', "foo", "foo:bar:rate5m", ":x", "{\"on\"}", "{\"foo.bar\", \"a.b\"=\"c\"}",
    "sum", "and or or", "by", "avg{by=\"1\"}", "{__name__=~\"a.+\", job!=\"x\"}", "foo[5m] @ 1.500 offset -1m", "foo @ start()",
    "foo @ -10.250 offset 1y", "sum(foo)[1h30m:] @ end()", "foo[5m:30s] offset 3s", "-foo ^ 2", "(-foo) ^ 2", "2 ^ 3 ^ 4",
    "(2 ^ 3) ^ 4", "1 - (2 - 3)", "a / on (x, \"y.z\") group_left (z) b > bool ignoring (q) c", "a and on () b unless ignoring () c",
    "sum by (a, b) (foo)", "count_values without () (\"v\", foo)", "topk(3, foo) or bottomk by (x) (1, bar)",
    "label_replace(foo, \"a\", \"$1\", \"b\", \"(.*)\")", "max_over_time(rate(foo[5m])[1h:1m])", "time() - 300 atan2 pi()",
]  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_a_tree_unparses_to_a_text_of_the_same_tree(text: str) -> None:
    node = parse(text)
    again = unparse(node)
    assert parse(again) == node or "NaN" in text  # NaN equals nothing
    assert unparse(parse(again)) == again


FORMS = [
    ("SUM(foo) BY (a)", "sum by (a) (foo)", "aggregations in any case and order"),
    ("sum(foo) without(a,)", "sum without (a) (foo)", "a trailing comma in labels"),
    ("foo{a='b',}", 'foo{a="b"}', "a trailing comma in a selector, single quotes"),
    ("foo # remark\n + bar", "foo + bar", "remarks"),
    ("0x1F + 1_000 + 017 + .5 + 5.", "31 + 1000 + 15 + 0.5 + 5", "numbers of every form"),
    ("5m + 1h30m + 1ms", "300 + 5400 + 0.001", "durations are numbers"),
    ("foo[300] offset 1.5", "foo[5m] offset 1s500ms", "numbers are durations"),
    ("foo @ -10", "foo @ -10.000", "a negative moment"),
    ("foo AND ON(a) bar Unless baz", "foo and on (a) bar unless baz", "keywords in any case"),
    ("{__name__='foo', a!~`\\d`}", 'foo{a!~"\\\\d"}', "a name by matcher, backticks"),
    ('"\\x41\\102\\u00e4\\U0001F600"', '"ABä😀"', "escapes by number"),
]


@pytest.mark.parametrize(("text", "expected", "sentence"), FORMS, ids=[row[2] for row in FORMS])
def test_form(text: str, expected: str, sentence: str) -> None:
    assert unparse(parse(text)) == expected


def test_operators_bind_as_in_prometheus() -> None:
    node = parse("a or b and c == d + e * f ^ g")
    depth = []
    while isinstance(node, Binary):
        depth.append(node.op)
        node = node.rhs
    assert depth == ["or", "and", "==", "+", "*", "^"]


def test_nodes_carry_their_place() -> None:
    text = "sum(rate(foo[5m] offset 1m)) by (a) > 3"
    places = {text[node.start : node.end] for node in walk(parse(text))}
    inner = {"foo[5m] offset 1m", "rate(foo[5m] offset 1m)", "sum(rate(foo[5m] offset 1m)) by (a)", "3", text}
    assert inner <= places


def test_a_parsed_query_is_remembered() -> None:
    assert parse("rate(remember_me[5m])") is parse("rate(remember_me[5m])")


def test_selectors_tell_names_ranges_and_how_far_back_they_look() -> None:
    text = 'rate(a{x="1"}[5m] offset 1m) + {__name__=~"b.*"} + max_over_time(c[1h:1m] offset 2m) + d @ 100'
    found = selectors(parse(text))
    assert [(s.name, s.range_ms // 1000, s.reach_ms and s.reach_ms // 1000) for s in found] == [
        ("a", 300, 360),
        ("", 0, 0),
        ("c", 0, 3720),
        ("d", 0, None),
    ]
    assert text[found[0].start : found[0].end] == 'a{x="1"}[5m] offset 1m'
    assert {str(matcher) for matcher in found[0].matchers} == {'x="1"', '__name__="a"'}


def test_durations_are_written_in_the_largest_units() -> None:
    assert [duration(ms) for ms in (0, 1, 90_000, 5_400_000, -86_400_000)] == ["0s", "1ms", "1m30s", "1h30m", "-1d"]


def test_a_tree_has_a_type() -> None:
    texts = ["1 + 2", "foo + 2", "foo[5m]", "-foo", '("a")', "time()"]
    kinds = ["scalar", "instant vector", "range vector", "instant vector", "string", "scalar"]
    assert [value_type(parse(text)) for text in texts] == kinds
    assert isinstance(parse("foo[5m:]"), Subquery)


DEEP = {
    "parentheses": "(" * 50_000,
    "signs": "-" * 50_000 + "1",
    "calls": "abs(" * 10_000,
    "chains": "1" + " + 1" * 20_000,
    "powers": "1" + "^1" * 20_000,
    "aggregations": "sum(" * 10_000 + "foo",
    "subqueries": "foo" + "[5m:]" * 10_000,
    "modifiers": "foo" + " offset 0s" * 9_000,
    "labels": "foo{" + "a" * 90_000,
    "length": "1 + " * 2_600_000,
    "quotes": '"' + "\\" * 99_998,
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_huge_and_deep_texts_are_refused_quickly(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ParseError):
        parse(text)
    assert time.process_time() - start < 5  # what is quadratic here takes minutes


def test_the_deepest_tree_allowed_is_parsed_evaluated_and_unparsed() -> None:
    text = "(" * (MAX_HEIGHT - 1) + "1" + ")" * (MAX_HEIGHT - 1)
    assert unparse(parse(text)) == text
    nested = "foo"
    for _ in range(MAX_HEIGHT // 2 - 1):
        nested = f"max_over_time({nested}[1s:1s])"
    storage = MemoryStorage()
    storage.add({"__name__": "foo"}, [(0, 7.0)])
    assert [sample.value for sample in Engine(storage).instant(nested, 0).vector()] == [7.0]


WORDS = [
    "foo", "bar", "sum", "rate", "topk", "label_replace", "histogram_quantile", "by", "without", "on", "ignoring", "group_left",
    "group_right", "bool", "offset", "@", "start", "end", "and", "or", "unless", "atan2", "(", ")", "{", "}", "[", "]", ",", ":",
    "+", "-", "*", "/", "%", "^", "==", "!=", "<", ">=", "=", "=~", "!~", "1", "5m", "0x", "1e", "Inf", '"a"', "'", "`", "\\",
    "#", "\n", "é", "\x00", "\ud800", '"\\xff"', "a=", '__name__="x"', '=~"("', "1y", "[5m]", "[5m:]", "foo{a='b'}",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from(["", " "]))
def test_shuffled_words_give_a_tree_or_a_parse_error(words: list[str], between: str) -> None:
    try:
        node = parse(between.join(words))
    except ParseError:
        return
    again = unparse(node)
    assert unparse(parse(again)) == again


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_garbage_gives_a_parse_error_or_a_tree(text: str) -> None:
    try:
        parse(text)
    except ParseError:
        pass


SELECTOR = st.sampled_from(
    ["foo", 'bar{a="x"}', '{__name__=~"foo|bar"}', "foo offset 1m", "foo @ 60", "bar offset -30s"]
)
SCALAR = st.sampled_from(["1", "0", "-2.5", "NaN", "Inf", "time()", "scalar(foo)", "1e308", "5m"])
RANGED = ["rate", "increase", "delta", "irate", "idelta", "deriv", "sum_over_time", "avg_over_time", "max_over_time", "changes",
          "stddev_over_time", "mad_over_time", "last_over_time", "absent_over_time", "ts_of_max_over_time"]  # fmt: skip
MAPPED = ["abs", "ln", "exp", "sqrt", "round", "sgn", "ceil", "acosh", "atanh", "timestamp", "absent", "sort", "year", "hour",
          "histogram_sum"]  # fmt: skip
BINARY = ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "> bool", "<", "and", "or", "unless", "* on(a)",
          "/ ignoring(a) group_left", "- on() group_right(a)"]  # fmt: skip


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pick = st.sampled_from
    return st.one_of(
        st.builds("{}({})".format, pick(MAPPED), inner),
        st.builds("{}(({})[{}:{}])".format, pick(RANGED), inner, pick(["1m", "90s"]), pick(["10s", "1m", ""])),
        st.builds("{}({}[{}])".format, pick(RANGED), pick(["foo", "bar"]), pick(["20s", "5m", "1ms"])),
        st.builds("{} {} {}".format, inner, pick(BINARY), inner),
        st.builds("({} {} {})".format, inner, pick(["+", "<", "^"]), SCALAR),
        st.builds("{} by (a) ({})".format, pick(["sum", "avg", "stddev", "group", "min"]), inner),
        st.builds("{}({}, {})".format, pick(["topk", "bottomk", "quantile"]), SCALAR, inner),
        st.builds('count_values("v", {})'.format, inner),
        st.builds("clamp({}, {}, {})".format, inner, SCALAR, SCALAR),
        st.builds("predict_linear({}[1m:], {})".format, pick(["foo", "bar"]), SCALAR),
        st.builds("histogram_quantile({}, {})".format, SCALAR, inner),
        st.builds('label_replace({}, "a", "$1", "b", "(.*)")'.format, inner),
        st.builds("-{}".format, inner),
    )


def _fuzzed() -> Engine:
    storage = MemoryStorage()
    odd = [1.0, float("nan"), -1.0, float("inf"), 1e308, -1e308, 0.0, -0.0, 5e-324, float("-inf")]
    storage.add({"__name__": "foo", "a": "x"}, [(i * 10_000, odd[i % 10]) for i in range(20)])
    storage.add({"__name__": "foo", "b": "y"}, [(i * 10_000, float(i % 7)) for i in range(20)])
    storage.add({"__name__": "bar", "a": "x", "le": "1"}, [(i * 15_000, odd[-i % 10]) for i in range(12)])
    return Engine(storage)


FUZZED = _fuzzed()


@settings(max_examples=400, deadline=None)
@given(st.recursive(SELECTOR, _larger, max_leaves=6))
def test_any_query_of_the_grammar_is_answered_or_refused_and_unparses(text: str) -> None:
    try:
        result = FUZZED.range(text, 0, 180_000, 30_000)
        instant = FUZZED.instant(text, 60_000)
    except QueryError:
        return
    assert all(len(points.times_ms) == len(points.values) for points in result.matrix())
    same = {p.labels: p.values[p.times_ms.index(60_000)] for p in result.matrix() if 60_000 in p.times_ms}
    if "@" not in text:
        assert same.keys() == {sample.labels for sample in instant.vector()}
    assert unparse(parse(unparse(parse(text)))) == unparse(parse(text))


def test_a_selector_keeps_its_matchers() -> None:
    node = parse('foo{a="1", a!="2"}')
    assert isinstance(node, VectorSelector)
    assert len(node.matchers) == 3
