"""A network of the zoo as an engine takes it, with random weights: how long it takes does not depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stream_seg.arrays import Image
from stream_seg.backends.quantise import quantised
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network import Network, save_network
from stream_seg.ops.palette import CAMVID
from stream_seg.ops.scale import reduced
from stream_seg.zoo import BUILDERS, built

MEAN, STD = (0.43, 0.42, 0.41), (0.31, 0.31, 0.31)


def untrained(name: str, folder: Path, *, size: tuple[int, int], calibration: Sequence[Image] = ()) -> Path:
    """Write FOLDER/NAME_HxW.onnx with its side-car, for CamVid's classes and pictures of `size` = (height, width).

    With pictures of any size to calibrate on, its int8 form too. Raises ConfigError for a name that is none,
    NetworkError where the size is too small or a package is missing.
    """
    if name not in BUILDERS:
        raise ConfigError(f"unknown network {name!r}; known: {', '.join(BUILDERS)}")
    try:
        import torch

        from stream_seg.training.export import export_onnx
        from stream_seg.training.job import refuse_size
    except ImportError as error:
        raise NetworkError(f"{name} is to be built, but {error}: pip install '.[torch]'") from error
    torch.manual_seed(1)
    refuse_size(name, size, classes=len(CAMVID))
    path = folder / f"{name}_{size[0]}x{size[1]}.onnx"
    export_onnx(built(name, len(CAMVID)), path, size=size, mean=MEAN, std=STD)
    network = Network(name, CAMVID, size, path.read_bytes())
    if calibration:
        int8 = quantised(network.f32, [reduced(image, size) for image in calibration], name=name)
        network = replace(network, int8=int8)
    return save_network(network, path)
