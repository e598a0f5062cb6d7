"""What everything stands on: the agent itself, its configuration, who may read and write its files."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

from agent.config import Loaded
from agent.config.plugins import Entry
from agent.config.registry import Registry
from agent.config.show import summary
from agent.config.tables import REGISTRIES
from agent.core.units import format_duration
from agent.doctor.facts import Facts
from agent.doctor.finding import Finding, refused
from agent.rule_sets import rules_directory
from agent.statedir import PID_NAME

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ANYBODY_ELSE = stat.S_IRWXG | stat.S_IRWXO
_MOST_LISTED = 5


def agent(facts: Facts) -> Iterator[Finding]:
    """Does it run, does it answer, did it take the last reload."""
    if facts.status is None:
        yield _absent(facts)
        return
    known = facts.status
    up = format_duration(int(known["uptime_s"]))
    yield Finding("ok", "agent", f"version {known['version']}, pid {known['pid']}, up {up}")
    if known["status"] == "stalled":
        yield Finding("fail", "agent", "collects nothing: it stands still",
                      "read `journalctl -u vigilhost`, then `systemctl restart vigilhost`")  # fmt: skip
    if known["reload_error"]:
        yield Finding("fail", "reload", f"refused, the old configuration goes on: {known['reload_error']}",
                      "mend the file, `vigilhost check`, `vigilhost reload`")  # fmt: skip
    if known["abandoned_lanes"]:
        yield Finding("warn", "threads", f"{known['abandoned_lanes']} were given up because a read never ended",
                      "a failing collector below says which; a restart frees them")  # fmt: skip


def _absent(facts: Facts) -> Finding:
    where = "; ".join(facts.tried)
    if any("permission denied" in each for each in facts.tried):
        return Finding("unknown", "agent", f"may not be asked by this user ({where})",
                       "run as root, or as a user of the group vigilhost")  # fmt: skip
    pid = _living_pid(facts)
    if pid is not None:
        return Finding("fail", "agent", f"pid {pid} lives and does not answer ({where})",
                       "read `journalctl -u vigilhost`, then `systemctl restart vigilhost`")  # fmt: skip
    return Finding("fail", "agent", f"does not run ({where})",
                   "`systemctl start vigilhost`; what follows was read from its files")  # fmt: skip


def _living_pid(facts: Facts) -> int | None:
    """The process that signed the state directory, if there is one of that number that is an agent."""
    try:
        with open(facts.in_state(PID_NAME), encoding="ascii") as file:
            pid = int(file.read(32))
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"run" in words else None


def configuration(facts: Facts) -> Iterator[Finding]:
    """Errors and doubts of the configuration and of the backup jobs."""
    loaded = facts.loaded
    if loaded is not None:
        files = ", ".join(loaded.files) or f"no file, all defaults ({facts.config} is not there)"
        yield Finding("ok", "configuration", f"{files}; {summary(loaded.settings)}")
        yield from _edited(facts, loaded)
        for warning in loaded.warnings:
            yield Finding("warn", "configuration", str(warning), "`vigilhost check` repeats it")
    again = "the running agent keeps what it has" if facts.is_running else "the agent does not start with it"
    for problem in facts.config_errors:
        yield refused("configuration", str(problem), f"mend it, then `vigilhost check`; {again}")
    for problem in facts.job_errors:
        yield refused("backup jobs", str(problem), "mend it; until then no job runs")
    for warning in facts.job_warnings:
        yield Finding("warn", "backup jobs", str(warning), "mend it")


def _edited(facts: Facts, loaded: Loaded) -> Iterator[Finding]:
    """Files that were changed after the running agent read them."""
    if facts.status is None:
        return
    since = float(facts.status["configured_at"])
    later = [path for path in loaded.files if _changed_at(path) > since]
    if later:
        when = facts.ago(max(map(_changed_at, later)))
        yield Finding("warn", "configuration", f"edited {when} and not in force yet: {', '.join(later)}",
                      "`vigilhost reload` takes it over")  # fmt: skip


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def permissions(facts: Facts) -> Iterator[Finding]:
    """Files that decide what the agent does belong to root or to it; its state is private; programs are nobody's."""
    found = [*_configuration_files(facts), *_state(facts), *_programs(facts), *_plugins(facts)]
    yield from found
    if all(finding.level == "ok" for finding in found):
        yield Finding("ok", "permissions", "configuration, state directory, programs and plugins are the agent's alone")


def _owners(facts: Facts) -> set[int]:
    """Users that may own what the agent trusts: root, this user, and the one that owns the state directory."""
    owners = {0, os.geteuid()}
    try:
        owners.add(os.stat(facts.state_dir).st_uid)
    except OSError:
        pass  # said by _state
    return owners


