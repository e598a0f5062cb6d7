"""What every collector says of the fixture hosts, in both dialects, as files that reviewers read in the diff.

`python -m tests.golden.update` writes them anew. Lines are sorted, because directories are listed in another order on
another file system; the first lines say which collectors had nothing to read and which targets failed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from agent.cli.dashboards_cmd import as_text, made
from agent.config import Loaded, Settings
from agent.dashboards.queries import DIALECTS as DASHBOARDS
from agent.influx.plan import Retention, groups_of, plan
from sinks.line_protocol import Encoder
from sinks.prometheus import Exposition
from tests.collectors import every
from tests.collectors.hosts import NAMES, HostTree

HERE = Path(__file__).parent
DIALECTS = ("influx", "prom")

# Their tables have a column or a row for each of the 64 CPUs and would be half of the file; `small` shows them.
_TOO_LONG = {"big": frozenset({"interrupts", "schedstat", "softirqs", "softnet"})}


def golden_files() -> dict[str, str]:
    """File name to content, of all hosts."""
    files = {}
    for host in NAMES:
        with tempfile.TemporaryDirectory() as directory:
            tree = HostTree(host, Path(directory))
            names = [name for name in every.NAMES if name not in _TOO_LONG.get(host, ())]
            _, later = every.run_twice(tree, names)
            remarks = _remarks(later, str(tree.path))
        files[f"{host}.influx"] = remarks + _influx(later, host)
        files[f"{host}.prom"] = remarks + _prom(later)
    return files


def _remarks(run: every.Run, root: str) -> str:
    lines = [f"# {name}: {reason}" for name, reason in run.silent.items()]
    lines += [f"# {tick.collector}: {target}: {reason}" for tick in run.ticks for target, reason in tick.failed]
    return "".join(f"{line.replace(root, '')}\n" for line in sorted(lines))


def _influx(run: every.Run, host: str) -> str:
    return "".join(f"{line}\n" for line in sorted(Encoder({"host": host}).encode(run.ticks)))


def _prom(run: every.Run) -> str:
    """The exposition, with the samples of each family sorted."""
    shown: list[str] = []
    samples: list[str] = []
    for line in [*Exposition().render(run.ticks).splitlines(), "#"]:
        if line.startswith("#"):
            shown += sorted(samples)
            samples.clear()
            shown.append(line)
        else:
            samples.append(line)
    return "".join(f"{line}\n" for line in shown[:-1])


def made_files() -> dict[str, str]:
    """File name to content of what is made from the declarations alone: Flux and dashboards."""
    tasks = plan("hosts", Retention(), groups_of(Settings())).tasks
    flux = {f"downsample_{task.name.rpartition('_')[2]}.flux": task.flux for task in tasks}
    nothing = Loaded(Settings(), [], [])
    return flux | {
        "dashboard_vigilhost.json": as_text(made("vigilhost", nothing)),
        "dashboard_queries.txt": "".join(_queries(name, made(name, nothing)) for name in sorted(DASHBOARDS)),
    }


def _queries(dialect: str, document: dict[str, Any]) -> str:
    """What each panel asks, one query a paragraph: in all else the dashboards are alike."""
    lines = [f"== {dialect}"]
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            lines += [f"-- {panel['title']}: {target.get('legendFormat') or target.get('alias') or target['refId']}"]
            lines += [target.get("expr") or target["query"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    for name, content in (golden_files() | made_files()).items():
        HERE.joinpath(name).write_text(content)


if __name__ == "__main__":
    main()
