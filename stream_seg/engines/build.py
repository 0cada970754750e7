"""Build an engine: the lowest precision asked for that is still the same network, or the next one, into the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.backends.device import Target, target_of
from stream_seg.backends.registry import BACKENDS, checked, chosen, installed
from stream_seg.engines.accuracy_gate import Limits
from stream_seg.engines.cache import building, content, entries, load, remove, store
from stream_seg.engines.cache_entry import Entry, Key, described, digest, entry_name
from stream_seg.engines.calibration import PICTURES, CalibrationSet, drawn, sampled
from stream_seg.engines.compare import Say, opened_for, plan_of, report_of
from stream_seg.engines.integrity import sealed, secret
from stream_seg.engines.quantize import Settings, quantised, version_of_nncf
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.network.sidecar import Report, Size


@dataclass(frozen=True)
class Built:
    """An engine in the cache. `fresh` is False where it was there already."""

    entry: Entry
    fresh: bool


def build(recipe: EngineRecipe, *, folder: Path, say: Say) -> Built:
    """The engine of a recipe, built unless the cache in `folder` holds it. Raises StreamSegError: one line.

    What is not the same network in the precision asked for is refused, and the next higher precision tried.
    """
    return build_for(open_network(recipe.network, size=recipe.size), _target(recipe), recipe, folder=folder, say=say)


def plan_for(network: Network, target: Target, *, folder: Path, precision: str, say: Say) -> tuple[Entry, bytes]:
    """A TensorRT plan for the GPU that is here, compared on the drawn drive; built where the cache has none."""
    recipe = EngineRecipe(network=network.name, backend="tensorrt", precision=precision)
    entry = build_for(network, target, recipe, folder=folder, say=say).entry
    return entry, content(folder, entry)


def build_for(network: Network, target: Target, recipe: EngineRecipe, *, folder: Path, say: Say) -> Built:
    """`build` for a network that is open and a target that is known."""
    held, precisions = secret(), _wanted(recipe, network, target)
    frames = _frames(recipe, network, needed=precisions != ("f32",))
    refused: list[str] = []
    for precision in precisions:
        key = _key(recipe, network, target, precision, frames)
        with building(folder, key):
            if found := _there(folder, key, recipe, network.name, frames=frames, say=say):
                return Built(found, fresh=False)
            engine, gate = _made(recipe, network, target, precision, frames=frames, say=say)
            if gate is None or gate["refused"] is None:
                entry = described(network.name, key, engine, suffix=target.suffix, gate=gate, refused=refused)
                entry = sealed(entry, held)
                store(folder, entry, engine)
                return Built(entry, fresh=True)
            remove(folder, entry_name(network.name, key))  # what wider limits or other pictures let pass
            refused.append(f"{precision} {gate['refused']}")
            say.line(f"{network.name}: {precision} refused: {gate['refused']}; trying the next precision")
    raise NetworkError(f"{network.name}: no precision of {target.backend} passes: {'; '.join(refused)}")


def _target(recipe: EngineRecipe) -> Target:
    """What a recipe builds for. With a compute capability that is TensorRT, which need not be able to run here."""
    crossing = recipe.compute_capability is not None and recipe.backend in ("auto", "tensorrt")
    name = "tensorrt" if crossing else chosen(recipe.backend, present=installed())[0]
    try:
        return target_of(name, recipe.compute_capability)
    except ImportError as error:
        raise NetworkError(f"backend {name} does not load ({error}): {BACKENDS[name].install}") from error


def _wanted(recipe: EngineRecipe, network: Network, target: Target) -> tuple[str, ...]:
    """The precisions to try, from the one asked for upwards. Raises ConfigError for one that cannot be had."""
    possible = target.precisions
    can_quantise = recipe.calibrate is not None or network.int8 is not None
    if recipe.precision == "auto":
        return tuple(p for p in possible if p != "int8" or can_quantise)
    if recipe.precision not in (*possible, *target.asked):
        has = ", ".join((*possible, *target.asked))
        raise ConfigError(f"precision {recipe.precision!r}: {target.backend} has {has} on {target.place}")
    if recipe.precision in ("int8", "fp8") and not can_quantise:
        raise ConfigError(
            f"precision {recipe.precision}: {network.name} has no int8 form yet; --calibrate DIR or VIDEO makes one"
        )
    if recipe.precision in target.asked:
        return (recipe.precision, *(p for p in possible if p != "int8"))
    return possible[possible.index(recipe.precision) :]


def _frames(recipe: EngineRecipe, network: Network, *, needed: bool) -> CalibrationSet:
    """What is calibrated on and compared: the user's pictures, else, to compare on alone, the drawn drive."""
    if recipe.calibrate is None:
        if recipe.labels is not None:
            raise ConfigError("labels: belong to the pictures of --calibrate, which is missing")
        return drawn(network.size) if needed else CalibrationSet("", (), ())
    classes = len(network.classes)
    return sampled(recipe.calibrate, network.size, classes=classes, labels=recipe.labels, pictures=recipe.pictures)


