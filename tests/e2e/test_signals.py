from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.proof import signals
from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.servers.process import LOOPBACK
from tests.servers.scripted_http import HANG, ScriptedHttp


def test_thirty_random_sequences_of_signals_end_cleanly() -> None:
    signals.run(count=30, seed=1)


def test_a_stopped_process_goes_on_without_making_up_for_what_it_missed() -> None:
    signals.stop_and_continue(4.0)


HANGING = """sinks: {{influxdb: {{url: "{sink}", bucket: b, flush_interval: 1s}}}}
alerting:
  rules: {{directory: {rules}, defaults: false, interval: 1s}}
  receivers: {{ops: {{type: webhook, url: "{hook}", deadline: 60s}}}}
  route: {{receiver: ops, group_wait: 0s}}
"""
ALWAYS = "groups: [{name: a, rules: [{alert: Always, expr: vector(1)}]}]"


def test_a_sink_a_receiver_and_a_client_that_all_hang_do_not_hold_up_the_end(tmp_path: Path) -> None:
    (tmp_path / "always.yaml").write_text(ALWAYS)
    with ScriptedHttp(HANG) as sink, ScriptedHttp(HANG) as hook:
        config = FEW_COLLECTORS + HANGING.format(sink=sink.url, hook=hook.url, rules=tmp_path)
        with Agent(config) as agent, socket.create_connection((LOOPBACK, agent.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            sink.wait_for(1)
            hook.wait_for(1)
            agent.signal(signal.SIGTERM)
            assert agent.ended(signals.ENDS_WITHIN_S) == 0
            assert not agent.complaints()
