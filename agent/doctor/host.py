"""The host around the agent: its clock, and what nobody watches or keeps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from agent.core.errors import SourceError
from agent.core.host import read_file
from agent.core.units import format_duration
from agent.doctor.coverage import uncovered, uncovered_directories
from agent.doctor.facts import Facts
from agent.doctor.finding import Finding
from collectors.disk import DEFAULT_IGNORE_FS
from collectors.timex import node_values, read_clock

_FAR_S = 0.1  # off its reference by this much: logs of two hosts no longer tell what came first
_ON_DEVICES = re.compile(r"/dev/(?!loop)\S+")


def clock(facts: Facts) -> Iterator[Finding]:
    """Does it follow a server, how far is it off, did it jump while the agent ran."""
    try:
        state, parameters = read_clock()
    except SourceError as error:
        yield Finding("unknown", "clock", str(error), "run `vigilhost doctor` outside the sandbox")
    else:
        offset, *_, is_synchronised = node_values(state, parameters)
        if not is_synchronised:
            yield Finding(
                "warn",
                "clock",
                "follows no time server: timestamps, slots and schedules drift",
                "`timedatectl set-ntp true`, or install chrony; a container has its host's",
            )
        elif isinstance(offset, float) and abs(offset) > _FAR_S:
            yield Finding("warn", "clock", f"is {abs(offset):.3f} s off its reference", "look at the time server")
        else:
            yield Finding("ok", "clock", f"follows a time server, off by {abs(float(offset or 0)) * 1000:.3g} ms")
    if facts.status is not None and facts.status["clock_jumps"]:
        up = format_duration(int(facts.status["uptime_s"]))
        yield Finding("warn", "clock", f"jumped {facts.status['clock_jumps']} times in {up} (or was suspended)",
                      "let a time server slew the clock instead of stepping it")  # fmt: skip


def unwatched(facts: Facts) -> Iterator[Finding]:
    """Mounts that the disk collector leaves out, and service units that nothing looks at."""
    if facts.loaded is None:
        return
    on = facts.settings.collectors
    mounts = _left_out_mounts(facts)
    if "disk" not in on:
        yield Finding("warn", "file systems", "are not watched: the collector disk is off", "turn on collectors.disk")
    elif mounts:
        yield Finding("note", "file systems", f"not watched, by collectors.disk.ignore_fs: {', '.join(mounts)}",
                      "take their type out of ignore_fs to watch them")  # fmt: skip
    else:
        yield Finding("ok", "file systems", "every one on a disk is watched")
    if os.path.isdir(os.path.join(facts.root, "run/systemd/system")):
        if "systemd" not in on:
            yield Finding("warn", "units", "of systemd are not watched: a service that fails is not noticed",
                          "turn on collectors.systemd")  # fmt: skip
        else:
            yield Finding("ok", "units", "of systemd are watched")
    for name, why in (("timex", "whether the clock follows a server"), ("agent", "how the agent itself is")):
        if name not in on:
            yield Finding("note", "collectors", f"{name} is off, so no rule sees {why}", f"turn on collectors.{name}")


def _left_out_mounts(facts: Facts) -> list[str]:
    """Mount points of file systems on disks whose type the disk collector ignores although disks have it."""
    entry = facts.settings.collectors.get("disk")
    ignored = set(entry.options["ignore_fs"]) if entry is not None else set()
    try:
        text = read_file(os.path.join(facts.settings.paths.proc, "1/mountinfo"))
    except (OSError, SourceError):
        return []
    found = []
    for line in text.decode("utf-8", "replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, device, *_ = after.split()
        if kind in ignored - set(DEFAULT_IGNORE_FS) and _ON_DEVICES.fullmatch(device):
            found.append(f"{before.split()[4]} ({kind})")
    return found


def unkept(facts: Facts) -> Iterator[Finding]:
    """Databases, volumes, machines and directories that no backup job has."""
    if facts.job_errors:
        return
    found = list(uncovered(facts.jobs, facts.root))
    for text, advice in found:
        yield Finding("warn", "not backed up", text, f"{advice} in docs/backup.md, and write a job")
    directories = uncovered_directories(facts.jobs, facts.root)
    if directories and facts.jobs:
        yield Finding("note", "not backed up", f"in no job: {', '.join(directories)}",
                      "add what you would miss to a job with source files")  # fmt: skip
    if not found and not directories:
        yield Finding("ok", "not backed up", "nothing that was looked for")
