"""Post-training quantisation: an interchange ONNX in 8 bits, its ranges learned from pictures (NNCF)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.errors import NetworkError
from stream_seg.types import Image


class Settings(BaseModel):
    """How to quantise. The defaults lost least on the road network, at equal speed; docs/engines.md has the figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[
        Literal["mixed", "performance"], Field(description="mixed: activations asymmetric; performance: all symmetric")
    ] = "performance"
    bias_correction: Annotated[
        bool, Field(description="shift each layer so that its mean output stays; costs the road network 0.6 mIoU")
    ] = False
    keep: Annotated[tuple[str, ...], Field(description="names of ONNX operators that stay in float32")] = ()


def version_of_nncf() -> str:
    """Raises NetworkError where NNCF is missing."""
    try:
        return version("nncf")
    except PackageNotFoundError as error:
        raise NetworkError("int8 needs NNCF: pip install '.[quantize]'") from error


def quantised(onnx: bytes, images: Sequence[Image], settings: Settings | None = None, *, name: str) -> bytes:
    """The interchange ONNX with 8-bit weights and activations, calibrated on `images` at the network's input size.

    Raises NetworkError, also where NNCF is missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    version_of_nncf()
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF brings it; it misses a CUDA compiler
    import nncf
    import onnx as library

    settings = settings or Settings()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = library.load_from_string(onnx)
    unknown = set(settings.keep) - {node.name for node in model.graph.node}
    if unknown:
        raise NetworkError(f"{name}: keep: no operator is called {', '.join(sorted(unknown))}")
    dataset = nncf.Dataset([image[None] for image in images], lambda batch: {"image": batch})
    try:
        made = nncf.quantize(
            model,
            dataset,
            subset_size=len(images),
            preset=nncf.QuantizationPreset(settings.preset),
            ignored_scope=nncf.IgnoredScope(names=list(settings.keep)) if settings.keep else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=not settings.bias_correction
            ),
        )
    except (nncf.errors.ValidationError, nncf.errors.UnsupportedModelError, nncf.errors.InternalError) as error:
        raise NetworkError(f"{name}: NNCF cannot quantise it: {' '.join(str(error).split())}") from error
    serialised: bytes = made.SerializeToString()
    return serialised
