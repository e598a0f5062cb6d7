"""What the service manager is told: READY, STATUS, RELOADING, STOPPING, WATCHDOG (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time

_PATIENCE_S = 0.5  # a service manager that stands still must not stop the agent with it


def notify(*assignments: str) -> bool:
    """Send `KEY=value` lines; False where no service manager listens or it takes nothing now."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_PATIENCE_S)
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


def reloading() -> bool:
    """RELOADING=1 with the monotonic time that Type=notify-reload wants."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Seconds between two WATCHDOG=1, a third of what systemd allows; None when it does not watch this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return max(1.0, int(usec) / 3_000_000)
