from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.core.errors import SourceError, SourceMissing
from agent.core.host import Host
from agent.core.model import Reading, Value
from collectors.systemd import Systemd, parse_units
from collectors.systemd_codes import ACTIVE_CODES, LOAD_CODES, SUB_CODES
from tests.collectors.bus import Answer, StandInBus, path_of, stand_in_bus, text, units, variant
from tests.collectors.hosts import readings

MANAGER = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"

UNITS = [
    ("nginx.service", "loaded", "active", "running"),
    ("broken.service", "loaded", "failed", "failed"),
    ("gone.service", "not-found", "inactive", "dead"),
    ("strange.service", "loaded", "active", "dancing"),
    ("backup.timer", "loaded", "active", "waiting"),
    ("ssh.socket", "loaded", "active", "listening"),
    ("-.mount", "loaded", "active", "mounted"),
    ("user@0.service", "loaded", "reloading", "reload"),
]


def prop(unit: str, interface: str, name: str) -> tuple[str, ...]:
    path = MANAGER_PATH if interface == "Manager" else path_of(unit)
    return (path, "Get", f"{MANAGER}.{interface}", name)


def answers() -> dict[tuple[str, ...], Answer]:
    return {
        (MANAGER_PATH, "ListUnits"): units(UNITS),
        prop("", "Manager", "SystemState"): variant("s", "degraded"),
        prop("", "Manager", "Version"): variant("s", "252.38-1~deb12u1"),
        prop("", "Manager", "Virtualization"): variant("s", ""),
        prop("nginx.service", "Service", "Type"): variant("s", "notify"),
        prop("nginx.service", "Service", "NRestarts"): variant("u", 3),
        prop("nginx.service", "Service", "TasksCurrent"): variant("t", 9),
        prop("nginx.service", "Service", "TasksMax"): variant("t", 2**64 - 1),
        prop("nginx.service", "Unit", "ActiveEnterTimestamp"): variant("t", 1_700_000_000_250_000),
        prop("broken.service", "Service", "Type"): variant("s", "simple"),
        prop("broken.service", "Service", "NRestarts"): variant("u", 5),
        prop("broken.service", "Unit", "ActiveEnterTimestamp"): variant("t", 1_600_000_000_000_000),
        prop("backup.timer", "Timer", "LastTriggerUSec"): variant("t", 1_700_000_000_500_000),
        prop("ssh.socket", "Socket", "NAccepted"): variant("u", 7),
        prop("ssh.socket", "Socket", "NConnections"): variant("u", 1),
    }


@contextmanager
def systemd(path: Path, table: dict[tuple[str, ...], Answer] | None = None) -> Iterator[tuple[StandInBus, Host]]:
    (path / "run/systemd/system").mkdir(parents=True)
    (path / "run/dbus").mkdir(parents=True)
    with stand_in_bus(path / "run/dbus/system_bus_socket", answers() if table is None else table) as bus:
        yield bus, Host(root=str(path))


def values(collector: Systemd) -> dict[tuple[str, tuple[str, ...]], dict[str, Value]]:
    return {(name, tags): fields for name, tags, fields in readings(collector.collect())}


def test_services_are_told_as_telegraf_tells_them(tmp_path: Path) -> None:
    with systemd(tmp_path) as (_, host):
        found = values(Systemd(host=host))
    assert {tags: fields for (name, tags), fields in found.items() if name == "systemd_units"} == {
        ("nginx.service", "loaded", "active", "running"): {"load_code": 0, "active_code": 0, "sub_code": 0},
        ("broken.service", "loaded", "failed", "failed"): {"load_code": 0, "active_code": 3, "sub_code": 12},
        ("gone.service", "not-found", "inactive", "dead"): {"load_code": 2, "active_code": 2, "sub_code": 1},
        ("user@0.service", "loaded", "reloading", "reload"): {"load_code": 0, "active_code": 1, "sub_code": 5},
    }


def test_states_and_properties_are_told_as_node_exporter_tells_them(tmp_path: Path) -> None:
    with systemd(tmp_path) as (_, host):
        found = values(Systemd(host=host))
    assert found["systemd_unit_state", ("broken.service", "simple")] == {
        "active": 0, "activating": 0, "deactivating": 0, "inactive": 0, "failed": 1,
    }  # fmt: skip
    assert ("systemd_unit_state", ("backup.timer", "")) in found
    names = {tags[0] for name, tags in found if name == "systemd_unit_state"}
    assert names == {"nginx.service", "broken.service", "strange.service", "backup.timer", "ssh.socket",
                     "user@0.service"}  # fmt: skip
    assert {tags[0]: fields["units"] for (name, tags), fields in found.items() if name == "systemd_summary"} == {
        "active": 5, "activating": 0, "deactivating": 0, "inactive": 1, "failed": 1, "reloading": 1,
    }  # fmt: skip
    assert found["systemd_system", ()] == {"running": 0}
    assert found["systemd_version", ("252.38-1~deb12u1",)] == {"version": 252.38}
    assert found["systemd_virtualization", ("none",)] == {"info": 1}
    assert found["systemd_service", ("nginx.service",)] == {"restarts": 3}
    assert found["systemd_timer", ("backup.timer",)] == {"last_trigger": 1_700_000_000.5}
    assert found["systemd_socket", ("ssh.socket",)] == {"accepted": 7, "current": 1}


