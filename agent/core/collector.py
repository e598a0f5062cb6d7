"""What a collector is: a Protocol, so that plugins extend nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol, runtime_checkable

from agent.core.model import Failed, Group, Reading


@runtime_checkable
class Collector(Protocol):
    """Measures one source. Options are dataclass fields made with `agent.core.options.option`; state is attributes.

    Optional attributes: `own_lane: ClassVar[bool]` is True where `collect` may wait long for someone else (network,
    scripts), so it gets a thread of its own; `timeout: Seconds` is the deadline of one `collect`; `close()` gives
    descriptors and children back.
    """

    name: ClassVar[str]
    groups: ClassVar[tuple[Group, ...]]  # everything it can emit; an open Group (field `*`) stands for its expansions
    interval: float  # seconds

    def collect(self) -> Iterable[Reading | Failed]:
        """Read the source now. Blocking and plain; called from one thread at a time.

        Yield a `Failed` for each target that could not be read beside others that could. Raise SourceMissing when the
        host has nothing of this kind, SourceError when the whole source cannot be read.
        """
        ...
