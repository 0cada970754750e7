"""Errors about the arguments of a command, as one line."""

from __future__ import annotations

from typing import Any


def describe_usage(error: Exception) -> str:
    """Return an error of click about arguments as one line that says what is allowed; empty for any other error."""
    kinds = [kind.__name__ for kind in type(error).__mro__]  # typer has had its own copy of click since 0.26
    if "UsageError" not in kinds or "NoArgsIsHelpError" in kinds:
        return ""
    usage: Any = error
    text = " ".join(usage.format_message().split()).rstrip(".")
    parameter: Any = getattr(usage, "param", None)
    least, most = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if least is not None:
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        text = f"invalid value for '{parameter.opts[0]}': expected a number {allowed}"
    text = text[:1].lower() + text[1:].replace(": Value error, ", ": ")
    return text if usage.ctx is None else f"{text}; see {usage.ctx.command_path} --help"
