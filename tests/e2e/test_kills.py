from __future__ import annotations

import pytest

from tests.proof import kills
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.victoriametrics import VictoriaMetrics


@pytest.mark.server("victoriametrics", "influxdb")
def test_twenty_kills_lose_nothing_and_show_nothing_twice(
    victoriametrics: VictoriaMetrics, influxdb1: InfluxDB1
) -> None:
    kills.run(victoriametrics, influxdb1, rounds=20, seed=1)