def _key(recipe: EngineRecipe, network: Network, target: Target, precision: str, frames: CalibrationSet) -> Key:
    calibration = None
    if precision in ("int8", "fp8"):
        calibration = (
            frames.digest(f"{recipe.quantise!r} NNCF {version_of_nncf()}")
            if recipe.calibrate
            else digest(network.int8 or b"")
        )
    return Key(
        onnx=digest(network.f32),
        backend=target.backend,
        version=target.version,
        precision=precision,
        shape=(recipe.batch if target.backend == "tensorrt" else 1, *network.size, 3),
        device=target.device,
        compute_capability=target.compute_capability,
        calibration=calibration,
    )


def _there(
    folder: Path, key: Key, recipe: EngineRecipe, network: str, *, frames: CalibrationSet, say: Say
) -> Entry | None:
    """The engine of a key, where it is whole and judged as asked; else a line that says why it is built again."""
    try:
        entry = load(folder, key, network)
        if entry is not None:
            content(folder, entry)
            if judged_so(entry, recipe, frames):
                return entry
            say.line(f"engine {entry.name}: was judged by other limits or pictures; built again")
            return None
    except NetworkError as error:
        say.line(f"{error}; building it again")
        return None
    for _, other in entries(folder):
        if isinstance(other, Entry) and other.key.model_copy(update={"version": key.version}) == key:
            say.line(
                f"engine {other.name}: not loaded: built with {other.key.version}, here is {key.version}; built again"
            )
    return None


def judged_so(entry: Entry, recipe: EngineRecipe, frames: CalibrationSet) -> bool:
    """Whether the accuracy report beside an engine is the one that a recipe asks for, on the pictures of `frames`."""
    if entry.gate is None:
        return True
    same_limits = entry.gate["limits"] == vars(_limits(recipe))
    return bool(same_limits and entry.gate.get("judged_on") == frames.judged_on())


def _limits(recipe: EngineRecipe) -> Limits:
    return Limits(recipe.miou_loss, recipe.agreement / 100)


def _made(
    recipe: EngineRecipe, network: Network, target: Target, precision: str, *, frames: CalibrationSet, say: Say
) -> tuple[bytes, Report | None]:
    """An engine and its accuracy report; None for f32, which is the measure."""
    if precision in ("int8", "fp8") and recipe.calibrate is not None:
        say.line(f"{network.name}: quantising with {len(frames.fit)} pictures of {frames.shown}")
        int8 = quantised(network.f32, [s.image for s in frames.fit], recipe.quantise, name=network.name)
        network = replace(network, int8=int8)
    engine = network.int8 if precision == "int8" and network.int8 else network.f32
    if target.backend == "tensorrt":
        say.line(f"{network.name}: TensorRT builds {precision} for 1 to {recipe.batch} pictures on {target.place}")
        engine = plan_of(network, precision, target=target, batch=recipe.batch, step=say.step)
    if precision == "f32":
        with opened_for(network, target, "f32", engine) as f32:
            checked(f32)
        return engine, None
    say.line(f"{network.name}: comparing {precision} with f32 on {len(frames.fit) + len(frames.held_back)} pictures")
    with (
        opened_for(network, target, "f32", None) as f32,
        opened_for(network, target, precision, engine) as lower,
    ):
        return engine, report_of(f32, lower, frames, limits=_limits(recipe))


class EngineRecipe(BaseModel):
    """One engine. Paths are as they are typed: seen from the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Annotated[str, Field(description="a name, or the path of an .onnx or side-car")]
    backend: Annotated[str, Field(description="tensorrt, openvino, onnxruntime, torch; auto: the first that works")] = (
        "auto"
    )
    precision: Annotated[str, Field(description="int8, fp8, fp16, bf16, f32; auto: the lowest that can be had")] = (
        "auto"
    )
    size: Annotated[Size | None, Field(description="[height, width] of the input")] = None
    batch: Annotated[int, Field(ge=1, le=256, description="largest batch of a TensorRT engine")] = 8
    compute_capability: Annotated[
        str | None, Field(pattern=r"^\d+\.\d$", description="of a GPU that is not here, such as 8.9")
    ] = None
    calibrate: Annotated[str | None, Field(description="a folder of pictures, or a video")] = None
    labels: Annotated[Path | None, Field(description="a folder of label maps for those pictures")] = None
    pictures: Annotated[int, Field(ge=4, le=10_000, description="how many are taken, evenly")] = PICTURES
    miou_loss: Annotated[float, Field(ge=0, le=100, description="points that may be lost where there are labels")] = 0.5
    agreement: Annotated[float, Field(ge=0, le=100, description="percent of equal labels that is needed elsewhere")] = (
        99.0
    )
    quantise: Settings = Settings()
