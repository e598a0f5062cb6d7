"""What a backup costs beside the tools it is made of: `python -m benchmarks.backup`.

Ours is a whole worker run, the command that the agent starts: a new process, the job's file read, tar or pg_dump, zstd,
the checksum, a synced archive and its manifest. The others do only their part of that. All run once a round, at the
same priority, on the same files, which the page cache holds; a ratio is taken within each round, and the median counts.
Verification is not in it, because the others do none: what it adds is a line of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.sample_files import fill_files
from tests.servers.postgresql import PostgreSQL

MIB = 1 << 20
# A worker takes this of its own accord. It would also take nice 19, which nobody has here: on a machine with other work
# the kernel gives a lone busy program, as pg_dump -Fc is, far less of a processor then than it gives a pipeline.
IDLE_DISK = ["ionice", "-c", "3"]
WORKER = [sys.executable, "-P", "-m", "agent.cli.main", "backup-worker"]
OURS, GNU, HASHED, RESTIC = "ours, files", "tar | zstd -3 -T2, sync", "the same | sha256sum", "restic, first backup"
VERIFIED, OURS_PG, PG_DUMP = "ours, files, verification 2", "ours, postgresql", "pg_dump -Fc, sync"
PG_ZSTD = "pg_dump -Fc -Z0 | zstd -3 -T2, sync"
TABLES = """
CREATE TABLE events AS SELECT n AS id, timestamptz '2026-01-01' + n * interval '1 s' AS at, md5(n::text) AS who,
'status=ok path=/orders/' || n % 9973 || ' agent=' || n % 31 AS what, (n * 7919 % 100000) / 100.0 AS amount
FROM generate_series(1, {rows}::bigint) n;
CREATE TABLE documents AS SELECT n AS id, timestamptz '2026-01-01' + n * interval '1 s' AS at,
'{{"request": "' || md5(n::text) || '", "path": "/orders/' || n * 31 % 9973 || '/items", "ms": ' || n * 104729 % 1009
|| ', "agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/' || n % 31 || '", "items": [' || n * 3 % 1009 || ', '
|| n * 5 % 2003 || ', ' || n * 7 % 4001 || '], "session": "' || md5((n / 9)::text) || '", "from": "10.' || n % 7 || '.'
|| n * 13 % 251 || '.' || n * 17 % 241 || '", "note": "signed by user ' || n * 11 % 7919 || '"}}' AS document
FROM generate_series(1, {documents}::bigint) n;
"""
REPOSITORY = Path(__file__).parents[1]
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: seconds, and bytes."""

    wall: float
    cpu: float
    stored: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the report; `is_met` compares `value` with `target`."""

    what: str
    value: float
    target: float
    unit: str
    is_most: bool = True

    @property
    def is_met(self) -> bool:
        return self.value <= self.target if self.is_most else self.value >= self.target


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless a target is missed and `--strict` was given."""
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="vh-bench-", dir=options.directory) as directory:
        bench = Bench(Path(directory), options.megabytes, options.files)
        with PostgreSQL() as server:
            bench.fill_database(server, options.rows)
            costs = bench.rounds(options.rounds, server)
        worker_rss, tree_rss = bench.memory()
    verdicts = judge(costs, worker_rss, tree_rss)
    if options.json:
        medians = {name: asdict(median(runs)) for name, runs in costs.items()}
        rounds = {name: [asdict(one) for one in runs] for name, runs in costs.items()}
        print(
            json.dumps({"medians": medians, "targets": [asdict(one) for one in verdicts], "rounds": rounds}, indent=1)
        )
    else:
        show_costs(costs)
        show_targets(verdicts)
    return 1 if options.strict and not all(one.is_met for one in verdicts) else 0


