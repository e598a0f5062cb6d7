from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.alert_forwarder import Forwarder
from agent.core.clock import FakeClock
from agent.core.errors import Retryable
from agent.troubles import Troubles
from alerting.notify.message import Alert
from tests.alerting.pictures import T0, alert


@dataclass
class Cluster:
    """Notes what it is handed; fails while it is `down`."""

    resend: float = 60.0
    deadline: float = 5.0
    down: bool = False
    got: list[tuple[float, list[str]]] = field(default_factory=list)

    def forward(self, alerts: Sequence[Alert], now: float, interval: float) -> None:
        self.got.append((now - T0, [one.name for one in alerts]))
        if self.down:
            raise Retryable("nobody answers", kind="network")


async def settled(clock: FakeClock, cluster: Cluster, count: int) -> None:
    """Until so many have been handed over and the next time is waited for."""
    while len(cluster.got) < count or not clock.sleeping:
        await asyncio.sleep(0.001)


def test_what_fires_is_handed_over_at_once_and_again_at_each_resend() -> None:
    alerts: list[Alert] = []

    async def live() -> list[tuple[float, list[str]]]:
        clock, cluster = FakeClock(T0), Cluster()
        forwarder = Forwarder("am", cluster, lambda: list(alerts), 15.0, clock)
        running = asyncio.create_task(Troubles(clock, "alerting").keep_doing("forward", forwarder.turn))
        await clock.advance(100)
        alerts.append(alert("A"))
        forwarder.poke()
        await settled(clock, cluster, 1)
        await clock.advance(60)
        await settled(clock, cluster, 2)
        await clock.advance(10)
        alerts.append(alert("B"))
        forwarder.poke()
        await settled(clock, cluster, 3)
        running.cancel()
        forwarder.close()
        return cluster.got

    assert asyncio.run(live()) == [(100, ["A"]), (160, ["A"]), (170, ["A", "B"])]


def test_one_that_is_down_is_remembered_and_gets_everything_the_next_time() -> None:
    async def live() -> tuple[str, str, int]:
        clock, cluster = FakeClock(T0), Cluster(down=True)
        forwarder = Forwarder("am", cluster, lambda: [alert("A")], 15.0, clock)
        running = asyncio.create_task(Troubles(clock, "alerting").keep_doing("forward", forwarder.turn))
        await settled(clock, cluster, 1)
        down, cluster.down = forwarder.error, False
        await clock.advance(60)
        await settled(clock, cluster, 2)
        running.cancel()
        forwarder.close()
        return down, forwarder.error, len(cluster.got)

    assert asyncio.run(live()) == ("nobody answers", "", 2)
