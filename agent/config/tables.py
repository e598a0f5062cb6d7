"""The tables of plugins that the agent's configuration has: collectors, sinks, receivers.

Apart from `agent.config.registry`, so that the worker of a backup, which has tables of its own, imports none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import alerting.notify.table
import collectors.table
import sinks.table
from agent.config.registry import Registry
from agent.core.options import option
from agent.core.units import Seconds
from alerting.options import ReceiverCommon


@dataclass(frozen=True, slots=True)
class CollectorCommon:
    """Options that every collector has beside its own."""

    enabled: bool = option(True, "Whether it runs; naming a collector turns it on.")
    offset: Seconds = option(0.0, "How long after each full interval it runs, so that not everything runs at once.")
    jitter: Seconds = option(0.0, "Most it runs later than that, by another random amount each time.")


@dataclass(frozen=True, slots=True)
class SinkCommon:
    """Options that every sink has beside its own."""

    enabled: bool = option(True, "Whether readings are sent there; naming a sink turns it on.")


# The name that the scheduler knows.
CommonOptions = CollectorCommon

COLLECTORS = Registry(
    noun="collector",
    builtin=collectors.table.BUILTIN,
    common=CollectorCommon,
    off_by_default=collectors.table.OFF_BY_DEFAULT,
    group="vigilhost.collectors",
    least={"interval": 0.1},
)
SINKS = Registry(
    noun="sink",
    builtin=sinks.table.BUILTIN,
    common=SinkCommon,
    off_by_default=frozenset(sinks.table.BUILTIN),
    has_types=True,
)
RECEIVERS = Registry(
    noun="receiver",
    builtin=alerting.notify.table.NOTIFIERS,
    common=ReceiverCommon,
    off_by_default=frozenset(alerting.notify.table.NOTIFIERS),
    group=alerting.notify.table.GROUP,
    has_types=True,
)
REGISTRIES: Mapping[str, Registry] = {"collectors": COLLECTORS, "sinks": SINKS, "receivers": RECEIVERS}
