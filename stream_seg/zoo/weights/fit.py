"""Load weights into a network strictly: all of them, or an error that counts and names those that do not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from stream_seg.errors import NetworkError
from stream_seg.zoo.weights.files import format_names, match_names


def load_weights(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    classes: int | None,
    where: str,
    skip: Collection[str] = (),
    hint: str = "",
) -> None:
    """Load `state` into `net`, which was built for `classes` (None: it has none), except the weights named in `skip`.

    Raises NetworkError for missing and unexpected names and for shapes that differ; `hint` ends the message when they
    differ by the number of classes alone. `num_batches_tracked` may be missing: files written before torch 0.4.1 have
    none, and only training counts with it.
    """
    own = net.state_dict()
    state = match_names(state, own)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        parts = [
            f"{len(names)} of {total} names {fault} ({format_names(names)})"
            for names, total, fault in ((missing, len(own), "missing"), (unexpected, len(state), "unexpected"))
            if names
        ]
        raise NetworkError(f"{where}: not weights of this network: {'; '.join(parts)}")
    different = [name for name, value in state.items() if value.shape != own[name].shape and name not in skip]
    counts = {_class_count(state[name], own[name], classes) for name in different}
    if different and (skip or len(counts) > 1 or None in counts):
        shapes = [f"{name} {_format_shape(state[name])}, here {_format_shape(own[name])}" for name in different]
        raise NetworkError(
            f"{where}: not weights of this network: {len(shapes)} shapes differ: {format_names(shapes, limit=2)}"
        )
    if different:
        raise NetworkError(
            f"{where}: weights of {counts.pop()} classes for a network of {classes} ({format_names(different)}){hint}"
        )
    net.load_state_dict({name: own[name] if name in skip else state.get(name, own[name]) for name in own})


def _class_count(value: Tensor, own: Tensor, classes: int | None) -> int | None:
    """Return the number of classes of the network that `value` belongs to, if that alone explains its shape.

    A dimension that differs is the number of classes or a multiple of it (as in the dilated context module).
    """
    if own.ndim != value.ndim or classes is None:
        return None
    pairs = [(here, there) for here, there in zip(own.shape, value.shape, strict=True) if here != there]
    counts = {there * classes / here for here, there in pairs if here % classes == 0}
    explained = all(here % classes == 0 for here, _ in pairs) and len(counts) == 1
    count = counts.pop() if explained else 0.5
    return int(count) if count.is_integer() else None


def _format_shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
