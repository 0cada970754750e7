"""A network that takes some classes more readily than by itself: the same weights, and other odds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from stream_seg.errors import NetworkError
from stream_seg.interchange.wiring import Wiring


def preferred_onnx(serialised: bytes, added: Sequence[float], *, name: str) -> bytes:
    """An interchange ONNX with `added` to its scores, one number for each class, before the largest says the label.

    Raises NetworkError where the network says labels alone.
    """
    model = onnx.load_from_string(serialised)
    nodes = model.graph.node
    place = next((place for place, node in enumerate(nodes) if "scores" in node.output), None)
    if place is None:
        raise NetworkError(f"{name}: says labels, not scores: none of its classes can be preferred")
    plain = f"scores/{len(nodes)}"  # a network may be made to prefer twice
    outputs = nodes[place].output
    outputs[list(outputs).index("scores")] = plain
    add = Wiring(plain)
    add("Add", plain, add.constant(np.reshape(added, (1, -1, 1, 1))), out="scores")
    nodes.insert(place + 1, add.nodes[0])
    model.graph.initializer.extend(add.constants)
    return bytes(model.SerializeToString())
