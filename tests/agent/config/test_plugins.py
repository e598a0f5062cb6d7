"""The sections of plugins: which run, with which options, and what is said about wrong ones."""

from __future__ import annotations

import importlib
import sys

import pytest

from agent.config import CommonOptions, ConfigError, build_collectors, build_sinks
from agent.config.registry import Registry, _entry_points
from agent.config.tables import COLLECTORS, REGISTRIES
from agent.core.collector import Collector
from agent.core.host import Host
from tests.agent.config import fakes
from tests.agent.config.fakes import complaints, load_text


def running(directory, text: str) -> list[str]:
    return list(load_text(directory, text).settings.collectors)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("", ["tank"], id="those on by default run"),
        pytest.param("collectors:", ["tank"], id="also when the section is empty"),
        pytest.param("collectors: {tank: {interval: 1s}}", ["tank"], id="naming one configures it"),
        pytest.param("collectors: {pump: {}}", ["tank", "pump"], id="naming one turns it on"),
        pytest.param("collectors: {pump: true}", ["tank", "pump"], id="true turns it on"),
        pytest.param("collectors: {pump: }", ["tank", "pump"], id="so does its bare name"),
        pytest.param("collectors: {tank: false}", [], id="false turns it off"),
        pytest.param("collectors: {tank: {enabled: false, interval: 1s}}", [], id="enabled: false turns it off"),
        pytest.param("collectors: {missing: false}", ["tank"], id="one that cannot be loaded can be turned off"),
        pytest.param("collectors: {others: false}", [], id="without the others nothing runs"),
        pytest.param("collectors: {others: false, pump: {}}", ["pump"], id="but those that are named"),
        pytest.param("collectors: {pump: {}, tank: {}}", ["tank", "pump"], id="the order is the table's"),
    ],
)
def test_which_collectors_run(tmp_path, text: str, names: list[str]) -> None:
    assert running(tmp_path, text) == names


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("collectors: {tnak: {}}", "collectors.tnak: no such collector; did you mean 'tank'?"),
        ("collectors: {tnak: false}", "collectors.tnak: no such collector; did you mean 'tank'?"),
        ("collectors: {zzz: {}}", "collectors.zzz: no such collector; there are tank, pump, missing"),
        ("collectors: {tank: off}",
         "collectors.tank: is not a truth value here; write false, or options as {option: value}"),
        ("collectors: {tank: [1]}", "collectors.tank: found a list; write {option: value}, true or false"),
        ("collectors: [tank]", "collectors: found no mapping; write collectors: {name: {option: value}}"),
        ("collectors: {others: off}", "collectors.others: 'off' is not a truth value here; write false"),
        ("collectors: {tank: {enabled: off}}", "collectors.tank.enabled: 'off' is not a truth value here; write false"),
        ("collectors: {tank: {jiter: 1s}}", "collectors.tank.jiter: no such option; did you mean 'jitter'?"),
        ("collectors: {tank: {jitter: 1}}", "collectors.tank.jitter: '1' has no unit; write it like 90s, 5m or 1h30m"),
        ("collectors: {tank: {interval: 10ms}}", "collectors.tank.interval: '10ms' is below the least allowed, 100ms"),
        ("collectors: {pump: {interval: 9s}}", "collectors.pump.interval: '9s' is below the least allowed, 10s"),
        ("collectors: {tank: {type: pump}}",
         ("collectors.tank.type: no such option; the options here are alarm, buffer,"
         " enabled, interval, jitter, mode, offset, valves")),
        ("collectors: {tank: {mode: exact, interval: 200ms}}",
         "collectors.tank: mode: exact takes a second; make the interval 1s or longer"),
        ("collectors: {missing: {}}",
         "collectors.missing: no_such_module_here:Nothing cannot be loaded: No module named 'no_such_module_here'"),
        ("sinks: {pipe: {}}", "sinks.pipe.url: is missing; write it like http://127.0.0.1:1 (Where it listens)"),
        ("sinks: {second: {url: x}}", "sinks.second: no such sink; there are pipe, grumpy; another name needs `type:`"),
        ("sinks: {second: {type: pip, url: x}}", "sinks.second.type: no such sink; did you mean 'pipe'?"),
        ("sinks: {grumpy: {}}", "sinks.grumpy: Grumpy does not take these options: KeyError: 'nothing'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_plugin(tmp_path, text: str, line: str) -> None:
    assert complaints(tmp_path, text) == [f"vigilhost.yaml:1: {line}"]


def test_the_errors_of_all_plugins_are_said_at_once(tmp_path) -> None:
    text = "collectors:\n  tank: {alarm: 0%}\n  pmp: {}\nsinks:\n  pipe:\n    retry: no\nlisten: 1\n"
    assert [line.split(": ")[:2] for line in complaints(tmp_path, text)] == [
        ["vigilhost.yaml:2", "collectors.tank.alarm"],
        ["vigilhost.yaml:3", "collectors.pmp"],
        ["vigilhost.yaml:6", "sinks.pipe.url"],
        ["vigilhost.yaml:6", "sinks.pipe.retry"],
        ["vigilhost.yaml:7", "listen"],
    ]


def test_collectors_are_built_with_their_options_and_the_host(tmp_path) -> None:
    loaded = load_text(
        tmp_path, "paths: {proc: /host/proc, root: /host/}\ncollectors: {tank: {interval: 2s, jitter: 1s}}"
    )
    ((tank, common),) = build_collectors(loaded.settings)
    assert isinstance(tank, Collector)
    assert tank == fakes.Tank(interval=2.0, host=Host("/host/proc", "/sys", "/host"))
    assert common == CommonOptions(enabled=True, offset=0.0, jitter=1.0)


def test_every_build_makes_new_objects(tmp_path) -> None:
    settings = load_text(tmp_path, "").settings
    assert build_collectors(settings)[0][0] is not build_collectors(settings)[0][0]


def test_two_sinks_of_one_type(tmp_path) -> None:
    loaded = load_text(
        tmp_path, "sinks: {pipe: {url: a}, second: {type: pipe, url: b}, off: {type: pipe, enabled: false}}"
    )
    built = build_sinks(loaded.settings)
    assert [(name, sink.url) for name, sink in built] == [("pipe", "a"), ("second", "b")]


def test_entries_are_equal_when_they_are_configured_alike(tmp_path) -> None:
    first = load_text(tmp_path, "collectors: {pump: {interval: 60s}}").settings
    second = load_text(tmp_path, "\n# moved\ncollectors:\n  pump:\n    interval: 1m\n").settings
    third = load_text(tmp_path, "collectors: {pump: {interval: 61s}}").settings
    assert first == second
    assert first != third


def test_only_what_is_turned_on_is_imported(tmp_path) -> None:
    sys.modules.pop("tests.agent.config.fakes_off", None)
    off = Registry(noun="collector", builtin={"tank": f"{fakes.HERE}:Tank", "off": "tests.agent.config.fakes_off:Off"},
                   common=CommonOptions, off_by_default=frozenset({"off"}))  # fmt: skip
    from agent.config import load

    (tmp_path / "v.yaml").write_text("")
    load(str(tmp_path / "v.yaml"), registries={**fakes.REGISTRIES, "collectors": off})
    assert "tests.agent.config.fakes_off" not in sys.modules


def test_other_packages_offer_collectors_by_entry_point(tmp_path, monkeypatch) -> None:
    package = tmp_path / "acme-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[test.collectors]\nacme = {fakes.HERE}:Pump\nwrong = {fakes.HERE}:HERE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    _entry_points.cache_clear()
    table = Registry(noun="collector", builtin={}, common=CommonOptions, group="test.collectors")
    assert table.names() == ["acme", "wrong"]
    assert table.find("acme") is fakes.Pump
    with pytest.raises(ValueError, match="is not a dataclass; its options are dataclass fields"):
        table.find("wrong")
    _entry_points.cache_clear()


def test_the_entry_points_are_not_looked_up_for_names_that_are_known() -> None:
    _entry_points.cache_clear()
    COLLECTORS.find(next(iter(COLLECTORS.builtin)))
    assert _entry_points.cache_info().currsize == 0


@pytest.mark.parametrize("section", REGISTRIES)
def test_every_plugin_of_our_tables_is_found(section: str) -> None:
    registry = REGISTRIES[section]
    for name in registry.builtin:
        found = registry.find(name)
        assert getattr(found, "kind" if section == "receivers" else "name") == name
    assert registry.off_by_default <= registry.builtin.keys()


def test_an_error_is_found_before_the_agent_is_built(tmp_path) -> None:
    with pytest.raises(ConfigError, match="exact takes a second"):
        load_text(tmp_path, "collectors: {tank: {mode: exact, interval: 500ms}}")
