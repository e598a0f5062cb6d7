"""Finding and asking the running agent."""

from __future__ import annotations

import os
from typing import Any

import click

from agent.config import ConfigError, load
from agent.control import SOCKET_NAME, ControlError, ask


def _candidates(config: str | None, state_dir: str | None) -> list[str]:
    """Where a control socket may be, the most likely first."""
    if state_dir is not None:
        return [state_dir]
    found = ["/run/vigilhost"]
    try:
        found.append(load(config).settings.state_dir)
    except ConfigError:
        pass  # a broken configuration must not keep people from asking the agent that still runs
    return [*found, ".state"]


def find_agent(
    config: str | None = None, state_dir: str | None = None, *, timeout_s: float
) -> tuple[str, Any, list[str]]:
    """The control socket that answers and its answer to `status`; without one "", None and what was tried.

    An agent that refuses or takes longer than `timeout_s` is among what was tried.
    """
    tried: list[str] = []
    for directory in _candidates(config, state_dir):
        path = os.path.join(directory, SOCKET_NAME)
        try:
            return path, ask(path, "status", timeout_s=timeout_s), tried
        except TimeoutError:
            tried.append(f"{path}: no answer within {timeout_s:g} s")
        except (ControlError, ValueError) as error:
            tried.append(f"{path}: {error}")
        except OSError as error:
            tried.append(f"{path}: {os.strerror(error.errno).lower() if error.errno else error}")
    return "", None, tried


def ask_agent(command: str, *, config: str | None = None, state_dir: str | None = None, **arguments: Any) -> Any:
    """The running agent's answer. Raise click.ClickException when none runs or it refuses."""
    tried = []
    for directory in _candidates(config, state_dir):
        path = os.path.join(directory, SOCKET_NAME)
        try:
            return ask(path, command, **arguments)
        except ControlError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            tried.append(f"{path}: {os.strerror(error.errno).lower() if error.errno else error}")
    raise click.ClickException("no agent answers here; is it running?\n  " + "\n  ".join(tried))
