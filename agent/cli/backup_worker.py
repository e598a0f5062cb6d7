"""`vigilhost backup-worker JOB`: one run of a job as a process of its own, for the agent and `vigilhost backup run`.

Who starts it says where things are, so that it reads the job's own file and no other: the options of everything else
that the agent does would take it 15 MB and a quarter of a second.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agent.config.backup_jobs import load_job
from agent.core.problems import ConfigError
from agent.places import JOBS_DIRECTORY
from backup.job import check_job_name

EXIT_CONFIG = 2


def parser() -> argparse.ArgumentParser:
    """The options; people have `vigilhost backup run`, which gives them."""
    parser = argparse.ArgumentParser(
        prog="vigilhost backup-worker",
        description="Run JOB and report on standard output, a JSON object a line, the result last. Exit status: 0 ok,"
        " 1 failed, 2 configuration, 75 the job runs already.",
        allow_abbrev=False,
    )
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--drill", action="store_true", help="restore the newest backup for proof, instead")
    parser.add_argument("--config", metavar="FILE", help="the agent's configuration; not read when the next are given")
    parser.add_argument("--jobs", metavar="DIR", help=f"directory of the jobs (default: {JOBS_DIRECTORY})")
    parser.add_argument("--state-dir", metavar="DIR", help="the agent's state directory")
    parser.add_argument("--host", metavar="NAME", help="the name under which this host's backups are kept")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Do it; the exit status."""
    options = parser().parse_args(arguments)
    os.umask(0o077)
    if options.drill:
        return _drill(options)
    try:
        check_job_name(options.job)  # it leads to a file: not to one elsewhere
        job, warnings = load_job(os.path.join(options.jobs or JOBS_DIRECTORY, f"{options.job}.yaml"))
    except ConfigError as error:
        for problem in error.errors:
            print(problem, file=sys.stderr)
        return EXIT_CONFIG
    except ValueError as error:
        print(f"{options.job!r}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    host, state_dir = options.host, options.state_dir
    if host is None or state_dir is None:
        from agent.cli.config_cmd import load_or_exit

        settings = load_or_exit(options.config).settings
        host, state_dir = host or settings.hostname, state_dir or settings.state_dir
    if job.heartbeat is not None:
        from agent.backup_heartbeat import work
    else:
        from backup.worker import work

    return work(job, host=host, state_dir=os.path.abspath(state_dir))


def _drill(options: argparse.Namespace) -> int:
    from agent.cli.backup_desk import desk
    from agent.cli.backup_drill import work_drill

    at = desk(options.config, options.jobs, options.state_dir, options.host)
    return work_drill(at, at.job(options.job))
