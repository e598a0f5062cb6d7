"""The command `vigilhost`.

`run` is the daemon, `backup-worker` what it starts for a backup: they take a way of their own past click and rich,
which would cost them 10 MB; every other command is a click command in a module of this package, imported when called.
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
    if sys.argv[1:2] == ["backup-worker"]:
        from agent.cli import backup_worker

        sys.exit(backup_worker.run(sys.argv[2:]))
    from agent.cli.group import cli

    cli(prog_name="vigilhost")


if __name__ == "__main__":
    main()
