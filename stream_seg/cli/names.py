"""Fill the names of backends, precisions, inputs and outputs into help texts, when one is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

BACKEND_HELP = "{backends}."
PRECISION_HELP = "{precisions}."


def fill_names(command: Any, arguments: Sequence[str]) -> None:
    """Replace the placeholders in the help texts of a command and its subcommands, if help is requested.

    The names are read from the registries at this point, which imports them; other calls stay fast.
    """
    if {"-h", "--help"} & set(arguments):
        _fill(
            command, {"{backends}": _backends, "{precisions}": _precisions, "{inputs}": _inputs, "{outputs}": _outputs}
        )


def _fill(command: Any, names: Mapping[str, Callable[[], str]]) -> None:
    for parameter in command.params:
        for placeholder, text in names.items():
            if placeholder in (getattr(parameter, "help", None) or ""):
                parameter.help = parameter.help.replace(placeholder, text())
    for subcommand in getattr(command, "commands", {}).values():
        _fill(subcommand, names)


def _backends() -> str:
    from stream_seg.backends.registry import backend_names

    return " or ".join(backend_names())


def _precisions() -> str:
    from stream_seg.backends.registry import precision_names

    return " or ".join(precision_names())


def _inputs() -> str:
    from stream_seg.config.overrides import argument_forms

    return argument_forms("source")


def _outputs() -> str:
    from stream_seg.config.overrides import argument_forms

    return argument_forms("output")
