"""Everyday switches of the command line and of the Python API: each becomes a key of stages of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stream_seg.config.draft import Draft
from stream_seg.errors import ConfigError
from stream_seg.schema.validation import validate_field
from stream_seg.stages.base import Product
from stream_seg.stages.registry import StageLoader


@dataclass(frozen=True)
class Switch:
    """A switch sets `key` on every stage with a field of that name; with `of`, only on stages that produce this part.

    `of` tells the `size` and `threads` of a network from those of a camera, a decoder or an encoder.
    """

    key: str
    of: Product | None = None


SWITCHES: Mapping[str, Switch] = MappingProxyType(
    {
        "network": Switch("network", "labels"),
        "device": Switch("backend", "labels"),
        "precision": Switch("precision", "labels"),
        "size": Switch("size", "labels"),
        "every": Switch("every", "labels"),
        "threads": Switch("threads", "labels"),
        "palette": Switch("palette", "labels"),
        "classes": Switch("classes"),
        "opacity": Switch("opacity"),
        "start": Switch("start_s"),
        "duration": Switch("duration_s"),
        "loop": Switch("loop"),
        "fps": Switch("fps"),
        "speed": Switch("speed"),
    }
)
"""By the name of the option and of the keyword argument."""


def apply_switches(
    document: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    where: str,
    loader: StageLoader | None = None,
    prefix: str = "--",
) -> dict[str, Any]:
    """Return the document with `values`, by switch, set on its stages; None leaves the document's own.

    The value False of `smoothing` removes the stages that smooth labels over time. Raises ConfigError for a switch that
    no stage takes, and for a value of the wrong type or range; `where` names the graph in it, and `prefix` comes before
    the name of the switch.
    """
    draft = Draft(document, loader or StageLoader())
    for name, value in values.items():
        if value is None or (name, value) == ("smoothing", True):
            continue
        if name == "smoothing":
            name, missing, stages = "no-smooth", "no stage smooths the labels", _smoothing(draft)
            _remove(draft, stages)
        else:
            switch = SWITCHES[name]
            missing, stages = f"no stage takes it (key {switch.key})", _takers(draft, switch)
            for stage in stages:
                validate_field(draft.fields(stage)[switch.key], value, name=f"{prefix}{name}")
                draft.keys[stage][switch.key] = value
        if not stages:
            raise ConfigError(f"{where}: {prefix}{name}: {missing}; the stages are {', '.join(draft.keys)}")
    return draft.replace_stages(draft.keys)


def _takers(draft: Draft, switch: Switch) -> list[str]:
    stages = [stage for stage in draft.keys if switch.key in draft.fields(stage)]
    return [stage for stage in stages if switch.of is None or switch.of in draft.traits(stage).produces]


def _smoothing(draft: Draft) -> list[str]:
    return [stage for stage in draft.keys if "smoothing" in draft.traits(stage).produces]


def _remove(draft: Draft, stages: Sequence[str]) -> None:
    """Remove stages; those behind them take the frames from before them."""
    for stage in stages:
        before = draft.inputs(stage)
        for other, keys in draft.keys.items():
            names = [new for old in draft.inputs(other) for new in (before if old == stage else [old])]
            if stage in draft.inputs(other):
                keys["input"] = names[0] if len(names) == 1 else [*dict.fromkeys(names)]
        del draft.keys[stage]
