from __future__ import annotations

import pytest

from agent.core.model import Group, Reading, counter, gauge, tag

DISK = Group("disk", (
    gauge("free", "bytes", "Free.", influx="free", prom="free_bytes"),
    counter("reads", "count", "Reads.", influx="reads"),
), (tag("name", prom="device"), "path"))  # fmt: skip


def test_a_reading_has_its_values_in_declared_order_and_none_for_the_absent() -> None:
    assert DISK.read("sda", "/", reads=1) == Reading(DISK, ("sda", "/"), (None, 1))


def test_a_field_not_declared_is_a_mistake_of_the_collector() -> None:
    with pytest.raises(TypeError, match="disk: no such field: size"):
        DISK.read("sda", "/", size=1)


def test_the_unit_decides_the_type_unless_the_field_does() -> None:
    assert gauge("a", "bytes", "", influx="a").type is int
    assert gauge("a", "percent", "", influx="a").type is float
    assert gauge("a", "percent", "", influx="a", type=int).type is int


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda: gauge("a", "furlongs", "", influx="a"), "unit 'furlongs' is not one of"),
        (lambda: gauge("a", "bytes", ""), "no public name"),
        (lambda: Group("g", [gauge("a", "bytes", "", influx="a")] * 2), "declared twice"),
    ],
)
def test_a_wrong_declaration_is_told_when_it_is_made(declare: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        declare()  # type: ignore[operator]


def test_an_open_group_gives_the_same_group_for_the_same_keys() -> None:
    star = Group("vmstat", (counter("*", "count", "Key.", influx="*", prom="node_vmstat_*"),))
    group = star.expand(["pgfault", "nr_free"], prom=lambda key: key.startswith("pg"))
    assert [field.influx for field in group.fields] == ["pgfault", "nr_free"]
    assert [field.prom for field in group.fields] == ["node_vmstat_pgfault", None]
    assert star.expand(["pgfault", "nr_free"], prom=lambda key: True) is group


def test_an_open_group_whose_keys_never_repeat_does_not_fill_memory() -> None:
    star = Group("x", (counter("*", "count", "Key.", influx="*"),))
    for at in range(1000):
        star.expand([f"key{at}"])
    assert len(star._expanded) < 100


def test_a_group_knows_its_dialects() -> None:
    assert DISK.in_influx
    assert DISK.in_prom
    assert not Group("g", [gauge("a", "bytes", "", influx="a")]).in_prom
