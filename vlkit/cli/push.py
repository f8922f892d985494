"""`vlkit push MODEL ORG/NAME`: a model folder on the hub."""

from __future__ import annotations

from pathlib import Path

import typer

from vlkit.cli.console import say
from vlkit.paths import local_path


def push(
    folder: Path = typer.Argument(
        ...,
        metavar="MODEL",
        parser=local_path,
        help="A model folder, as training, merge or export wrote it.",
    ),
    repo: str = typer.Argument(..., metavar="ORG/NAME", help="Where it goes; made if it is not there."),
    public: bool = typer.Option(False, "--public", help="Let everybody see a repository that is made; else only you."),
    branch: str = typer.Option("", "--branch", metavar="NAME", help="Another branch than the main one."),
    message: str = typer.Option("", "--message", "-m", metavar="TEXT", help="What the commit says."),
    yes: bool = typer.Option(
        False, "--yes", help="You may pass on parts whose license asks for more than to be named, or is not known here."
    ),
) -> None:
    """Put a model and its card on the hub ($HF_ENDPOINT), where vlkit.load("hf:ORG/NAME") finds it."""
    from vlkit.models.push import push_to_hub

    pushed = push_to_hub(folder, repo, private=not public, branch=branch or None, message=message, licenses_checked=yes)
    say(f"{folder} is at {pushed.url} (commit {pushed.commit[:12]})")
    say(f'load it with: vlkit.load("hf:{repo}")')
