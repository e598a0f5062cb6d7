"""The child's side of the Apprise notifier: reads one message as JSON, sends it, tells by its exit status how it went.

Run as a file by any Python that has apprise, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import sys

FINAL = {
    69: "apprise is not installed for this Python",
    65: "apprise does not understand the address",
    127: "cannot run",
}


def main() -> int:
    """Send the message of standard input: 0 when it went out, 65 and 69 as in FINAL, 75 when trying again may help."""
    message = json.load(sys.stdin)
    try:
        import apprise  # type: ignore[import-not-found]
    except ImportError:
        return 69
    sender = apprise.Apprise()
    if not sender.add(message["url"]):
        return 65
    return 0 if sender.notify(body=message["body"], title=message["title"], notify_type=message["type"]) else 75


if __name__ == "__main__":
    sys.exit(main())
