"""Any program whose output is the backup."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent.core.options import option, required
from agent.core.secrets import Secret
from agent.core.units import Bytes
from backup.assertions import Assertion, Outcome, judge_all
from backup.children import Step
from backup.errors import BackupError, Damaged, Refused, Stopped
from backup.extract import copy, fresh
from backup.source import Facts, Restored, Stream, Work
from backup.trusted import check_program

NAME = "output"


def _check_extension(text: str) -> None:
    if not text.isalnum() or not text.isascii():
        raise ValueError("is no extension; use letters and digits")


@dataclass(slots=True)
class Command:
    """Backs up what a program prints. It fails unless the program exits 0 and prints enough.

    Without a shell: for pipes between programs write a script, which must belong to root or the worker's user.
    """

    argv: list[str] = required("Program (absolute path) and arguments.", example="[/usr/local/bin/dump-it]")
    environment: dict[str, Secret] = option(dict, "Variables that it gets, beside PATH and its user's.")
    extension: str = option("bin", "What kind of file the archive is.", check=_check_extension)
    min_bytes: Bytes = option(1, "Least that it prints, before compression.", minimum=1)
    check_argv: list[str] = option(list, "Program that reads a backup and exits 0 when it is right.",
                                   example="[/usr/bin/pg_restore, -f, /dev/null]")  # fmt: skip
    restore_argv: list[str] = option(list, "Program that reads a backup and restores it; its last argument is where.")
    drill_argv: list[str] = option(list, "Program that reads a backup and exits 0 when it could be restored; "
                                   "file_exists looks below $VIGILHOST_SCRATCH.")  # fmt: skip

    drills_apart: ClassVar[bool] = False  # its program is the job's own, and may need more

    def __post_init__(self) -> None:
        for name in ("argv", "check_argv", "restore_argv", "drill_argv"):
            argv = getattr(self, name)
            if (argv or name == "argv") and not (argv and argv[0].startswith("/")):
                raise ValueError(f"{name}: begins with the absolute path of a program")

    def describe(self, work: Work) -> Facts:
        check_program(self.argv[0])
        return Facts(notes={"command": work.redact(" ".join(self.argv))})

    def streams(self, work: Work) -> Iterator[Stream]:
        check_program(self.argv[0])
        yield Stream(NAME, self.extension, (Step(tuple(self.argv), self._variables(), work.user),),
                     least_bytes=self.min_bytes)  # fmt: skip

    def decode_check(self, name: str, plain: int, work: Work) -> None:
        if self.check_argv:
            self._feed(self.check_argv, plain, work, Damaged)

    def restore(self, name: str, plain: int, to: str, work: Work, allow: frozenset[str]) -> Restored:
        """Give it to `restore_argv`, or write it to a file in the new directory `to`. `allow`: `force`."""
        if self.restore_argv:
            self._feed([*self.restore_argv, to], plain, work, BackupError)
            return Restored(1)
        with fresh(to, force="force" in allow) as directory:
            size = copy(plain, os.path.join(directory, f"{name}.{self.extension}"))
        return Restored(1, size)

    def drill(self, name: str, plain: int, work: Work, assertions: Sequence[Assertion],
              estimates: Mapping[str, int]) -> list[Outcome]:  # fmt: skip
        """Give it to `drill_argv`, and look for what is asserted in the directory that it may restore into."""
        if not self.drill_argv:
            raise Refused("source.command.drill_argv: is not set; a drill needs a program that restores")
        try:
            self._feed(self.drill_argv, plain, work, BackupError, {"VIGILHOST_SCRATCH": work.scratch})
        except (Refused, Stopped):
            raise
        except BackupError as error:
            return [Outcome("drill_argv exits 0", is_met=False, found=str(error))]
        return [Outcome("drill_argv exits 0", is_met=True), *judge_all(assertions, root=work.scratch)]

    def sweep(self, work: Work) -> list[str]:
        return []

    def recipe(self, name: str) -> str:
        return f"cat > {NAME}.{self.extension}"

    def _variables(self) -> dict[str, str]:
        return {name: value.reveal() for name, value in self.environment.items()}

    def _feed(self, argv: Sequence[str], plain: int, work: Work, kind: type[BackupError],
              more: Mapping[str, str] | None = None) -> None:  # fmt: skip
        check_program(argv[0])
        work.run(*argv, stdin=plain, environment={**self._variables(), **(more or {})}, kind=kind)
