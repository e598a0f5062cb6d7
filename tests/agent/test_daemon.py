from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from structlog.testing import capture_logs

from agent.config import Loaded, load
from agent.control import ControlError
from agent.daemon import Daemon

if TYPE_CHECKING:
    from agent.alert_keeper import AlertKeeper


def configured(directory: Path, *lines: str) -> Loaded:
    path = directory / "vigilhost.yaml"
    path.write_text("\n".join((f"state_dir: {directory}", "collectors: {others: false}", *lines)))
    return load(str(path))


def daemon(directory: Path, texts: Sequence[Loaded]) -> Daemon:
    """One that does not run: the first of the configurations, and the second at a reload."""
    return Daemon(texts[0], lambda: texts[-1])


async def test_a_part_that_a_mistake_of_ours_ends_is_logged_and_seen_in_health(tmp_path: Path) -> None:
    agent = daemon(tmp_path, [configured(tmp_path)])

    async def trips() -> None:
        raise KeyError("gone")

    with capture_logs() as logs:
        await asyncio.wait([agent._parts.begin("backups", trips())])
        await asyncio.sleep(0)
    (line,) = [each for each in logs if each["event"] == "agent.part_ended"]
    assert (line["part"], type(line["exc_info"])) == ("backups", KeyError)
    found = agent.health()
    assert found["fallen"] == {"backups": "KeyError: 'gone'"}
    assert "part backups" in found["failing"]


async def test_a_part_that_is_ended_on_purpose_is_none_that_has_fallen(tmp_path: Path) -> None:
    agent = daemon(tmp_path, [configured(tmp_path)])
    task = agent._parts.begin("backups", asyncio.sleep(3600))
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert agent.health()["fallen"] == {}


@pytest.mark.parametrize("is_on", [True, False])
def test_alerting_is_not_turned_on_or_off_by_a_reload_that_could_not_do_it(tmp_path: Path, is_on: bool) -> None:
    texts = [configured(tmp_path, f"alerting: {{enabled: {str(each).lower()}}}") for each in (is_on, not is_on)]
    agent = daemon(tmp_path, texts)
    with pytest.raises(ControlError, match=r"^alerting\.enabled: cannot change while the agent runs; restart it$"):
        agent.reload()
    assert "alerting.enabled" in agent.reload_error
    assert agent.settings is texts[0].settings


@pytest.mark.parametrize("how", ["they are loaded", "a part has fallen"])
def test_the_agent_is_ready_when_its_rules_are_or_may_never_be(tmp_path: Path, how: str) -> None:
    agent = daemon(tmp_path, [configured(tmp_path)])
    agent._is_up = True
    keeper = SimpleNamespace(is_open=False)
    agent._alerts = cast("AlertKeeper", keeper)
    assert not agent.is_ready
    if how == "they are loaded":
        keeper.is_open = True
    else:
        agent._parts.fallen["history"] = "KeyError: 'gone'"
    assert agent.is_ready
