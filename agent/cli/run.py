"""`vigilhost run`: the daemon in the foreground. argparse, because the daemon does not import click."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config import Loaded

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The options of `run`; `vigilhost --help` and shell completion read them too."""
    parser = argparse.ArgumentParser(
        prog="vigilhost run",
        description="Measure this host until told to stop. With no configuration file, everything has a default.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="configuration file (default: /etc/vigilhost/vigilhost.yaml)")
    parser.add_argument("--state-dir", metavar="DIR", help="directory for what must survive a restart")
    parser.add_argument("--listen", metavar="ADDR", help="address and port of /metrics and /health")
    parser.add_argument("--insecure", action="store_true", help="listen off loopback although nothing protects it")
    parser.add_argument("--dry-run", action="store_true", help="print line protocol instead of sending it")
    parser.add_argument("--once", action="store_true", help="collect and send once, then end")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the daemon; the exit status: 0 stopped as asked, 1 could not run, 2 the configuration is wrong."""
    options = parser().parse_args(arguments)

    from agent import log, signals
    from agent.config import ConfigError
    from agent.core import heap
    from agent.daemon import Daemon
    from agent.http.exposure import ExposedError
    from agent.http.server import ListenError
    from agent.once import once
    from agent.statedir import StateDirError

    heap.use_one_arena()
    os.umask(0o077)
    signals.ignore(signal.SIGHUP)  # until there is an agent that can reload: it would be killed
    try:
        loaded = _load(options)
    except ConfigError as error:
        for problem in error.errors:
            _complain(str(problem))
        return EXIT_CONFIG
    log.configure(loaded.settings.log.format, loaded.settings.log.level)
    for warning in loaded.warnings:
        log.warn_of_configuration(str(warning))
    try:
        if options.once:
            return asyncio.run(once(loaded.settings))
        asyncio.run(Daemon(loaded, lambda: _load(options), is_insecure=options.insecure).run())
    except (ListenError, ExposedError, StateDirError) as error:
        _complain(f"vigilhost: {error}")
        return EXIT_FAILED
    finally:
        signals.ignore()  # a second SIGTERM must not make a clean end look like a crash
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    return EXIT_OK


def _complain(text: str) -> None:
    """To whoever started it; under systemd with the priority of an error, which its journal reads off the line."""
    print(f"<3>{text}" if "JOURNAL_STREAM" in os.environ else text, file=sys.stderr)


def _load(options: argparse.Namespace) -> Loaded:
    """The configuration with what the command line says. Raise ConfigError."""
    from agent.config import Entry, Place, load
    from agent.config.declared import defaults_of
    from agent.config.tables import SINKS

    given = {"state_dir": options.state_dir, "listen": options.listen}
    loaded = load(options.config, {name: value for name, value in given.items() if value is not None})
    if not options.dry_run:
        return loaded
    stdout = SINKS.find("stdout")
    entry = Entry("stdout", "stdout", stdout, defaults_of(stdout), SINKS.common(), Place("--dry-run"))
    return replace(loaded, settings=replace(loaded.settings, sinks={"stdout": entry}))
