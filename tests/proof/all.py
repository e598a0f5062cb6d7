"""The proofs of the whole agent, one line of figures each; docs/reliability.md has them.

    python -m tests.proof.all [NAME ...] [--seed 1] [--kills 200] [--sequences 1000] [--configurations 500]
                              [--hours 24] [--minutes 30] [--scrapes 100000] [--reconnects 1000]

NAME: kills, signals, stop, reloads, throughput, outage, away, soak; all of them without one. Ends with an
AssertionError where a promise is broken.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from tests.proof import kills, reloads, signals, soak, throughput
from tests.servers.influxdb1 import InfluxDB1
from tests.servers.victoriametrics import VictoriaMetrics

STOPPED_S = 60.0
BURST_S = 6000
AWAY_MINUTES = 60.0


def proofs(options: argparse.Namespace) -> dict[str, Callable[[VictoriaMetrics, InfluxDB1], str]]:
    """By name, in the order in which they run: the quick ones first."""
    return {
        "throughput": lambda store, _: throughput.rate(store, BURST_S),
        "stop": lambda *_: signals.stop_and_continue(STOPPED_S),
        "reloads": lambda *_: reloads.run(options.configurations, options.seed),
        "away": lambda store, _: soak.sink_away(store, AWAY_MINUTES),
        "outage": lambda store, _: throughput.outage(store, options.hours),
        "kills": lambda store, old: kills.run(store, old, options.kills, options.seed),
        "signals": lambda *_: signals.run(options.sequences, options.seed),
        "soak": lambda store, _: soak.run(store, options.minutes, options.scrapes, options.reconnects),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    for name, default in (("seed", 1), ("kills", 200), ("sequences", 1000), ("configurations", 500),
                          ("scrapes", 100_000), ("reconnects", 1000)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, amount in (("hours", 24.0), ("minutes", 30.0)):
        parser.add_argument(f"--{name}", type=float, default=amount)
    options = parser.parse_args()
    known = proofs(options)
    if unknown := set(options.names) - set(known):
        parser.error(f"no such proof: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in options.names or known:
        begun = time.monotonic()
        with VictoriaMetrics() as store, InfluxDB1() as old:
            print(f"{name:<10} {known[name](store, old)} [{time.monotonic() - begun:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
