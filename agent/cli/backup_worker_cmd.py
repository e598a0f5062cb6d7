"""`vigilhost backup-worker JOB`: one run of a job as a process of its own, for the agent and `vigilhost backup run`."""

from __future__ import annotations

import sys

import click

from agent.cli.backup_desk import Desk, with_desk


@click.command("backup-worker", hidden=True)
@click.argument("job")
@click.option("--drill", "is_drill", is_flag=True, help="Restore the newest backup for proof, instead.")
@with_desk
def backup_worker(at: Desk, job: str, is_drill: bool) -> None:
    """Run JOB and report on standard output, a JSON object a line, the result last.

    Exit status 0 ok, 1 failed, 2 configuration, 75 the job runs already.
    """
    one = at.job(job)
    if is_drill:
        from agent.cli.backup_drill import work_drill

        sys.exit(work_drill(at, one))
    from backup.worker import work

    sys.exit(work(one, host=at.host, state_dir=at.state_dir))