class Bench:
    """Files and a database to back up, and the ways to do it; each run finds an empty place to write to."""

    def __init__(self, directory: Path, megabytes: int, files: Path | None) -> None:
        self.directory = directory
        self.source = files or directory / "source"
        self.out = directory / "out"
        self.job = directory / "backup.d" / "job.yaml"
        self.job.parent.mkdir()
        if files is None:
            fill_files(self.source, megabytes)

    def fill_database(self, server: PostgreSQL, rows: int) -> None:
        """A table of so many short rows and one of a third as many long ones, in a database `bench`."""
        server.sql("CREATE DATABASE bench")
        server.sql(TABLES.format(rows=rows, documents=rows // 3), "bench")
        server.sql("VACUUM (FREEZE, ANALYZE)", "bench")  # or the server does it itself beside some of the runs
        os.sync()  # or the first who is measured waits for the disk to take what was filled

    def rounds(self, count: int, server: PostgreSQL) -> dict[str, list[Cost]]:
        """Each way once a round; what a noisy machine does to one it does to all.

        Who is next is drawn anew for each round, so that nobody always follows the one that leaves most behind.
        """
        ways: dict[str, Callable[[], Cost]] = {
            OURS: self.ours_files,
            GNU: self.tar_zstd,
            HASHED: lambda: self.tar_zstd("| tee >(sha256sum > {to}.sha256)"),
            RESTIC: self.restic,
            VERIFIED: lambda: self.ours_files(level=2),
            OURS_PG: lambda: self.ours_postgresql(server),
            PG_ZSTD: lambda: self.pg_dump(server, "-Fc -Z0", "| zstd -3 -T2 -q"),
            PG_DUMP: lambda: self.pg_dump(server, "-Fc"),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        chance = random.Random(1)
        for _ in range(count):
            for name, way in chance.sample(list(ways.items()), len(ways)):
                shutil.rmtree(self.out, ignore_errors=True)
                self.out.mkdir()
                os.sync()  # what the one before left to the disk is not for this one to wait for
                costs[name].append(way())
        return costs

    def ours_files(self, level: int = 0) -> Cost:
        return self._run(self.worker({"files": {"paths": [str(self.source)]}}, level))

    def tar_zstd(self, more: str = "") -> Cost:
        to, source = shlex.quote(str(self.out / "files.tar.zst")), shlex.quote(f".{self.source}")
        pipeline = f"tar -C / -c {source} | zstd -3 -T2 -q {more.format(to=to)} > {to}"
        return self._run(["bash", "-c", f"set -o pipefail; {pipeline} && sync {to}"])

    def restic(self) -> Cost:
        repository = str(self.out / "repository")
        environment = {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": repository}
        subprocess.run(["restic", "init", "--no-cache", "-q"], env={**os.environ, **environment}, check=True)
        return self._run(["restic", "backup", "--no-cache", "-q", str(self.source)], environment)

    def ours_postgresql(self, server: PostgreSQL) -> Cost:
        return self._run(self.worker({"postgresql": {
            "server": str(server.socket_dir), "port": server.port, "user": "postgres", "databases": ["bench"],
            "globals": False,
        }}))  # fmt: skip

    def pg_dump(self, server: PostgreSQL, how: str, then: str = "") -> Cost:
        to = shlex.quote(str(self.out / "bench.dump"))
        where = shlex.quote(f"{server.socket_dsn} dbname=bench")
        dump = shlex.quote(server.bin("pg_dump"))
        return self._run(["bash", "-c", f"set -o pipefail; {dump} {how} -d {where} {then} > {to} && sync {to}"])

    def worker(self, source: dict[str, object], level: int = 0) -> list[str]:
        """The command line of a worker, as the agent has it; verification 0, as the others do none."""
        job = {"source": source, "targets": {"local": {"path": str(self.out)}}, "verification": {"level": level},
               "retention": "forever", "limits": {"nice": 0}}  # fmt: skip
        self.job.write_text(yaml.safe_dump(job))
        self.job.chmod(0o600)
        return [*WORKER, "--host=bench", f"--jobs={self.job.parent}", f"--state-dir={self.directory / 'state'}", "job"]

    def memory(self) -> tuple[int, int]:
        """Most bytes that the worker had, and that it and its programs had together; measured in a run of its own."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        child = self._start(self.worker({"files": {"paths": [str(self.source)]}}), {})
        most_worker = most_tree = 0
        worker = psutil.Process(child.pid)
        while child.poll() is None:
            sizes = [_unshared(one) for one in (worker, *worker.children(recursive=True))]
            most_worker, most_tree = max(most_worker, _resident(worker)), max(most_tree, sum(sizes))
            time.sleep(LOOK_S)
        assert child.stderr is not None
        _check(child, child.stderr.read())
        return most_worker, most_tree

    def _run(self, argv: Sequence[str], environment: dict[str, str] | None = None) -> Cost:
        began = time.monotonic()
        child = self._start([*IDLE_DISK, *argv], environment or {})
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        _check(child, said)
        stored = sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file())
        return Cost(wall, usage.ru_utime + usage.ru_stime, stored)

    def _start(self, argv: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment})  # fmt: skip


def median(runs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(one.wall for one in runs), statistics.median(one.cpu for one in runs),
        round(statistics.median(one.stored for one in runs)),
    )  # fmt: skip


def judge(costs: dict[str, list[Cost]], worker_rss: int, tree_rss: int) -> list[Verdict]:
    """The targets that a release has to meet."""

    def ratio(one: str, other: str, of: Callable[[Cost], float]) -> float:
        return statistics.median(of(a) / of(b) for a, b in zip(costs[one], costs[other], strict=True))

    def wall(cost: Cost) -> float:
        return cost.wall

    return [
        Verdict("files: wall, ours / tar | zstd", ratio(OURS, GNU, wall), 1.15, "x"),
        Verdict("files: CPU, ours / tar | zstd", ratio(OURS, GNU, lambda cost: cost.cpu), 1.2, "x"),
        Verdict("files: wall, ours / restic's first", ratio(OURS, RESTIC, wall), 0.5, "x"),
        Verdict("postgresql: wall, pg_dump -Fc / ours", ratio(PG_DUMP, OURS_PG, wall), 3.5, "x", is_most=False),
        Verdict("memory of the worker", worker_rss / MIB, 40, "MiB"),
        Verdict("memory of the worker and its programs", tree_rss / MIB, 130, "MiB"),
    ]


def show_costs(costs: dict[str, list[Cost]]) -> None:
    """The medians, for people."""
    console = Console()
    console.print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}")
    table = Table("", "wall s", "CPU s", "stored MiB", title="medians")
    for name, runs in costs.items():
        one = median(runs)
        table.add_row(name, f"{one.wall:.2f}", f"{one.cpu:.2f}", f"{one.stored / MIB:.1f}")
    console.print(table)


def show_targets(verdicts: Sequence[Verdict]) -> None:
    """What is measured beside what has to be."""
    table = Table("", "measured", "target", "", title="targets")
    for verdict in verdicts:
        sign = "<=" if verdict.is_most else ">="
        table.add_row(verdict.what, f"{verdict.value:.2f} {verdict.unit}", f"{sign} {verdict.target:g}",
                      "met" if verdict.is_met else "[bold red]missed")  # fmt: skip
    Console().print(table)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _unshared(process: psutil.Process) -> int:
    """Bytes of memory with shared pages counted once over all that share them."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _check(child: subprocess.Popen[bytes], said: bytes) -> None:
    if child.returncode != 0:
        raise SystemExit(f"{child.args!r} exited {child.returncode}: {said.decode('utf-8', 'replace')}")


def _directory(text: str) -> Path:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return Path(text).resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each; medians are compared")
    parser.add_argument(
        "--megabytes", type=int, default=2048, help="size of the files, as benchmarks/sample_files.py has them"
    )
    parser.add_argument("--files", type=_directory, metavar="DIR", help="back up what is there instead")
    parser.add_argument(
        "--rows",
        type=int,
        default=6_000_000,
        help="short rows of the database; a third as many are long",
    )
    parser.add_argument("--directory", default="/var/tmp", help="where: a disk, not memory")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
