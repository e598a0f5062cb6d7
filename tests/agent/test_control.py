from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.control import ControlError, ControlSocket, ask


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[ControlSocket]:
    async def echo(request: Mapping[str, Any]) -> Any:
        return request.get("text")

    async def refuse(_: Mapping[str, Any]) -> Any:
        raise ControlError("no such thing; there are a, b")

    control = ControlSocket(str(directory), {"echo": echo, "refuse": refuse}, changing=frozenset({"refuse"}))
    await control.start()
    yield control
    await control.stop()


async def test_a_command_is_answered(tmp_path: Path) -> None:
    async with listening(tmp_path) as control:
        assert await asyncio.to_thread(ask, control.path, "echo", text="hé\n") == "hé\n"


async def test_a_refusal_is_the_persons_to_read(tmp_path: Path) -> None:
    async with listening(tmp_path) as control:
        with pytest.raises(ControlError, match="no such thing; there are a, b"):
            await asyncio.to_thread(ask, control.path, "refuse")


async def test_an_unknown_command_names_those_there_are(tmp_path: Path) -> None:
    async with listening(tmp_path) as control:
        with pytest.raises(ControlError, match="unknown command; there are echo, refuse"):
            await asyncio.to_thread(ask, control.path, "stauts")


@pytest.mark.parametrize(
    "garbage", [b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"command": []}\n', b"x" * 200_000]
)
async def test_garbage_is_answered_or_hung_up_on_and_the_next_is_served(tmp_path: Path, garbage: bytes) -> None:
    def speak(path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)

    async with listening(tmp_path) as control:
        try:
            answer = await asyncio.to_thread(speak, control.path)
        except ConnectionError:
            answer = b""
        assert not answer or "unknown command" in json.loads(answer)["error"]
        assert await asyncio.to_thread(ask, control.path, "echo", text=1) == 1


async def test_only_owner_and_group_may_connect(tmp_path: Path) -> None:
    async with listening(tmp_path) as control:
        assert stat.S_IMODE(os.stat(control.path).st_mode) == 0o660
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_a_socket_left_by_an_agent_that_died_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    async with listening(tmp_path) as control:
        assert await asyncio.to_thread(ask, control.path, "echo", text=2) == 2


async def test_a_deep_directory_is_no_obstacle(tmp_path: Path) -> None:
    async with listening(tmp_path / ("d" * 120)) as control:
        assert len(control.path) > 108, "longer than a socket address can be"
        assert await asyncio.to_thread(ask, control.path, "echo", text=3) == 3
