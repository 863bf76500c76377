"""Which commands exist; and `main()`, the one place that turns an error into a message."""

from __future__ import annotations

import errno
import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from copgen_cli import __version__, console
from copgen_cli.commands.config import config
from copgen_cli.commands.data.download import download
from copgen_cli.commands.data.encode import encode
from copgen_cli.commands.data.pack import pack
from copgen_cli.commands.data.prepare import prepare
from copgen_cli.commands.data.simulate import simulate
from copgen_cli.commands.models.convert import convert
from copgen_cli.commands.models.distill import distill
from copgen_cli.commands.models.info import info
from copgen_cli.commands.models.modalities import modalities
from copgen_cli.commands.models.train import train
from copgen_cli.commands.models.train_autoencoder import train_autoencoder
from copgen_cli.commands.pictures.evaluate import evaluate
from copgen_cli.commands.pictures.quickstart import quickstart
from copgen_cli.commands.pictures.render import render
from copgen_cli.commands.pictures.sample import sample
from copgen_cli.commands.pictures.scene import scene
from copgen_cli.commands.pictures.studio import studio
from copgen_cli.errors import EXIT_SIGINT, EXIT_SIGTERM, CopgenError, DiskFullError, UnusablePathError, UsageError
from copgen_cli.options import ConfigOption, GlobalOptions
from copgen_cli.storage import told_of

app = typer.Typer(
    name="copgen",
    no_args_is_help=True,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # a pipe gets plain text, and twice as fast
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = {  # by panel of the help, in its order
    "From data to pictures": (quickstart, download, prepare, encode, pack, train, distill, sample, scene, evaluate),
    "Beside the way": (studio, render, simulate, convert, train_autoencoder, modalities, info),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(config, name="config", rich_help_panel="Beside the way")


ANEW = {"evaluate": "Nothing of an evaluation is kept before its end; the same command begins again."}
"""What commands say that do not continue when they are stopped."""

_command = ""  # of this process; told by the callback


def _print_version(wanted: bool) -> None:
    if wanted:
        console.line(f"copgen {__version__}")
        raise typer.Exit


@app.callback()
def copgen(
    context: typer.Context,
    config: ConfigOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn satellite views of one place into one another: elevation, radar and optical, any from any.

    Try it, offline:  copgen quickstart

    The whole way, on Rome:  copgen download, prepare, encode, pack, train, sample
    """
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    chosen = console.Verbosity.QUIET if quiet else console.Verbosity.VERBOSE if verbose else console.Verbosity.NORMAL
    console.configure(chosen)
    global _command
    _command = context.invoked_subcommand or ""
    context.obj = GlobalOptions(config=config, run_line=main)


@functools.cache
def command_line() -> TyperGroup:
    """All commands with their options, as typer reads them off signatures: once per process, since it takes a while."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default that of the process; exit codes are those of the contract.

    Args:
        arguments: what stands behind `copgen`.
    """
    signal.signal(signal.SIGTERM, _leave_on_sigterm)
    console.print_any_name()
    try:
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        command_line()(args=arguments, prog_name="copgen" if arguments else None)
    except CopgenError as problem:
        console.error(problem)
        sys.exit(problem.exit_code)
    except SystemExit as leaving:
        if leaving.code in (EXIT_SIGINT, EXIT_SIGTERM):
            said = ANEW.get(_command, "What is complete is kept; the same command continues from here.")
            console.note(f"Stopped. {said}")
        raise
    except Exception as problem:
        told = told_of(problem) or (_as_told(problem) if isinstance(problem, OSError) else None)
        if told is None:
            raise
        console.error(told)
        sys.exit(told.exit_code)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """No option of ours has use for an empty text, and as a path it would silently be the current folder."""
    for before, argument in zip(("copgen", *arguments), arguments, strict=False):
        if argument == "" or (argument.startswith("--") and argument.endswith("=")):
            raise UsageError(
                f"Nothing stands behind {before if argument == '' else argument}.",
                hint="Was a variable of the shell empty? Write . for the current folder.",
            )


def _as_told(problem: OSError) -> CopgenError | None:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(Path(problem.filename or "."))
    return UnusablePathError.of(problem)


def _leave_on_sigterm(number: int, frame: Any) -> None:
    sys.exit(EXIT_SIGTERM)
