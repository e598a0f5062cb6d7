"""One filled history for all tests that only ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.core.clock import FakeClock
from sinks.history.history import History
from tests.agent.http.asking import END_S, Client, client_of, filled


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    found = filled(tmp_path_factory.mktemp("history"), FakeClock(END_S))
    yield found
    found.close()


@pytest.fixture
def client(history: History) -> Client:
    return client_of(history)
