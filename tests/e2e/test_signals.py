from __future__ import annotations

import signal

from tests.proof import signals
from tests.proof.agents import FEW_COLLECTORS, Agent
from tests.servers.scripted_http import HANG, ScriptedHttp


def test_thirty_random_sequences_of_signals_end_cleanly() -> None:
    signals.run(count=30, seed=1)


def test_a_stopped_process_goes_on_without_making_up_for_what_it_missed() -> None:
    signals.stop_and_continue(4.0)


def test_a_sink_that_hangs_does_not_hold_up_the_end() -> None:
    with ScriptedHttp(HANG) as sink:
        config = f'{FEW_COLLECTORS}\nsinks: {{influxdb: {{url: "{sink.url}", bucket: b, flush_interval: 1s}}}}'
        with Agent(config) as agent:
            sink.wait_for(1)
            agent.signal(signal.SIGTERM)
            assert agent.ended(signals.ENDS_WITHIN_S) == 0
            assert not agent.complaints()
