"""Fill the names of backends, inputs, outputs and files into help texts, when one is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import typer

BACKEND_HELP = "{backends}."
PRECISION_HELP = "{precisions}."


def fill_names(command: Any, arguments: Sequence[str]) -> None:
    """Replace the placeholders in the help texts of a command and its subcommands, if help is requested.

    The names are read from the registries at this point, which imports them; other calls stay fast. Files are named
    where this copy has them.
    """
    groups = getattr(command, "commands", None)  # without a command of theirs, they show help
    if not {"-h", "--help"} & set(arguments) and (
        groups is None or not all(hasattr(groups.get(name), "commands") for name in arguments)
    ):
        return
    from stream_seg.backends.registry import backend_names, precision_names
    from stream_seg.config.overrides import argument_forms
    from stream_seg.datasets.palettes import PALETTES
    from stream_seg.installation import find_file

    names = {
        "{configs}": f"{find_file('configs')}/",
        "{recipes}": f"{find_file('configs/train')}/",
        "{engines}": f"{find_file('engines')}/",
        "{docs}": f"{find_file('docs')}/",
        "{backends}": " or ".join(backend_names()),
        "{precisions}": " or ".join(precision_names()),
        "{palettes}": " or ".join(PALETTES),
        "{inputs}": argument_forms("source"),
        "{outputs}": argument_forms("output"),
    }
    commands = [command]
    for one in commands:
        commands.extend(getattr(one, "commands", {}).values())
        _hide_types(one)
        for described, (placeholder, text) in product((one, *one.params), names.items()):
            if placeholder in (getattr(described, "help", None) or ""):
                described.help = described.help.replace(placeholder, text)


def _hide_types(command: Any) -> None:
    """Remove the types that typer shows behind flags, which take no value, and behind the names of arguments."""
    for parameter in (*command.params, command.get_help_option(typer.Context(command, **command.context_settings))):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = parameter.metavar or ""
        elif parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
