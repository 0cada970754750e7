"""Weights into a network: all of them, exactly, or an error that counts and names what does not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from stream_seg.errors import NetworkError
from stream_seg.zoo.weights.files import renamed, some


def fit(
    net: nn.Module,
    state: Mapping[str, Tensor],
    *,
    classes: int | None,
    where: str,
    anew: Collection[str] = (),
    remedy: str = "",
) -> None:
    """Load `state` into `net`, built for `classes`, None where it has none; the weights named in `anew` stay new.

    Raises NetworkError for a name that is missing or unexpected and for a shape that differs; where it differs by the
    number of classes alone, `remedy` ends the sentence. A missing `num_batches_tracked` is no fault: files of before
    torch 0.4.1 have none, and only training counts with it.
    """
    own = net.state_dict()
    state = renamed(state, own)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        parts = [
            f"{len(names)} of {of} names {said} ({some(names)})"
            for names, of, said in ((missing, len(own), "missing"), (unexpected, len(state), "unexpected"))
            if names
        ]
        raise NetworkError(f"{where}: not weights of this network: {'; '.join(parts)}")
    differ = [name for name, value in state.items() if value.shape != own[name].shape and name not in anew]
    counts = {_other_count(own[name], state[name], classes) for name in differ}
    if differ and (anew or len(counts) > 1 or None in counts):
        shapes = (f"{name} {_size(state[name])}, here {_size(own[name])}" for name in differ)
        raise NetworkError(f"{where}: not weights of this network: {len(differ)} shapes differ: {some(shapes, 2)}")
    if differ:
        raise NetworkError(
            f"{where}: weights of {counts.pop()} classes for a network of {classes} ({some(differ)}){remedy}"
        )
    net.load_state_dict({name: own[name] if name in anew else state.get(name, own[name]) for name in own})


def _other_count(own: Tensor, given: Tensor, classes: int | None) -> int | None:
    """The number of classes that `given` was made for, where that explains the difference; else None.

    A side that differs is that number, or as many times it as here the number of classes (the dilated context module).
    """
    if own.ndim != given.ndim or classes is None:
        return None
    differ = [(here, there) for here, there in zip(own.shape, given.shape, strict=True) if here != there]
    counts = {there * classes / here for here, there in differ if here % classes == 0}
    explained = all(here % classes == 0 for here, _ in differ) and len(counts) == 1
    other = counts.pop() if explained else 0.5
    return int(other) if other.is_integer() else None


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
