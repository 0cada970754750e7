"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

JsonFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; -: on standard output, without tables."),
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs that exist; without it, they are refused.")
]
Prefer: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS=NUMBER", help="Add a number to the scores of a class, such as pole=0.5; repeatable."),
]
Size: TypeAlias = Annotated[
    str | None, typer.Option(metavar="HxW", help="Size of the network's input. Default: its own.")
]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Log progress on standard error.")]
LOG_FORMATS = "auto|text|json"
LOG_FORMAT = "Format of log lines; auto: text on a terminal, else JSON."
"""The values and the help text of --log-format."""
