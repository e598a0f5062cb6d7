"""YAML text to nodes: what is accepted, and the one line that says why something is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.problems import MOST_PROBLEMS, Place, Problem
from agent.core.yaml_nodes import MOST_BYTES, MOST_DEPTH, Mapping, Node, Sequence, Text, merge, parse, read_file


def plain(node: Node) -> object:
    """The tree without places: plain texts as they are, quoted ones in a tuple."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.text if node.is_plain else (node.text,)


def parsed(text: str) -> object:
    problems: list[Problem] = []
    tree = parse(text, "f", problems)
    assert tree is not None
    assert problems == []
    return plain(tree)


def wrong(text: str) -> list[str]:
    problems: list[Problem] = []
    parse(text, "f", problems)
    return list(map(str, problems))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        pytest.param("", {}, id="an empty file is an empty mapping"),
        pytest.param("# only a remark\n---\n", {}, id="so is one with nothing but remarks"),
        pytest.param("\ufeffa: b", {"a": "b"}, id="a byte order mark is skipped"),
        pytest.param("a: 1:30\nb: on\nc: 2024-01-01\nd: ~", {"a": "1:30", "b": "on", "c": "2024-01-01", "d": "~"},
                     id="nothing is guessed at"),
        pytest.param("a: 'x'\nb: \"y\\n\"\nc: |\n  z\n", {"a": ("x",), "b": ("y\n",), "c": ("z\n",)},
                     id="quotes and blocks are remembered"),
        pytest.param("a: [1, {b: c}]\nd:\n- e", {"a": ["1", {"b": "c"}], "d": ["e"]}, id="lists and mappings nest"),
        pytest.param("<<: {a: b}", {"<<": {"a": "b"}}, id="a merge key is a key like any other"),
    ],
)  # fmt: skip
def test_texts_become_trees(text: str, tree: object) -> None:
    assert parsed(text) == tree


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2",
                     ["f:5: b.c: 'c' is given twice, first on line 3; keep one",
                      "f:6: a: 'a' is given twice, first on line 1; keep one"], id="every duplicate key"),
        pytest.param("a: &x 1\nb: [*x]",
                     ["f:1: a: anchors (`&name`) are not allowed; remove it",
                      "f:2: b[0]: aliases (`*name`) are not allowed; write the value again"], id="anchors and aliases"),
        pytest.param("a: !!int 1\nb: !x {}",
                     ["f:1: a: tags (`!name`) are not allowed; remove it",
                      "f:2: b: tags (`!name`) are not allowed; remove it"], id="tags"),
        pytest.param("? [a]\n: b\n", ["f:1: a list or mapping cannot be a key; quote it if it is meant as text"],
                     id="a key that is a list"),
        pytest.param("{{a: b}: c, d: e}", ["f:1: a list or mapping cannot be a key; quote it if it is meant as text"],
                     id="braces written twice"),
        pytest.param("?\n: a", ["f:1: a key is missing before the colon"], id="no key"),
        pytest.param("a: 1\n---\nb: 1", ["f:2: a second document begins; a file holds one: remove this `---`"],
                     id="two documents"),
        pytest.param("a:\n\tb: 1", ["f:2: a tab indents this line; indent with spaces"], id="a tab"),
        pytest.param("a: 'b\nc: d\n",
                     [("f:3: is not YAML: found unexpected end of stream while scanning a quoted scalar"
                                     " that starts on line 1")], id="a quote that is not closed"),
        pytest.param("a: b: c", ["f:1: is not YAML: mapping values are not allowed in this context"],
                     id="two colons on a line"),
        pytest.param("a: {b: ${C}}",
                     [("f:1: is not YAML: did not find expected ',' or '}' while parsing a flow mapping;"
                                      " inside braces and brackets a ${NAME} needs quotes")],
                     id="a variable in braces"),
        pytest.param("a: \x07", ['f:1: character U+0007 is not allowed; write it as "\\u...."'],
                     id="a control character"),
        pytest.param("- a", ["f:1: found no mapping; write `option: value` (with a space after the colon)"],
                     id="a list at the top"),
        pytest.param("token:abc", ["f:1: found no mapping; write `option: value` (with a space after the colon)"],
                     id="a secret without its space is not repeated"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_on_one_line(text: str, lines: list[str]) -> None:
    assert wrong(text) == lines


def test_a_duplicate_key_that_hides_a_secret_is_not_repeated() -> None:
    lines = wrong("{token:hunter2, token:hunter2}")
    assert len(lines) == 1
    assert "hunter2" not in lines[0]


@pytest.mark.parametrize("text", ["a: 1\n" * 1000, "[" + "&a 1, " * 1000 + "]"], ids=["duplicates", "anchors"])
def test_a_file_wrong_throughout_is_not_read_to_its_end(text: str) -> None:
    lines = wrong(text)
    assert len(lines) == MOST_PROBLEMS + 1
    assert lines[-1] == "f: there are more errors; correct these first"


@pytest.mark.parametrize(("depth", "is_fine"), [(MOST_DEPTH, True), (MOST_DEPTH + 1, False), (200_000, False)])
def test_depth_is_capped(depth: int, is_fine: bool) -> None:
    lines = wrong("a: " + "[" * (depth - 1) + "]" * (depth - 1))
    assert lines == ([] if is_fine else [f"f:1: is nested deeper than {MOST_DEPTH} levels"])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        pytest.param(b"a: b\nc: \xff\n", "2: byte 0xff is not UTF-8; save the file as UTF-8", id="latin 1"),
        pytest.param("a: b".encode("utf-16"), "1: byte 0xff is not UTF-8; save the file as UTF-8", id="utf-16"),
        pytest.param(b"#" * (MOST_BYTES + 1), " is larger than 1 MiB; split it into several files", id="too large"),
    ],
)
def test_a_file_that_is_no_text(tmp_path, data: bytes, line: str) -> None:
    path = tmp_path / "v.yaml"
    path.write_bytes(data)
    problems: list[Problem] = []
    assert read_file(str(path), problems) is None
    assert list(map(str, problems)) == [f"{path}:{line}"]


