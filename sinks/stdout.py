"""Line protocol on standard output: for a look, a pipe, and `vigilhost run --dry-run`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import ClassVar

from agent.core.errors import Retryable
from agent.core.options import option
from agent.core.units import Seconds


@dataclass(slots=True)
class Stdout:
    """Prints every line."""

    name: ClassVar[str] = "stdout"

    flush_interval: Seconds = option(1.0, "Time between two writes.", minimum=0.1)
    timeout: Seconds = option(10.0, "How long one write may take (a full pipe blocks).", minimum=0.1)

    def write(self, lines: bytes) -> None:
        """See `sinks.sink.Sink`."""
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(sys.stdout.fileno(), left) :]
        except OSError as error:
            raise Retryable(f"stdout: {os.strerror(error.errno or 0).lower()}", kind="pipe") from error

    def close(self) -> None:
        """Standard output is not ours to close."""
