"""Programs of the operator around a run: an app is stopped before and started again after it, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from backup import children
from backup.children import Guard, Step
from backup.errors import BackupError, SourceFailed, reason
from backup.job import Hooks
from backup.redact import Redactor
from backup.trusted import check_program


class Surroundings:
    """The hooks of one run. `phase` and `warn` tell of them, as those of a run do.

    Each has a deadline of its own, not the run's: those afterwards are most wanted when that has passed.
    """

    def __init__(self, hooks: Hooks, job: str, backup: str, redact: Redactor, phase: Callable[..., None],
                 warn: Callable[[str], None]) -> None:  # fmt: skip
        self._hooks = hooks
        self._variables = {"VIGILHOST_JOB": job, "VIGILHOST_BACKUP": backup}
        self._redact = redact
        self._phase = phase
        self._warn = warn
        self._running: Guard | None = None

    @contextmanager
    def around(self, status: Callable[[], str]) -> Iterator[None]:
        """Run what belongs before and after the block. `status`: of the run, when the block has ended well."""
        how = "fail"
        try:
            self._run("before", self._hooks.before, "")
            yield
            how = status()
        finally:
            if how == "fail":
                self._run("on_error", self._hooks.on_error, how)
            self._run("after", self._hooks.after, how if how == "fail" else status())

    def stop(self, reason: str) -> None:
        """End the hook that runs now; from any thread."""
        running = self._running
        if running is not None:
            running.stop(reason)

    def _run(self, kind: str, argvs: Sequence[Sequence[str]], status: str) -> None:
        """Run them in order. Those before raise; of the others each gets its turn, and a failure is a warning."""
        for argv in argvs:
            self._phase("hook", hook=kind, program=argv[0])
            try:
                check_program(argv[0])
                self._running = Guard(self._hooks.deadline, f"hooks.{kind}: {argv[0]}")
                step = Step(tuple(argv), {**self._variables, "VIGILHOST_STATUS": status})
                children.run(step, self._running, self._redact)
            except (BackupError, OSError) as error:
                if kind == "before":
                    raise SourceFailed(f"hooks.before: {reason(error)}") from error
                self._warn(f"hooks.{kind}: {reason(error)}")
            finally:
                if self._running is not None:
                    self._running.close()
                self._running = None
