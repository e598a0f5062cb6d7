"""An upgrade while the host is busy: what was accepted arrives, and what was known is still known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.packaging.built import repacked
from tests.proof.samples import Key, Values, in_victoriametrics, journaled, missing_in_victoriametrics
from tests.servers.http_call import call, must
from tests.servers.process import wait_until
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.victoriametrics import VictoriaMetrics
from tests.systemd.installed import SERVICE, Installed

OLD = "0.0.1"
HOST = "upgraded"
CONFIG = """\
hostname: {host}
collectors: {{others: false, agent: {{interval: 1s}}, cpu: {{}}, memory: {{}}, net: {{interval: 1s}}}}
sinks:
  store: {{type: influxdb, url: "http://127.0.0.1:{port}", bucket: none, flush_interval: 1s}}
"""
RULES = "groups: [{name: mine, rules: [{alert: AlwaysThere, expr: vector(1), labels: {severity: info}}]}]\n"
BUSY = ("systemd-run", "--quiet", "--unit=busy", "sh", "-c", "while :; do :; done")
SKIPPED = 'vigilhost_collector_skipped_slots_total{collector="memory"}'
_STOPPING = "MESSAGE_ID=de5b426a63be47a7b6ac3eaac82e2f6f"  # systemd's, before it asks a unit to stop
_SOME = 5  # values, seconds: enough to look at


class Upgraded(Installed):
    """What is asked of it before and after."""

    def data(self, path: str, **params: object) -> Any:
        return must(call(f"{self.url}/api/v1/{path}", params=params)).json()["data"]

    def value(self, expression: str, at: float) -> float | None:
        """Of the one series, at that time, from what the host remembers."""
        result = self.data("query", query=expression, time=at)["result"]
        return float(result[0]["value"][1]) if result else None

    def firing_since(self) -> str:
        """When the rule's alert began; empty while there is none."""
        found = [one for one in self.data("alerts")["alerts"] if one["labels"]["alertname"] == "AlwaysThere"]
        return str(found[0]["activeAt"]) if found and found[0]["state"] == "firing" else ""

    def silences(self) -> list[str]:
        return [one["id"] for one in json.loads(self.run("vigilhost", "silences", "--json"))]

    def waiting(self) -> int:
        """Records that the store has not had."""
        return int(self.health()["journal"]["readers"]["store"]["lag_records"])


def seconds_of(store: VictoriaMetrics, name: str) -> list[int]:
    return sorted({stamp // 1000 for _, _, stamp in in_victoriametrics(store, f'{{host="{HOST}",__name__="{name}"}}')})


def await_all(accepted: Values, store: VictoriaMetrics) -> None:
    def missing() -> list[Key]:
        return missing_in_victoriametrics(accepted, in_victoriametrics(store, f'{{host="{HOST}"}}'))

    wait_until(lambda: not missing(), "all that was accepted to arrive", 60, every=0.5)


def test_an_upgrade_under_load_loses_nothing_that_was_accepted_and_forgets_nothing(
    package: Path, tmp_path: Path, victoriametrics: VictoriaMetrics
) -> None:
    with Upgraded() as machine, TcpProxy(victoriametrics.port) as way:
        machine.install(repacked(package, tmp_path, OLD))
        machine.configure(CONFIG.format(host=HOST, port=machine.give(way.port)))
        machine.run("sh", "-c", "cat >/etc/vigilhost/rules.d/mine.yaml", stdin=RULES)
        machine.restart()
        sending_since_ns = time.time_ns()  # a sink is sent what is measured once it is there
        began = wait_until(machine.firing_since, "the alert to fire", 60, every=0.2)
        machine.run("vigilhost", "silence", "2h", "alertname=AlwaysThere", "-m", "an upgrade")
        silences = machine.silences()
        machine.run(*BUSY)
        way.reset()  # so that there is something to carry over
        wait_until(lambda: machine.waiting() >= _SOME, "a backlog", 60, every=0.2)
        known_at = time.time() - 2
        known = machine.value("node_memory_MemFree_bytes", known_at)
        journal = journaled(machine.path("/var/lib/vigilhost"), {"host": HOST})
        accepted = {key: values for key, values in journal.items() if key[3] > sending_since_ns}
        upgrading = time.monotonic()

        machine.install(package)
        machine.await_serving()
        started = machine.agent_event("agent.started", after=upgrading)
        assert started["VERSION"] != OLD
        way.pass_through()
        machine.run("systemctl", "stop", "busy")

        assert (machine.firing_since(), machine.silences()) == (began, silences)
        assert len(silences) == 1
        wait_until(lambda: machine.value("node_memory_MemFree_bytes", known_at) == known, "history to be rebuilt", 60)
        assert known is not None
        assert len(accepted) > 100
        await_all(accepted, victoriametrics)

        stopped_at, started_at = (
            int(event["__REALTIME_TIMESTAMP"]) / 1e6
            for event in (machine.await_event(SERVICE, _STOPPING, after=upgrading), started)
        )
        wait_until(lambda: seconds_of(victoriametrics, "mem_free")[-1] > started_at + _SOME, "readings after it", 60)
        seen = seconds_of(victoriametrics, "mem_free")
        lost = set(range(seen[0], seen[-1])) - set(seen)
        outside = [second for second in lost if not stopped_at - 1 <= second <= started_at + 1]
        skipped = (machine.value(SKIPPED, stopped_at) or 0) + (machine.value(SKIPPED, time.time()) or 0)
        assert len(outside) <= skipped + 1, f"the busy host made it skip {skipped:g} slots, but {outside} are missing"
