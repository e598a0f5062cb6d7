"""Plugins and tables for the tests of the configuration, and short ways to read a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from agent.config import Loaded, load
from agent.config.registry import Registry
from agent.config.tables import REGISTRIES as OURS
from agent.config.tables import CollectorCommon, SinkCommon
from agent.core.host import Host
from agent.core.model import Failed, Group, Reading
from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes, Percent, Seconds

HERE = "tests.agent.config.fakes"


@dataclass
class Tank:
    """How full the tank is.

    Only the first paragraph is for the sample.
    """

    name: ClassVar[str] = "tank"
    groups: ClassVar[tuple[Group, ...]] = ()

    interval: Seconds = option(5.0, "Time between two readings.")
    alarm: Percent = option(85.0, "Level from which it is full.", minimum=1, maximum=100)
    buffer: Bytes = option(1 << 20, "Space for readings.")
    valves: list[str] = option(list, "Valves to look at.", example="[inlet, outlet]")
    mode: Literal["fast", "exact"] = option("fast", "How to measure.")
    host: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        if self.mode == "exact" and self.interval < 1:
            raise ValueError("mode: exact takes a second; make the interval 1s or longer")

    def collect(self) -> Iterable[Reading | Failed]:
        return ()


@dataclass
class Pump:
    """How fast the pump turns."""

    name: ClassVar[str] = "pump"
    groups: ClassVar[tuple[Group, ...]] = ()
    interval: Seconds = option(30.0, "Time between two readings.", minimum=10)

    def collect(self) -> Iterable[Reading | Failed]:
        return ()


@dataclass
class Pipe:
    """Where readings go."""

    name: ClassVar[str] = "pipe"
    url: str = required("Where it listens.", example="http://127.0.0.1:1")
    token: Secret | None = option(None, "What lets us in.", example="${PIPE_TOKEN}")
    retry: bool = option(True, "Whether to try again.")


@dataclass
class Grumpy:
    """Complains about everything, and tells the secret."""

    name: ClassVar[str] = "grumpy"
    token: Secret | None = option(None, "A secret.")

    def __post_init__(self) -> None:
        raise KeyError(self.token.reveal() if self.token else "nothing")


COLLECTORS = Registry(
    noun="collector",
    builtin={"tank": f"{HERE}:Tank", "pump": f"{HERE}:Pump", "missing": "no_such_module_here:Nothing"},
    common=CollectorCommon,
    off_by_default=frozenset({"pump", "missing"}),
    least={"interval": 0.1},
)
SINKS = Registry(
    noun="sink",
    builtin={"pipe": f"{HERE}:Pipe", "grumpy": f"{HERE}:Grumpy"},
    common=SinkCommon,
    off_by_default=frozenset({"pipe", "grumpy"}),
    has_types=True,
)
REGISTRIES = {"collectors": COLLECTORS, "sinks": SINKS, "receivers": OURS["receivers"]}


def load_text(
    directory: Path, text: str, *, environ: Mapping[str, str] | None = None, mode: int = 0o600, **extra: str
) -> Loaded:
    """Load `text` as vigilhost.yaml of the directory; `extra`: files of conf.d by name without `.yaml`."""
    path = directory / "vigilhost.yaml"
    path.write_text(text)
    path.chmod(mode)
    for name, more in extra.items():
        (directory / "conf.d").mkdir(exist_ok=True)
        (directory / "conf.d" / f"{name}.yaml").write_text(more)
    return load(str(path), registries=REGISTRIES, environ=environ or {})


def complaints(directory: Path, text: str, *, environ: Mapping[str, str] | None = None, **extra: str) -> list[str]:
    """What is wrong with `text`, one line each, without the directory's name; empty when nothing is."""
    from agent.config import ConfigError

    try:
        load_text(directory, text, environ=environ, **extra)
    except ConfigError as error:
        return [str(problem).replace(f"{directory}/", "") for problem in error.errors]
    return []