def test_a_directory_is_no_file(tmp_path) -> None:
    problems: list[Problem] = []
    assert read_file(str(tmp_path), problems) is None
    assert list(map(str, problems)) == [f"{tmp_path}: cannot be read: is a directory"]


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        pytest.param(
            "a: {b: 1, c: 2}", "a: {c: 3, d: 4}", {"a": {"b": "1", "c": "3", "d": "4"}}, id="mappings are joined"
        ),
        pytest.param("a: [1, 2]", "a: [3]", {"a": ["3"]}, id="lists are replaced"),
        pytest.param("a: {b: 1}", "a: false", {"a": "false"}, id="a mapping is replaced by a value"),
        pytest.param("a: false", "a: {b: 1}", {"a": {"b": "1"}}, id="and the other way round"),
        pytest.param("a: {b: 1}", "a:\n", {"a": {"b": "1"}}, id="an empty section changes nothing"),
        pytest.param("a: {b: 1}", "a: null", {"a": "null"}, id="a null that is written does"),
        pytest.param("t: {file: x}", "t: {credential: y}", {"t": {"credential": "y"}}, id="a secret has one source"),
    ],
)
def test_later_files_win(base: str, over: str, merged: object) -> None:
    problems: list[Problem] = []
    first, second = parse(base, "1", problems), parse(over, "2", problems)
    assert first is not None
    assert second is not None
    assert plain(merge(first, second)) == merged


def test_a_node_keeps_the_file_it_came_from() -> None:
    problems: list[Problem] = []
    first, second = parse("a: {b: 1}", "1", problems), parse("\na: {c: 2}", "2", problems)
    assert first is not None
    assert second is not None
    section = merge(first, second).items["a"]
    assert isinstance(section, Mapping)
    assert section.items["b"].place == Place("1", 1, 8)
    assert section.items["c"].place == Place("2", 2, 8)


@given(st.text(st.characters(codec="utf-8"), max_size=200) | st.text("ab:-[]{}'\"|>&*!?%@`#,\n\t ~", max_size=60))
def test_any_text_gives_a_tree_or_a_reason(text: str) -> None:
    problems: list[Problem] = []
    assert parse(text, "f", problems) is not None or problems
    assert not any("\n" in str(problem) for problem in problems)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_a_reason(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    problems: list[Problem] = []
    assert read_file(str(path), problems) is not None or problems


def test_null_is_what_is_plain() -> None:
    assert Text(Place("f"), "null").is_null
    assert not Text(Place("f"), "null", is_plain=False).is_null


def with_aliases(text: str) -> tuple[object, list[str]]:
    problems: list[Problem] = []
    tree = parse(text, "f", problems, with_aliases=True)
    return tree and plain(tree), list(map(str, problems))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        pytest.param("a: &x {b: c}\nd: *x", {"a": {"b": "c"}, "d": {"b": "c"}}, id="an alias is what it stands for"),
        pytest.param("a: &x s\nb: [*x, *x]", {"a": "s", "b": ["s", "s"]}, id="of a text too"),
        pytest.param("a: &x {b: c, d: e}\nf: {<<: *x, d: g}", {"a": {"b": "c", "d": "e"}, "f": {"d": "g", "b": "c"}},
                     id="a merge key gives what is not there"),
        pytest.param("<<: [{a: b}, {a: c, d: e}]", {"a": "b", "d": "e"}, id="of several mappings the first wins"),
    ],
)  # fmt: skip
def test_files_of_others_may_use_aliases(text: str, tree: object) -> None:
    assert with_aliases(text) == (tree, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a: *x", "f:1: a: the alias 'x' names no anchor before it", id="an alias of nothing"),
        pytest.param("a: &x [*x]", "f:1: a[0]: the alias 'x' names no anchor before it", id="an alias inside itself"),
        pytest.param("<<: a", "f:1: `<<` takes a mapping or a list of mappings", id="a merge of a text"),
    ],
)
def test_wrong_aliases_are_said(text: str, line: str) -> None:
    assert with_aliases(text)[1] == [line]


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    tree, problems = with_aliases("\n".join(lines))
    assert tree is None
    assert problems == ["f:5: aliases stand for more than 20000 values; write fewer"]
