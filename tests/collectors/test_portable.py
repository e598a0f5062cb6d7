from __future__ import annotations

import pytest

from agent.core.model import Reading
from collectors.disk import Disk
from collectors.memory import Memory
from collectors.net import Net
from collectors.portable import Portable
from collectors.system import System


def by_series(items: object) -> dict[tuple[str, tuple[str, ...]], dict[str, object]]:
    return {
        (item.group.measurement, item.tags): item.as_dict()
        for item in items  # type: ignore[attr-defined]
        if isinstance(item, Reading)
    }


@pytest.fixture(scope="module")
def portable() -> dict[tuple[str, tuple[str, ...]], dict[str, object]]:
    """What it says on this host, where the Linux collectors are the oracle."""
    collector = Portable()
    list(collector.collect())
    return by_series(collector.collect())


def test_memory_and_load_are_what_the_linux_collectors_say(portable: dict) -> None:
    oracle = by_series(Memory().collect())["mem", ()]
    assert portable["mem", ()]["MemTotal_bytes"] == oracle["MemTotal_bytes"]
    assert portable["mem", ()]["used_percent"] == pytest.approx(oracle["used_percent"], abs=3)
    assert portable["system", ()].keys() <= by_series(System().collect())["system", ()].keys() | {"uptime"}


def test_the_root_file_system_is_what_the_linux_collector_says(portable: dict) -> None:
    oracle = {key: value for key, value in by_series(Disk().collect()).items() if key[0] == "disk" and "/" in key[1]}
    ((key, fields),) = oracle.items()
    mine = portable[key]
    assert mine["total"] == fields["total"]
    assert mine["used_percent"] == pytest.approx(fields["used_percent"], abs=1)


def test_counters_of_an_interface_have_the_linux_names(portable: dict) -> None:
    oracle = {key: value for key, value in by_series(Net().collect()).items() if key[0] == "node_network"}
    for key, fields in oracle.items():
        assert portable[key].keys() <= fields.keys()
        assert portable[key]["receive_bytes"] >= fields["receive_bytes"] * 0.9


def test_usage_of_each_cpu_adds_up_to_no_more_than_all(portable: dict) -> None:
    usages = [fields for (name, _), fields in portable.items() if name == "cpu"]
    assert all(0 <= sum(fields.values()) <= 100.01 for fields in usages)


def test_it_is_off_where_proc_is_there() -> None:
    from collectors.table import OFF_BY_DEFAULT

    assert "portable" in OFF_BY_DEFAULT
