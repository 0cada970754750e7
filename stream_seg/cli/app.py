"""The command line: `stream-seg run | eval | train | export | engines | bench | doctor | networks | stages`.

Exit codes: 0 success (also after Ctrl-C or SIGTERM), 1 unexpected error, 2 wrong argument or config, 3 failed input,
4 failed network or engine, 5 failed output, 6 stage that failed at a frame or that a stop had to abandon. Of the other
commands a signal ends the process as usual (130, 143 in a shell).
"""

from __future__ import annotations

from typing import Annotated

import typer

from stream_seg import __version__
from stream_seg.cli import engines as engines_commands
from stream_seg.cli.commands.describe import doctor, networks, stages
from stream_seg.cli.commands.measure import bench, evaluate
from stream_seg.cli.commands.run import run
from stream_seg.cli.commands.train import export, train
from stream_seg.cli.console import terminal_console
from stream_seg.cli.options import LOG_FORMAT, LOG_FORMATS, Verbose
from stream_seg.telemetry.logs import LogFormat, configure

EXIT_CODES = (
    "Exit codes: 0 done (also after Ctrl-C), 1 unexpected, 2 argument or config, 3 input, 4 network, 5 output, 6 stage."
)
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="stream-seg",
    help="Real-time video segmentation: frames in, steady masks and overlays out.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # else the lines of a docstring break where they break in the source
    context_settings=HELP_OPTIONS,
)
app.command(epilog=EXIT_CODES, context_settings=HELP_OPTIONS)(run)  # both for run_pipeline.py, which is `run` alone
app.command("eval")(evaluate)
for command in (bench, train, export, doctor, networks, stages):
    app.command()(command)
app.add_typer(engines_commands.app)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Verbose = False,
    log_format: Annotated[LogFormat, typer.Option(metavar=LOG_FORMATS, help=LOG_FORMAT)] = "auto",
) -> None:
    """Real-time video segmentation: frames in, steady masks and overlays out."""
    if version:
        print(__version__)
        raise typer.Exit
    configure(verbose=verbose, log_format=log_format, console=terminal_console())
