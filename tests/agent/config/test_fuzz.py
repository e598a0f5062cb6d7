"""Whatever is in the file: it loads, or ConfigError says why."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import ConfigError
from agent.config.sample import sample
from tests.agent.config.fakes import REGISTRIES, load_text

MUTATIONS = 500
SNIPPETS = ("\t", ": ", "- ", "{", "}", "[", "]", "'", '"', "#", "&a ", "*a", "!x ", "${", "${A}", "$$", "~", "null",
            "true", "off", "1:30", "0x", "9" * 30, "1e999", "\x00", "\xff", "\u2028", "\ud7ff", "---\n", "...\n", "? ",
            "<<: ", "|\n", ">-\n", "%", "@", "`", "(" * 200, "[" * 40, "\r", "  ", "enabled: false", "type: pipe",
            "{file: /dev/zero}",
            "{credential: x}")  # fmt: skip


def mutate(text: str, seed: int) -> str:
    """The text after one to four random changes: snippets put in, lines moved, removed, indented or doubled."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        what = chance.randrange(6)
        if what == 0:
            del lines[at]
        elif what == 1:
            lines.insert(chance.randrange(len(lines)), lines[at])
        elif what == 2:
            lines[at] = " " * chance.randrange(6) + lines[at].lstrip()
        elif what == 3:
            lines[at] = lines[at].replace("# ", "", 1)
        text = "\n".join(lines)
        if what > 3 and text:
            cut = chance.randrange(len(text))
            text = text[:cut] + chance.choice(SNIPPETS) + text[cut + chance.randrange(3) :]
    return text


def try_load(directory, text: str) -> bool:
    """Whether it loads. Anything else than ConfigError is the test's failure."""
    try:
        load_text(directory, text, environ={"A": "b"})
    except ConfigError as error:
        lines = list(map(str, error.errors))
    else:
        return True
    assert lines
    assert not any("\n" in line for line in lines)
    return False


def test_mutated_samples_load_or_say_why(tmp_path) -> None:
    text = sample(REGISTRIES)
    loaded = sum(try_load(tmp_path, mutate(text, seed)) for seed in range(MUTATIONS))
    # Both happen, or the mutations are too tame or too wild to show anything.
    assert MUTATIONS // 20 < loaded < MUTATIONS


KEYS = st.sampled_from(["listen", "tags", "log", "paths", "collectors", "sinks", "tank", "pump", "pipe", "interval",
                        "enabled", "others", "type", "token", "file", "credential", "level", "valves", "mode", "x",
                        ""])  # fmt: skip
LEAVES = st.sampled_from(
    ["true", "off", "5", "5s", "1GiB", "85%", "''", "null", "~", "pipe", "${A}", "${", "[", "'a b'", "/"]
)


def flow(tree: Any) -> str:
    """A tree of dicts, lists and texts as YAML on one line."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{key}": {flow(value)}' for key, value in tree.items()) + "}"
    return f"[{', '.join(map(flow, tree))}]" if isinstance(tree, list) else tree


TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_loads_or_says_why(tmp_path, tree: dict[str, Any]) -> None:
    try_load(tmp_path, flow(tree))
