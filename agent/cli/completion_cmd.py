"""`vigilhost completion SHELL`: the script that a shell sources."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script, e.g. `source <(vigilhost completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"no completion for {shell}")
    root = ctx.find_root().command
    click.echo(kind(root, {}, "vigilhost", "_VIGILHOST_COMPLETE").source())
