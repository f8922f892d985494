"""The command line's frame: a table of commands, each imported when it is called, and one place where errors end."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from vlkit.cli.console import debugging, leave, show_error, show_unexpected, show_warning
from vlkit.cli.help import make_readable
from vlkit.cli.interrupts import raise_on_sigterm, say_stopped
from vlkit.errors import VlkitError
from vlkit.version import __version__

# name -> (where: a function or a typer app with subcommands, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("vlkit.cli.quickstart:quickstart", "Real parts, real data: train, evaluate and report."),
    "train": ("vlkit.cli.train:train", "Train what a recipe describes."),
    "show": ("vlkit.cli.show:show", "Print a recipe with all values and where they come from."),
    "explain": ("vlkit.cli.show:explain", "Say what a recipe may hold: key, type, default, meaning."),
    "classify": ("vlkit.cli.classify:classify", "Sort images by labels in any language, without training."),
    "index": ("vlkit.cli.index:index", "Embed the images of a folder, to be searched."),
    "search": ("vlkit.cli.index:search", "Find images by text in any language, or by an image."),
    "caption": ("vlkit.cli.ask:caption", "Put images into words, in any language."),
    "ask": ("vlkit.cli.ask:ask", "Ask about images, and be answered in any language."),
    "generate": ("vlkit.cli.generate:generate", "Make images of prompts in any language."),
    "data": ("vlkit.cli.data:app", "Build and inspect data sets."),
    "eval": ("vlkit.cli.eval:evaluate", "Evaluate a model on a suite, in many languages."),
    "mteb": ("vlkit.cli.mteb:mteb", "Run tasks of mteb (MTEB, MIEB) on a model, by language."),
    "compare": ("vlkit.cli.compare:compare", "Compare two evaluations, language by language."),
    "correlate": ("vlkit.cli.compare:correlate", "Say how far two tables of scores go together."),
    "scaling": ("vlkit.cli.scaling:scaling", "Fit how a loss falls with parameters and samples."),
    "score": ("vlkit.cli.score:app", "Score benchmarks of generated images, from what was found on them."),
    "align": ("vlkit.cli.align:align", "Score how well a model aligns languages."),
    "labels": ("vlkit.cli.labels:app", "Build and check class names in many languages."),
    "inspect": ("vlkit.cli.inspect:inspect", "Say what a model or recipe is made of, without loading weights."),
    "merge": ("vlkit.cli.merge:merge", "Fold adapters into the weights that they adapt."),
    "average": ("vlkit.cli.average:average", "Average a run's last checkpoints into one model."),
    "export": ("vlkit.cli.export:export", "Write a model for open_clip, transformers or ONNX."),
    "push": ("vlkit.cli.push:push", "Put a model and its card on the hub."),
    "list": ("vlkit.cli.list:list_names", "List models, parts, recipes, suites, languages and more."),
    "bench": ("vlkit.cli.bench:app", "Measure loaders and losses beside a peer, in the same run."),
    "doctor": ("vlkit.cli.doctor:doctor", "Say what is installed, what works and what is missing."),
    "cache": ("vlkit.cli.cache:app", "List or clear what vlkit keeps on this machine."),
}
_WRONG_OPTION = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
# what typer raises on purpose: a wrong option, the end of a command, an answer of no; and a pipe whose reader has gone
_MEANT: tuple[type[BaseException], ...] = (_WRONG_OPTION, typer.Exit, typer.Abort, BrokenPipeError)


class LazyGroup(TyperGroup):
    """Knows the names and help lines of all commands; imports one when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, line) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself in place of its stub."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, _command(name) if name in COMMANDS else stub, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; every error ends here as one message.

        Exit codes: 2 for what a user can cause and fix, 130 for an interrupt, 1 for what nobody foresaw.
        """
        try:
            return super().invoke(ctx)
        except _MEANT:
            raise
        except (VlkitError, OSError) as error:
            if debugging():
                raise
            show_error(error)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            if debugging():
                raise
            raise typer.Exit(say_stopped(error, ctx.invoked_subcommand)) from error
        except Exception as error:
            if debugging():
                raise
            show_unexpected(error)
            raise typer.Exit(1) from error


def _command(name: str) -> Any:
    where, line = COMMANDS[name]
    module, _, attribute = where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command(name, no_args_is_help=False)(function)
    found.rich_markup_mode = None  # brackets in help are brackets
    command = make_readable(typer.main.get_command(found), name)
    command.name, command.short_help = name, line
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="vlkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="VLKIT_HOME says where caches are kept, VLKIT_TRACEBACK=1 shows where an error came from.",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"vlkit {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Multilingual vision-language models: join, align, train and evaluate image encoders and language models."""


def run() -> None:
    """Runs the command that ``sys.argv`` holds."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow terminal encoding must not end a run
    if not sys.warnoptions:
        warnings.showwarning = show_warning
    typer.main.get_command(app)(prog_name="vlkit")


def main() -> None:
    """The entry point of `vlkit` and `python -m vlkit`: ``run`` in a process of its own."""
    raise_on_sigterm()
    try:
        run()
    except KeyboardInterrupt as stop:  # before a command was chosen, or as it ended
        leave(say_stopped(stop, None))
    except SystemExit as end:
        if isinstance(end.code, int):
            leave(end.code)
        raise
