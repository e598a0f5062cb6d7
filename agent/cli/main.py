"""The command `vigilhost`.

`run` is the daemon and takes a way of its own past click and rich, which would cost it 10 MB; every other command is a
click command in a module of this package, imported when it is called.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command."""
    if sys.argv[1:2] == ["run"]:
        # structlog imports rich when it is there, 5 MB and 40 ms, for tracebacks the daemon does not print.
        sys.modules["rich"] = None  # type: ignore[assignment]
        from agent.cli.run import run

        sys.exit(run(sys.argv[2:]))
    from agent.cli.group import cli

    cli(prog_name="vigilhost")


if __name__ == "__main__":
    main()
