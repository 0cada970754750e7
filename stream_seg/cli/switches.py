"""The everyday switches of `stream-seg run` as options; `config.switches` says which key of a stage each one sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeAlias

import typer

NETWORK, DRAWING, TIME, VIDEO_FILE = "Network", "Drawing", "Time", "Video file"
"""Headings of the groups in the help text."""

Network: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A name of `stream-seg networks`, or an .onnx or side-car. Default: road.",
        rich_help_panel=NETWORK,
    ),
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="{backends}. Default: auto, the fastest here.", rich_help_panel=NETWORK),
]
Size: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Size of the network's input. Default: its own.", rich_help_panel=NETWORK),
]
Every: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Run the network on every Nth frame, and move its labels between; auto: as the motion needs. Default: 1.",
        rich_help_panel=NETWORK,
    ),
]
Threads: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="N", help="CPU threads of the network, 1 to 256. Default: 1.", rich_help_panel=NETWORK),
]
NoSmooth: TypeAlias = Annotated[
    bool,
    typer.Option("--no-smooth", help="Show the network's labels of each frame as they are.", rich_help_panel=NETWORK),
]
Classes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME]...",
        help="Show these classes only, in drawings, page and tables; repeatable. Default: all.",
        rich_help_panel=DRAWING,
    ),
]
Opacity: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="N", help="Opacity of the class colours, 0 to 1. Default: 0.5.", rich_help_panel=DRAWING),
]

Start: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Begin at the first frame at this time: seconds or [HH:]MM:SS. Default: 0.",
        rich_help_panel=TIME,
    ),
]
Duration: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="End after so much video. Default: at its end.", rich_help_panel=TIME),
]
Loop: TypeAlias = Annotated[
    bool,
    typer.Option("--loop", help="Play a file over and over at its own speed, until Ctrl-C.", rich_help_panel=TIME),
]
Fps: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Frames per second of the output: drops frames, and repeats them in videos. Default: those of the input.",
        rich_help_panel=TIME,
    ),
]

Speed: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Speed of the encoder. fast: 0.6 of the time of balanced, a file up to 1.5 times as large; small: 2.4 "
        "times the time, a file a fifth smaller. Default: balanced.",
        rich_help_panel=VIDEO_FILE,
    ),
]

Palette: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Colours by class name: {palettes}. Default: the network's.",
        rich_help_panel=DRAWING,
    ),
]


def read_switches(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the switches among the parameters of a command, None for one that was not used.

    Raises ConfigError for a size that is none.
    """
    from stream_seg.config.switches import SWITCHES  # these imports are too slow for a help text
    from stream_seg.network.sidecar import parse_size

    values = {name: parameters.get(name) for name in SWITCHES}
    if (size := values["size"]) is not None:
        values["size"] = parse_size(size)
    for name in ("every", "threads", "opacity", "fps"):
        if (text := values[name]) is not None:
            values[name] = parse_number(text)
    values["classes"] = split_names(values["classes"] or ()) or None
    values["loop"] = parameters.get("loop") or None
    return {**values, "smoothing": False if parameters.get("no_smooth") else None}


def parse_number(text: str) -> int | float | str:
    """Return a text as a number; any other text stays as it is, for the check of the key to refuse."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def split_names(texts: Sequence[str]) -> list[str]:
    """Return ["car", "bus", "sky"] of ["car,bus", "sky"]."""
    return [name.strip() for text in texts for name in text.split(",")]
