"""Build an engine into the cache: in the requested precision, or the next higher one that passes the accuracy gate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.backends.choose import Target, available_backends, find_target, pick_backend
from stream_seg.backends.engine import QUANTIZED, check_engine, select_onnx
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines.accuracy_gate import Limits
from stream_seg.engines.cache import find_entry, list_entries, read_engine
from stream_seg.engines.cache_entry import Entry, Key, entry_name, hash_bytes, make_entry
from stream_seg.engines.cache_write import lock_key, remove_engine, store_engine
from stream_seg.engines.calibration import IMAGE_COUNT, CalibrationSet, sample_source, sample_synthetic
from stream_seg.engines.compare import Reporter, compile_network, measure_accuracy, open_to_compare
from stream_seg.engines.integrity import read_secret, seal_entry
from stream_seg.engines.quantize import QuantizeSettings, nncf_version, quantize
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.network.sidecar import AccuracyReport, Size


class EngineRecipe(BaseModel):
    """An engine to build. Paths are relative to the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[str, Field(description="a name, or the path of an .onnx or side-car")]
    backend: Annotated[str, Field(description="name of a backend; auto: the first that works")] = "auto"
    precision: Annotated[str, Field(description="name of a precision; auto: the lowest available")] = "auto"
    size: Annotated[Size | None, Field(description="[height, width] of the input")] = None
    batch: Annotated[int, Field(ge=1, le=256, description="largest batch of a TensorRT engine")] = 8
    compute_capability: Annotated[
        str | None, Field(pattern=r"^\d+\.\d$", description="of a GPU that is not in this machine, such as 8.9")
    ] = None
    calibrate: Annotated[str | None, Field(description="a folder of images, or a video")] = None
    labels: Annotated[Path | None, Field(description="a folder of label maps for those images")] = None
    pictures: Annotated[int, Field(ge=4, le=10_000, description="number of images, evenly spaced")] = IMAGE_COUNT
    miou_loss: Annotated[float, Field(ge=0, le=100, description="accepted loss in mIoU points, with labels")] = 0.5
    agreement: Annotated[
        float, Field(ge=0, le=100, description="required percentage of labels equal to f32, without labels")
    ] = 99.0
    quantize: QuantizeSettings = QuantizeSettings()

    @property
    def limits(self) -> Limits:
        """Limits of the accuracy gate."""
        return Limits(self.miou_loss, self.agreement / 100)


@dataclass(frozen=True)
class BuildResult:
    """An engine in the cache. `fresh` is False if it was there already."""

    entry: Entry
    fresh: bool


def build_engine(recipe: EngineRecipe, *, folder: Path, report: Reporter) -> BuildResult:
    """Build the engine of a recipe unless the cache in `folder` has it. Raises StreamSegError."""
    network = open_network(recipe.network, size=recipe.size)
    return build_for_target(network, _choose_target(recipe), recipe, folder=folder, report=report)


def build_default(
    network: Network, target: Target, *, folder: Path, precision: str, report: Reporter
) -> tuple[Entry, bytes]:
    """Build a network with default settings, compared on the synthetic drive, unless the cache has that engine."""
    recipe = EngineRecipe(network=network.name, backend=target.backend, precision=precision)
    entry = build_for_target(network, target, recipe, folder=folder, report=report).entry
    return entry, read_engine(folder, entry)


def build_for_target(
    network: Network, target: Target, recipe: EngineRecipe, *, folder: Path, report: Reporter
) -> BuildResult:
    """Build a network for a target: each precision in turn, from the requested one up, until one passes the gate."""
    secret, precisions = read_secret(), _list_precisions(recipe, network, target)
    images = _read_images(recipe, network, needed=precisions != ("f32",))
    compiler = BACKENDS[target.backend].compiler
    refused: list[str] = []
    for precision in precisions:
        key = _make_key(recipe, network, target, precision, images)
        with lock_key(folder, key):
            if entry := _find_cached(folder, key, recipe, network.name, images=images, report=report):
                return BuildResult(entry, fresh=False)
            engine, gate = _build(recipe, network, target, precision, images=images, report=report)
            if gate is None or gate["refused"] is None:
                suffix = compiler.suffix if compiler else ".onnx"
                entry = make_entry(network.name, key, engine, suffix=suffix, gate=gate, refused=refused)
                entry = seal_entry(entry, secret)
                store_engine(folder, entry, engine)
                return BuildResult(entry, fresh=True)
            remove_engine(folder, entry_name(network.name, key))  # one that passed other limits or images
            refused.append(f"{precision} {gate['refused']}")
            report.line(f"{network.name}: {precision} refused: {gate['refused']}; trying the next precision")
    raise NetworkError(f"{network.name}: no precision of {target.backend} passes: {'; '.join(refused)}")


def _choose_target(recipe: EngineRecipe) -> Target:
    """Return the target of a recipe. With a compute capability, the backend need not work on this machine."""
    if recipe.compute_capability is None:
        return find_target(pick_backend(recipe.backend, available=available_backends())[0])
    compilers = [name for name, backend in BACKENDS.items() if backend.compiler]
    return find_target(compilers[0] if recipe.backend == "auto" else recipe.backend, recipe.compute_capability)