def _configuration_files(facts: Facts) -> Iterator[Finding]:
    loaded = facts.loaded
    files = list(loaded.files) if loaded is not None else [facts.config]
    rules = rules_directory(facts.settings.alerting.rules, files)
    directories = [os.path.dirname(os.path.abspath(files[0])) if files else "", rules, facts.jobs_dir]
    for directory in (rules, facts.jobs_dir):
        try:
            files += [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
        except OSError:
            pass  # not there, or said by whoever reads it
    for path in [*files, *filter(None, directories)]:
        try:
            found = os.stat(path)
        except OSError:
            continue
        # In a sticky directory (/tmp) others can add files, but not replace ours.
        if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
            yield Finding("fail", "permissions", f"{path}: others can write to it, so they decide what the agent does",
                          f"chmod go-w {path}")  # fmt: skip
        elif found.st_uid not in _owners(facts):
            yield Finding("fail", "permissions", f"{path}: belongs to user {found.st_uid}", f"chown root {path}")


def _state(facts: Facts) -> Iterator[Finding]:
    try:
        found = os.stat(facts.state_dir)
        names = os.listdir(facts.state_dir)
    except FileNotFoundError:
        yield Finding("note", "state directory", f"{facts.state_dir}: is not there; the agent makes it")
        return
    except PermissionError:
        yield Finding("unknown", "state directory", f"{facts.state_dir}: may not be read by this user", "run as root")
        return
    except OSError as error:
        yield Finding("fail", "state directory", f"{facts.state_dir}: {(error.strerror or str(error)).lower()}",
                      "make it a directory of the agent's user")  # fmt: skip
        return
    if found.st_mode & _ANYBODY_ELSE:
        yield Finding("fail", "state directory", f"{facts.state_dir}: mode {stat.S_IMODE(found.st_mode):04o}, so "
                      "others can look into it", f"chmod 0700 {facts.state_dir}")  # fmt: skip
    open_to_all = []
    for name in sorted(names):
        path = facts.in_state(name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if mode & stat.S_IRWXO and not stat.S_ISSOCK(mode):
            open_to_all.append(path)
    if open_to_all:
        shown = ", ".join(open_to_all[:_MOST_LISTED])
        yield Finding("fail", "state directory", f"others can use {shown}", f"chmod -R o-rwx {facts.state_dir}")


def _programs(facts: Facts) -> Iterator[Finding]:
    """Programs that the configuration names."""
    for owner, path in _named_programs(facts):
        reason, advice = _distrust(path, _owners(facts))
        if reason:
            yield Finding("fail", owner, f"{path}: {reason}", advice)


def _named_programs(facts: Facts) -> Iterator[tuple[str, str]]:
    """Who runs it, and the program's path."""
    settings = facts.settings
    for name, entry in settings.collectors.items():
        for command in entry.options.get("commands") or () if entry.type == "exec" else ():
            yield f"collector {name}", command.argv[0]
    for name, receiver in settings.alerting.receivers.items():
        if receiver.type == "exec" and receiver.options.get("command"):
            yield f"receiver {name}", receiver.options["command"][0]
    for name, job in facts.jobs.items():
        hooks = (*job.hooks.before, *job.hooks.after, *job.hooks.on_error)
        argvs = [*hooks, *(job.plugin.options.get(key) or [] for key in ("argv", "check_argv", "restore_argv"))]
        for path in sorted({argv[0] for argv in argvs if argv}):
            yield f"backup {name}", path


def _distrust(path: str, owners: set[int]) -> tuple[str, str]:
    """Why a program must not be run, and what to do; two empty texts when only `owners` can change it."""
    part = os.path.realpath(path)
    while True:
        try:
            found = os.stat(part)
        except OSError as error:
            return (error.strerror or str(error)).lower(), "install it, or correct the path"
        if part == os.path.realpath(path) and not os.access(part, os.X_OK):
            return "is not executable", f"chmod +x {part}"
        if found.st_uid not in owners:
            return f"{part} belongs to user {found.st_uid}, who can replace it", f"chown root {part}"
        if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
            return f"others can write to {part}, so it is not run", f"chmod go-w {part}"
        if part == "/":
            return "", ""
        part = os.path.dirname(part)


def _plugins(facts: Facts) -> Iterator[Finding]:
    """Classes of other packages: whoever can write their files runs as the agent."""
    tables = ((REGISTRIES["collectors"], facts.settings.collectors), (REGISTRIES["sinks"], facts.settings.sinks))
    for registry, entries in tables:
        for entry in entries.values():
            path = _foreign_file(registry, entry)
            reason, advice = _distrust_file(path, _owners(facts)) if path else ("", "")
            if reason:
                yield Finding("fail", f"{registry.noun} {entry.name}", f"{path}: {reason}", advice)


def _foreign_file(registry: Registry, entry: Entry) -> str:
    if entry.type in registry.builtin:
        return ""
    return getattr(sys.modules.get(entry.cls.__module__), "__file__", None) or ""


def _distrust_file(path: str, owners: set[int]) -> tuple[str, str]:
    found = os.stat(path)
    if found.st_uid not in owners:
        return f"belongs to user {found.st_uid}, who runs as the agent thereby", f"chown root {path}"
    if found.st_mode & _OTHERS_MAY_WRITE:
        return "others can write to it, and run as the agent thereby", f"chmod go-w {path}"
    return "", ""
