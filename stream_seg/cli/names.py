"""Fill the names of backends, precisions, inputs and outputs into help texts, when one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

BACKEND_HELP = "{backends}."
PRECISION_HELP = "{precisions}."


def fill_names(command: Any, arguments: Sequence[str]) -> None:
    """Replace the placeholders in the help texts of a command and its subcommands, if help is requested.

    The names are read from the registries at this point, which imports them; other calls stay fast.
    """
    if not {"-h", "--help"} & set(arguments):
        return
    from stream_seg.backends.registry import backend_names, precision_names
    from stream_seg.config.overrides import argument_forms

    names = {
        "{backends}": " or ".join(backend_names()),
        "{precisions}": " or ".join(precision_names()),
        "{inputs}": argument_forms("source"),
        "{outputs}": argument_forms("output"),
    }
    commands = [command]
    for one in commands:
        commands.extend(getattr(one, "commands", {}).values())
        for parameter in one.params:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""  # a flag takes no value; typer would show its type
        for parameter, (placeholder, text) in product(one.params, names.items()):
            if placeholder in (getattr(parameter, "help", None) or ""):
                parameter.help = parameter.help.replace(placeholder, text)