def test_tasks_and_start_times_are_told_when_asked(tmp_path: Path) -> None:
    with systemd(tmp_path) as (_, host):
        found = values(Systemd(host=host, tasks=True, start_times=True, restarts=False))
    assert found["systemd_service", ("nginx.service",)] == {"tasks_current": 9}
    assert found["systemd_unit_start", ("nginx.service",)] == {"start_time": 1_700_000_000.25}
    assert found["systemd_unit_start", ("broken.service",)] == {"start_time": 0}


def test_units_are_filtered_by_whole_name_and_bounded(tmp_path: Path) -> None:
    with systemd(tmp_path) as (_, host):
        some = values(Systemd(host=host, unit_include="(nginx|ssh|broken).*", unit_exclude=".*socket"))
        one = values(Systemd(host=host, max_units=1))
    assert {tags[0] for name, tags in some if name == "systemd_unit_state"} == {"nginx.service", "broken.service"}
    assert {tags[0] for name, tags in one if name == "systemd_unit_state"} == {"nginx.service"}
    assert one["systemd_summary", ("active",)] == {"units": 5}


def test_the_connection_is_kept_and_a_services_type_is_asked_once_a_state(tmp_path: Path) -> None:
    with systemd(tmp_path) as (bus, host):
        collector = Systemd(host=host)
        first = values(collector)
        bus.calls.clear()
        assert values(collector) == first
        asked = [call[-1] for call in bus.calls]
        assert "Hello" not in asked
        assert "Type" not in [call[-1] for call in bus.calls if path_of("nginx.service") == call[0]]
        bus.answers[MANAGER_PATH, "ListUnits"] = units([("nginx.service", "loaded", "inactive", "dead")])
        bus.answers[prop("nginx.service", "Service", "Type")] = variant("s", "exec")
        assert ("systemd_unit_state", ("nginx.service", "exec")) in values(collector)
        collector.close()


def test_a_bus_that_was_restarted_is_called_anew(tmp_path: Path) -> None:
    with systemd(tmp_path) as (bus, host):
        collector = Systemd(host=host)
        first = values(collector)
        bus.hang_up()
        assert values(collector) == first
        collector.close()


def test_groups_are_those_declared(tmp_path: Path) -> None:
    with systemd(tmp_path) as (_, host):
        found = [r for r in Systemd(host=host, tasks=True, start_times=True).collect() if isinstance(r, Reading)]
    assert {r.group for r in found} == set(Systemd.groups)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (("!", b"org.freedesktop.DBus.Error.AccessDenied"), "AccessDenied: the stand-in says no"),
        (("s", text("units?")), "an answer to ListUnits that is no list of units"),
    ],
)
def test_a_refusal_is_an_error_and_the_next_time_starts_afresh(tmp_path: Path, answer: Answer, message: str) -> None:
    with systemd(tmp_path, {}) as (bus, host):
        bus.answers[MANAGER_PATH, "ListUnits"] = answer
        collector = Systemd(host=host)
        with pytest.raises(SourceError, match=message):
            list(collector.collect())
        bus.answers = answers()
        assert values(collector)
        collector.close()


def test_an_older_systemd_that_lacks_properties_is_still_told(tmp_path: Path) -> None:
    with systemd(tmp_path, {(MANAGER_PATH, "ListUnits"): units(UNITS)}) as (_, host):
        found = values(Systemd(host=host))
    assert {name for name, _ in found} == {"systemd_units", "systemd_unit_state", "systemd_summary"}


def test_a_systemd_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with systemd(tmp_path) as (bus, host):
        bus.raw = lambda: b""
        with pytest.raises(SourceError, match=r"no answer within 0.2 s"):
            list(Systemd(host=host, timeout=0.2).collect())


def test_without_systemd_or_a_bus_there_is_nothing_of_this_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="this host was not started by systemd"):
        list(Systemd(host=Host(root=str(tmp_path))).collect())
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    with pytest.raises(SourceMissing, match="system_bus_socket: no such file"):
        list(Systemd(host=Host(root=str(tmp_path))).collect())


@pytest.mark.parametrize(
    ("word", "code"),
    [("running", 0), ("failed", 12), ("cleaning", 15), ("waiting", 16), ("auto-restart-queued", 0x17),
     ("plugged", 0x21), ("unmounting-sigkill", 0x38), ("abandoned", 0x50), ("active", 0x60),
     ("final-sigkill", 0x76), ("elapsed", 0xA0)],
)  # fmt: skip
def test_sub_states_have_telegrafs_numbers(word: str, code: int) -> None:
    assert SUB_CODES[word] == code


def test_state_words_have_telegrafs_numbers() -> None:
    assert [LOAD_CODES[word] for word in ("loaded", "not-found", "masked")] == [0, 2, 6]
    assert [ACTIVE_CODES[word] for word in ("active", "failed", "deactivating")] == [0, 3, 5]
    assert len(set(SUB_CODES.values())) == len(SUB_CODES)


@pytest.mark.parametrize("answer", [[], [5], [[("too", "short")]], [[None]]])
def test_what_is_no_list_of_units_is_refused(answer: list[object]) -> None:
    with pytest.raises(SourceError, match="no list of units"):
        parse_units(answer)
