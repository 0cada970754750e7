"""Post-training quantization: a portable ONNX in 8 bits, with ranges calibrated on images (NNCF)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.errors import NetworkError
from stream_seg.types import Image


class QuantizeSettings(BaseModel):
    """Settings. The defaults lose least on the road network at equal speed; docs/engines.md has the figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[
        Literal["mixed", "performance"],
        Field(description="mixed: asymmetric activations; performance: everything symmetric"),
    ] = "performance"
    bias_correction: Annotated[
        bool, Field(description="shift each layer to keep its mean output; costs the road network 0.6 mIoU")
    ] = False
    keep: Annotated[tuple[str, ...], Field(description="names of ONNX operators that stay in float32")] = ()


def nncf_version() -> str:
    """Return the version of NNCF. Raises NetworkError where it is missing."""
    try:
        return version("nncf")
    except PackageNotFoundError as error:
        raise NetworkError("int8 needs NNCF: pip install '.[quantize]'") from error


def quantize(onnx: bytes, images: Sequence[Image], settings: QuantizeSettings | None = None, *, name: str) -> bytes:
    """Return a portable ONNX with 8-bit weights and activations, calibrated on `images` of the network's input size.

    Raises NetworkError, also where NNCF is missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    nncf_version()
    # NNCF imports it; it warns of a missing CUDA compiler
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import onnx as library

    settings = settings or QuantizeSettings()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = library.load_from_string(onnx)
    unknown = set(settings.keep) - {node.name for node in model.graph.node}
    if unknown:
        raise NetworkError(f"{name}: keep: no operator is named {', '.join(sorted(unknown))}")
    dataset = nncf.Dataset([image[None] for image in images], lambda batch: {"image": batch})
    try:
        quantized = nncf.quantize(
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
        raise NetworkError(f"{name}: NNCF cannot quantize it: {' '.join(str(error).split())}") from error
    content: bytes = quantized.SerializeToString()
    return content
