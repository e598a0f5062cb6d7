from __future__ import annotations

import asyncio

from agent.core.clock import FakeClock
from agent.core.secrets import Secret
from agent.healthchecks import address
from agent.heartbeat import Heartbeat
from agent.troubles import Troubles
from alerting.options import HeartbeatOptions
from tests.servers.scripted_http import Reply, ScriptedHttp


def test_the_suffix_stands_behind_the_path_and_before_the_query() -> None:
    assert address("https://hc.example/ping/x?rid=1", "fail") == "https://hc.example/ping/x/fail?rid=1"
    assert address("https://hc.example/ping/x/", "start") == "https://hc.example/ping/x/start"
    assert address("https://hc.example/ping/x", "") == "https://hc.example/ping/x"


def pings(*, suffixes: bool = True, script: tuple[Reply, ...] = ()) -> tuple[list[tuple[str, str]], str]:
    """Three intervals: well, in trouble, well again; what was asked for, and the last error."""
    troubles = [[], ["receiver ops: no answer"], []]

    async def live(hook: ScriptedHttp) -> str:
        clock = FakeClock()
        options = HeartbeatOptions(Secret(f"{hook.url}/p"), interval=60.0, suffixes=suffixes)
        heartbeat = Heartbeat(options, lambda: troubles.pop(0), clock)
        running = asyncio.create_task(Troubles(clock, "alerting").keep_doing("heartbeat", heartbeat.turn))
        wanted = 0
        for expected in (int(suffixes), 1, int(suffixes), 1):
            wanted += expected
            await asyncio.to_thread(hook.wait_for, wanted)
            while not clock.sleeping:  # the ping has come back and the next one is waited for
                await asyncio.sleep(0.001)
            if troubles:
                await clock.advance(60.0)
        running.cancel()
        heartbeat.close()
        return heartbeat.error

    with ScriptedHttp(Reply(200)) as hook:
        hook.answer(*script)
        error = asyncio.run(live(hook))
        return [(request.path, request.text) for request in hook.requests], error


def test_it_pings_at_the_start_while_all_is_well_and_says_what_is_not() -> None:
    found, error = pings()
    assert found == [("/p/start", ""), ("/p", ""), ("/p/fail", "receiver ops: no answer"), ("/p", "")]
    assert error == ""


def test_a_service_that_knows_only_one_address_hears_nothing_in_trouble() -> None:
    assert pings(suffixes=False)[0] == [("/p", ""), ("/p", "")]


def test_a_ping_that_fails_is_remembered_without_the_address_and_tried_at_the_next_interval() -> None:
    found, error = pings(suffixes=False, script=(Reply(200), Reply(404, "no such check: /p")))
    assert len(found) == 2
    assert "http status 404" in error
