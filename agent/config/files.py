"""The files that a configuration is read from."""

from __future__ import annotations

import os

from agent.core.problems import Place, Problem
from agent.places import CONFIG_FILE

DEFAULT_FILE = CONFIG_FILE
DIRECTORY = "conf.d"  # beside the file


def files_of(path: str | None, errors: list[Problem], warnings: list[Problem]) -> list[str]:
    """The file and those of conf.d, in the order in which the later wins."""
    main = path or DEFAULT_FILE
    directory = os.path.join(os.path.dirname(main), DIRECTORY)
    # A file that is there but cannot be read is an error, so only its absence is asked for.
    files = [main] if path is not None or os.path.lexists(main) else []
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return files
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        errors.append(Problem(Place(directory), "", f"cannot be read: {reason}; let the agent's user list it"))
        return files
    for name in names:
        if name.startswith("."):
            continue
        if name.endswith(".yaml"):
            files.append(os.path.join(directory, name))
        elif name.endswith(".yml"):
            warnings.append(Problem(Place(os.path.join(directory, name)), "", "is not read; give it a name in .yaml"))
    return files
