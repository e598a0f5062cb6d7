"""What all collectors have in common, so that a new one cannot forget it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.declared import options_of
from agent.config.tables import COLLECTORS
from agent.core.collector import Collector
from agent.core.errors import SourceError
from agent.core.model import Field, Group, Reading, Tick
from collectors.influx_line import parse_influx_lines
from collectors.table import BUILTIN, OFF_BY_DEFAULT
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition
from tests.collectors import every
from tests.collectors.hosts import NAMES, HostTree

ALL = sorted(BUILTIN)
OURS = [name for name in ALL if BUILTIN[name].startswith("collectors.")]  # one is the agent's own

# They publish what other programs name, in Groups made for it.
BY_OTHERS = frozenset({"exec", "prometheus", "textfile"})

# Everything a collector can be asked for beyond its defaults, so that no declared Group stays unseen for a default.
ALL_ON = {"cpufreq": {"info": True}, "kernel": {"ksm": True}, "processes": {"thread_states": True}}

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

# node_exporter's own names break the rule, and a published name keeps its type.
TOTALS_THAT_ARE_GAUGES = {"node_systemd_socket_refused_connections_total"}

# What costs megabytes or milliseconds and has no place in a module that measures.
HEAVY = (
    "aiohttp", "asyncio", "click", "ctypes.util", "email", "hypothesis", "importlib.metadata", "influxdb_client",
    "multiprocessing", "numpy", "obstore", "pandas", "prometheus_client", "psutil", "re2", "requests", "rich",
    "sqlite3", "ssl", "starlette", "structlog", "tenacity", "urllib.request", "urllib3", "uvicorn", "yaml", "zstandard",
)  # fmt: skip


def declared(name: str) -> tuple[Group, ...]:
    groups: tuple[Group, ...] = COLLECTORS.find(name).groups
    return groups


def all_fields() -> Iterator[tuple[str, Group, Field]]:
    for name in ALL:
        for group in declared(name):
            for one in group.fields:
                yield name, group, one


@pytest.mark.parametrize("name", ALL)
def test_the_class_is_a_collector_of_that_name(name: str) -> None:
    cls = COLLECTORS.find(name)
    assert cls.name == name
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the text a dataclass makes up"
    assert cls.groups
    assert "__dataclass_fields__" in vars(cls)
    assert "__slots__" in vars(cls)
    assert cls.__bases__ == (object,)
    assert isinstance(cls(), Collector)


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_is(name: str) -> None:
    options = options_of(COLLECTORS.find(name))
    assert "interval" in options
    for option in options.values():
        assert re.fullmatch(r".{8,}\.", option.help, re.DOTALL), option.name


@pytest.mark.parametrize("name", ALL)
def test_it_is_on_only_where_it_needs_to_be_told_nothing(name: str) -> None:
    assert (name in COLLECTORS.on_by_default) == (name not in OFF_BY_DEFAULT)


@pytest.mark.parametrize("name", ALL)
def test_its_names_are_names(name: str) -> None:
    for group in declared(name):
        for tag in group.tags:
            assert not tag.prom or LABEL_NAME.fullmatch(tag.prom), group
        assert group.in_influx or group.in_prom
        for one in group.fields:
            assert re.fullmatch(r".{4,}\.", one.help), f"{one.name}: {one.help!r}"
            if one.prom:
                assert METRIC_NAME.fullmatch(one.prom.replace("*", "x")), one.prom
                assert one.kind in ("gauge", "counter", "untyped"), one.prom
                assert {tag.prom for tag in group.tags}.isdisjoint(dict(one.labels)), one.prom


def test_counters_end_in_total_and_nothing_else_does() -> None:
    wrong = {
        one.prom
        for _, _, one in all_fields()
        if one.prom and "*" not in one.prom and (one.kind == "counter") != one.prom.endswith("_total")
    }
    assert wrong == TOTALS_THAT_ARE_GAUGES


def test_a_metric_has_one_type_one_help_and_one_set_of_labels() -> None:
    types, helps, labels = defaultdict(set), defaultdict(set), defaultdict(set)
    for _, group, one in all_fields():
        if one.prom and "*" not in one.prom:
            types[one.prom].add(one.kind)
            helps[one.prom].add(one.help)
            labels[one.prom].add(tuple(sorted({*(tag.prom for tag in group.tags), *dict(one.labels)})))
    for found in (types, helps, labels):
        assert {name: values for name, values in found.items() if len(values) > 1} == {}


def test_a_metric_belongs_to_one_collector() -> None:
    owners = defaultdict(set)
    for name, _, one in all_fields():
        # portable stands in for the others where there is no /proc; it never runs beside them.
        if one.prom and "*" not in one.prom and name != "portable":
            owners[one.prom].add(name)
    assert {prom: names for prom, names in owners.items() if len(names) > 1} == {}


def test_a_field_of_a_measurement_has_one_type() -> None:
    types = defaultdict(set)
    for _, group, one in all_fields():
        if one.influx:
            types[group.measurement, one.influx].add(one.type)
    assert {key: found for key, found in types.items() if len(found) > 1} == {}


def test_a_twin_is_a_series_that_exists() -> None:
    published = [re.escape(one.prom).replace(r"\*", ".+") for _, _, one in all_fields() if one.prom]
    names = re.compile("|".join(published))
    assert [one.twin for _, _, one in all_fields() if one.twin and not names.fullmatch(one.twin)] == []
    assert not [one for _, _, one in all_fields() if one.twin and one.prom], "a field with a name needs no twin"


@pytest.fixture(scope="module", params=NAMES)
def emitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Tick]:
    """Ticks of two rounds on one fixture host, with every option on."""
    tree = HostTree(request.param, tmp_path_factory.mktemp("host"))
    first, later = every.run_twice(tree, options=ALL_ON)
    return [*first.ticks, *later.ticks]


def test_everything_emitted_was_declared(emitted: list[Tick]) -> None:
    for tick in emitted:
        if tick.collector not in BY_OTHERS:
            groups = declared(tick.collector)
            for reading in tick.readings:
                assert any(is_of(reading.group, group) for group in groups), reading.group


def is_of(found: Group, group: Group) -> bool:
    """True for the Group itself and for what `Group.expand` makes of an open one."""
    if found is group:
        return True
    star = group.fields[0]
    if "*" not in star.name or (found.measurement, found.tags) != (group.measurement, group.tags):
        return False
    return all(
        one.influx in (None, star.influx and star.influx.replace("*", one.name))
        and one.prom in (None, star.prom and star.prom.replace("*", one.name))
        and (one.kind, one.unit, one.type, one.help) == (star.kind, star.unit, star.type, star.help)
        for one in found.fields
    )


def test_values_have_the_declared_types_and_tags_are_text(emitted: list[Tick]) -> None:
    allowed = {int: (int,), float: (float, int), bool: (bool,), str: (str,)}
    for tick in emitted:
        for group, tags, values in tick.readings:
            assert len(tags) == len(group.tags), group
            assert len(values) == len(group.fields), group
            assert all(type(value) is str for value in tags), (group, tags)
            for one, value in zip(group.fields, values, strict=True):
                assert value is None or type(value) in allowed[one.type], (group, one.name, value)


def test_no_series_is_emitted_twice_in_a_round(emitted: list[Tick]) -> None:
    for tick in emitted:
        keys = [(reading.group, reading.tags) for reading in tick.readings]
        assert len(keys) == len(set(keys)), tick.collector
    newest = {tick.collector: tick for tick in emitted}
    exposition = Exposition()
    exposition.render(list(newest.values()))
    assert exposition.duplicates == 0
    points = parse_influx_lines("\n".join(Encoder({}).encode(newest.values())).encode())
    fields = [(point.measurement, point.tags, key) for point in points for key, _ in point.fields]
    assert len(fields) == len(set(fields))


def test_a_second_round_uses_the_same_groups(tmp_path: Path) -> None:
    """All that is cached about a series hangs on its Group, so Groups made anew each time would fill memory."""
    tree = HostTree("small", tmp_path)
    clock = every.Clock()
    for name in every.NAMES:
        collector = every.build(name, tree.host, clock)
        with every.same_everywhere():
            try:
                first, second = every.tick_of(collector, clock), every.tick_of(collector, clock)
            except SourceError:
                continue
            finally:
                every.close(collector)
        assert {series(reading) for reading in first.readings} <= {series(reading) for reading in second.readings}


def series(reading: Reading) -> tuple[int, tuple[str, ...]]:
    return id(reading.group), reading.tags


def test_importing_the_collectors_imports_nothing_heavy() -> None:
    modules = sorted({BUILTIN[name].partition(":")[0] for name in OURS})
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert loaded.issuperset(modules)
    assert loaded.isdisjoint(HEAVY)