def _list_precisions(recipe: EngineRecipe, network: Network, target: Target) -> tuple[str, ...]:
    """Return the precisions to try, from the requested one up. Raises ConfigError for one that is not available."""
    precisions, on_request = target.device.precisions, target.device.on_request
    can_quantize = recipe.calibrate is not None or network.int8 is not None
    if recipe.precision == "auto":
        return tuple(p for p in precisions if p not in QUANTIZED or can_quantize)
    if recipe.precision not in (*precisions, *on_request):
        available = ", ".join((*precisions, *on_request))
        raise ConfigError(
            f"precision {recipe.precision!r}: {target.backend} on {target.device.label} offers {available}"
        )
    if recipe.precision in QUANTIZED and not can_quantize:
        raise ConfigError(
            f"precision {recipe.precision}: {network.name} has no int8 form; create it with --calibrate DIR or VIDEO"
        )
    if recipe.precision in on_request:
        return (recipe.precision, *(p for p in precisions if p not in QUANTIZED))
    return precisions[precisions.index(recipe.precision) :]


def _read_images(recipe: EngineRecipe, network: Network, *, needed: bool) -> CalibrationSet:
    """Return the user's images, to calibrate and compare on, else images of the synthetic drive, to compare on."""
    if recipe.calibrate is None:
        if recipe.labels is not None:
            raise ConfigError("labels: needs calibrate, the images that the labels are for")
        return sample_synthetic(network.size) if needed else CalibrationSet("", (), ())
    classes = len(network.classes)
    return sample_source(recipe.calibrate, network.size, classes=classes, labels=recipe.labels, count=recipe.pictures)


def _make_key(recipe: EngineRecipe, network: Network, target: Target, precision: str, images: CalibrationSet) -> Key:
    calibration = None
    if precision in QUANTIZED and recipe.calibrate:
        calibration = images.calibration_digest(f"{recipe.quantize!r} NNCF {nncf_version()}")
    elif precision in QUANTIZED:
        calibration = hash_bytes(network.int8 or b"")
    return Key(
        onnx=hash_bytes(network.f32),
        backend=target.backend,
        version=target.version,
        precision=precision,
        shape=(recipe.batch if BACKENDS[target.backend].compiler else 1, *network.size, 3),
        device=target.device.name,
        compute_capability=target.device.compute_capability,
        calibration=calibration,
    )


def _find_cached(
    folder: Path, key: Key, recipe: EngineRecipe, network: str, *, images: CalibrationSet, report: Reporter
) -> Entry | None:
    """Return the engine of a key if it is intact and was compared as the recipe asks; else report why it is rebuilt."""
    try:
        entry = find_entry(folder, key, network)
        if entry is not None:
            read_engine(folder, entry)
            if _was_compared_as(recipe, entry, images):
                return entry
            report.line(f"engine {entry.name}: compared with other limits or images; rebuilding it")
            return None
    except NetworkError as error:
        report.line(f"{error}; rebuilding it")
        return None
    for _, other in list_entries(folder):
        if isinstance(other, Entry) and other.key.model_copy(update={"version": key.version}) == key:
            versions = f"built with version {other.key.version}, installed is {key.version}"
            report.line(f"engine {other.name}: not loaded: {versions}; rebuilding it")
    return None


def _was_compared_as(recipe: EngineRecipe, entry: Entry, images: CalibrationSet) -> bool:
    if entry.gate is None:
        return True
    same_limits = entry.gate["limits"] == vars(recipe.limits)
    return bool(same_limits and entry.gate.get("judged_on") == images.images_digest())


def _build(
    recipe: EngineRecipe,
    network: Network,
    target: Target,
    precision: str,
    *,
    images: CalibrationSet,
    report: Reporter,
) -> tuple[bytes, AccuracyReport | None]:
    """Return an engine and its accuracy report, None for f32, the reference."""
    backend, name = BACKENDS[target.backend], network.name
    if precision in QUANTIZED and recipe.calibrate is not None:
        report.line(f"{name}: quantizing with {len(images.fit)} images of {images.source}")
        int8 = quantize(network.f32, [sample.image for sample in images.fit], recipe.quantize, name=name)
        network = replace(network, int8=int8)
    engine = select_onnx(network, precision)
    if backend.compiler is not None:
        place = target.device.label
        report.line(f"{name}: {backend.title} builds {precision} for 1 to {recipe.batch} images on {place}")
        engine = compile_network(network, precision, target=target, batch=recipe.batch, on_status=report.step)
    if precision == "f32":
        with open_to_compare(network, target, "f32", engine) as f32:
            check_engine(f32)
        return engine, None
    report.line(f"{name}: comparing {precision} with f32 on {len(images.fit) + len(images.held_back)} images")
    with (
        open_to_compare(network, target, "f32", None) as f32,
        open_to_compare(network, target, precision, engine) as lower,
    ):
        return engine, measure_accuracy(f32, lower, images, limits=recipe.limits)
