"""Build an engine into the cache: in the requested precision, or the next higher one that passes the accuracy gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stream_seg.backends.choose import Target, available_backends, find_target, open_backend, pick_backend
from stream_seg.backends.engine import ANY_GPU, QUANTIZED, Engine, check_engine, select_onnx
from stream_seg.backends.registry import BACKENDS, GROUPS, Backend
from stream_seg.engines.accuracy_gate import Limits, measure_accuracy
from stream_seg.engines.cache import describe_other_version, find_entry, read_engine, read_entries
from stream_seg.engines.cache_entry import Entry, Key, entry_name, hash_bytes, make_entry, read_secret
from stream_seg.engines.cache_write import lock_key, remove_engine, store_engine
from stream_seg.engines.calibration import IMAGE_COUNT, CalibrationSet, QuantizeSettings, quantize, sample_source
from stream_seg.errors import ConfigError, NetworkError, OutputError
from stream_seg.network.network import Network, open_network
from stream_seg.network.sidecar import AccuracyReport, Size
from stream_seg.zoo import refuse_untrained


class EngineRecipe(BaseModel):
    """An engine to build. Paths are relative to the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str  # a name, or the path of an .onnx or side-car
    backend: str = "auto"  # the first that works
    precision: str = "auto"  # the lowest available
    size: Size | None = None  # [height, width] of the input
    batch: Annotated[int, Field(ge=1, le=256)] = 8  # largest batch of a TensorRT engine
    # of a GPU that is not in this machine, such as 8.9
    compute_capability: Annotated[str | None, Field(pattern=r"^\d+\.\d$")] = None
    calibrate: str | None = None  # a folder of images, or a video
    labels: Path | None = None  # a folder of label maps for those images
    images: Annotated[int, Field(ge=4, le=10_000)] = IMAGE_COUNT  # number of images, evenly spaced
    miou_loss: Annotated[float, Field(ge=0, le=100)] = 0.5  # accepted loss in mIoU points, with labels
    agreement: Annotated[float, Field(ge=0, le=100)] = 99.0  # required % of labels equal to f32, without labels
    quantize: QuantizeSettings = QuantizeSettings()

    @property
    def limits(self) -> Limits:
        """Limits of the accuracy gate."""
        return Limits(self.miou_loss, self.agreement / 100)


@dataclass(frozen=True)
class Reporter:
    """Receiver of a build's progress: `line` gets messages to keep, `step` a status that may be overwritten."""

    line: Callable[[str], None]
    step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class BuildResult:
    """An engine with its entry in the cache. `fresh` is False if it was there already.

    `fault` is the reason why it is not in the cache, though it was built.
    """

    entry: Entry
    fresh: bool
    engine: bytes = field(default=b"", repr=False, compare=False)
    fault: str | None = None


def build_engine(recipe: EngineRecipe, *, folder: Path, report: Reporter) -> BuildResult:
    """Build the engine of a recipe unless the cache in `folder` has it. Raises StreamSegError."""
    refuse_untrained(recipe.network)
    network, backend = open_network(recipe.network, size=recipe.size), recipe.backend
    if recipe.compute_capability is None:
        backend, _ = pick_backend(backend, available=available_backends())
    elif backend in GROUPS:  # the backend need not work on this machine
        backend, _ = pick_backend(backend, available=[name for name, entry in BACKENDS.items() if entry.compiler])
    target = find_target(backend, recipe.compute_capability)
    return build_for_target(network, target, recipe, folder=folder, report=report)


def build_for_target(
    network: Network,
    target: Target,
    recipe: EngineRecipe,
    *,
    folder: Path,
    report: Reporter,
    must_store: bool = True,
) -> BuildResult:
    """Build a network for a target: each precision in turn, from the requested one up, until one passes the gate.

    Without `must_store`, a cache that is full or cannot be trusted is the `fault` of the result, and no error.
    """
    secret, precisions = read_secret(), _list_precisions(recipe, network, target)
    images, classes = CalibrationSet("", (), ()), len(network.classes)
    if recipe.calibrate or recipe.labels or precisions != ("f32",):  # f32 is the reference and not compared
        uri, labels, count = recipe.calibrate, recipe.labels, recipe.images
        images = sample_source(uri, network.size, classes=classes, labels=labels, count=count)
    build = _Build(recipe, network, target, images, report)
    suffix = build.backend.compiler.suffix if build.backend.compiler else ".onnx"
    refused: list[str] = []
    for precision in precisions:
        key, faults = build.make_key(precision), _CacheFaults(tolerated=not must_store)
        with ExitStack() as lock:
            with faults.noted():
                lock.enter_context(lock_key(folder, key))
            if faults.first is None and (entry := build.find_cached(folder, key)):
                return BuildResult(entry, fresh=False, engine=read_engine(folder, entry))
            engine, gate = build.build(precision)
            if gate is None or gate["refused"] is None:
                entry = make_entry(network.name, key, engine, suffix=suffix, gate=gate, refused=refused, secret=secret)
                if faults.first is None:
                    with faults.noted():
                        store_engine(folder, entry, engine)
                return BuildResult(entry, fresh=True, engine=engine, fault=faults.first)
            if faults.first is None:
                with faults.noted():
                    remove_engine(folder, entry_name(network.name, key))  # one that passed other limits or images
            refused.append(f"{precision} {gate['refused']}")
            report.line(f"{network.name}: {precision} refused: {gate['refused']}; trying the next precision")
    raise NetworkError(f"{network.name}: no precision of {target.backend} passes: {'; '.join(refused)}")


class _CacheFaults:
    """Errors of the cache: raised, or if they are `tolerated` noted, the `first` one."""

    def __init__(self, *, tolerated: bool) -> None:
        self._tolerated = tolerated
        self.first: str | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the errors of the body."""
        try:
            yield
        except (NetworkError, OutputError) as error:
            if not self._tolerated:
                raise
            self.first = self.first or str(error)


def _list_precisions(recipe: EngineRecipe, network: Network, target: Target) -> tuple[str, ...]:
    """Return the precisions to try, from the requested one up. Raises ConfigError for one that is not available."""
    precisions, on_request = target.device.precisions, target.device.on_request
    can_quantize = recipe.calibrate is not None or network.int8 is not None
    if recipe.precision == "auto":
        return tuple(p for p in precisions if p not in QUANTIZED or can_quantize)
    if recipe.precision not in (available := (*precisions, *on_request)):
        place = f"{target.backend} on {target.device.label}"
        raise ConfigError(f"precision {recipe.precision!r}: {place} offers {', '.join(available)}")
    if recipe.precision in QUANTIZED and not can_quantize:
        raise ConfigError(
            f"precision {recipe.precision}: {network.name} has no int8 form; create it with --calibrate DIR or VIDEO"
        )
    if recipe.precision in on_request:
        return (recipe.precision, *(p for p in precisions if p not in QUANTIZED))
    return precisions[precisions.index(recipe.precision) :]


@dataclass(frozen=True)
class _Build:
    """A recipe at work: the network, the target that it is built for, and the images to calibrate and compare on."""

    recipe: EngineRecipe
    network: Network
    target: Target
    images: CalibrationSet
    report: Reporter

    @property
    def backend(self) -> Backend:
        return BACKENDS[self.target.backend]

    def make_key(self, precision: str) -> Key:
        calibration, device = None, self.target.device
        if precision in QUANTIZED and self.recipe.calibrate:
            calibration = self.images.calibration_digest(self.recipe.quantize)
        elif precision in QUANTIZED:
            calibration = hash_bytes(self.network.int8 or b"")
        return Key(
            onnx=hash_bytes(self.network.f32),
            backend=self.target.backend,
            version=self.target.version,
            precision=precision,
            shape=(self.recipe.batch if self.backend.compiler else 1, *self.network.size, 3),
            device=device.name,
            compute_capability=device.compute_capability,
            calibration=calibration,
        )

    def find_cached(self, folder: Path, key: Key) -> Entry | None:
        """Return the engine of a key if it is intact and was compared as the recipe asks; else report why it is not."""
        try:
            entry = find_entry(folder, key, self.network.name)
            if entry is not None:
                read_engine(folder, entry)
        except NetworkError as error:
            self.report.line(f"{error}; rebuilding it")
            return None
        if entry is None:
            for other in read_entries(folder)[0]:
                if other.key.model_copy(update={"version": key.version}) == key:
                    self.report.line(f"{describe_other_version(other, key.version)}; rebuilding it")
        elif entry.gate is not None and (
            entry.gate["limits"] != vars(self.recipe.limits)
            or entry.gate.get("judged_on") != self.images.images_digest()
        ):
            self.report.line(f"engine {entry.name}: compared with other limits or images; rebuilding it")
            return None
        return entry

    def build(self, precision: str) -> tuple[bytes, AccuracyReport | None]:
        """Return an engine and its accuracy report, None for f32, the reference."""
        network, name, images = self.network, self.network.name, self.images
        if precision in QUANTIZED and self.recipe.calibrate is not None:
            self.report.line(f"{name}: quantizing with {len(images.fit)} images of {images.source}")
            fit = [sample.image for sample in images.fit]
            network = replace(network, int8=quantize(network.f32, fit, self.recipe.quantize, name=name))
        engine = select_onnx(network, precision)
        if self.backend.compiler is not None:
            title, batch, place = self.backend.title, self.recipe.batch, self.target.device.label

            def report_step(phase: str, done: int, steps: int) -> None:
                self.report.step(f"{name}: {title} builds {precision}: {phase}, {done} of {steps}")

            self.report.line(f"{name}: {title} builds {precision} for 1 to {batch} images on {place}")
            engine = self.compile(network, precision, batch=batch, on_step=report_step)
        if precision == "f32":
            with self.open(network, "f32", engine) as f32:
                check_engine(f32)
            return engine, None
        self.report.line(f"{name}: comparing {precision} with f32 on {len(images.fit) + len(images.held_back)} images")
        with self.open(network, "f32", None) as f32, self.open(network, precision, engine) as lower:
            return engine, measure_accuracy(f32, lower, images, limits=self.recipe.limits)

    def compile(self, network: Network, precision: str, *, batch: int, on_step: Any = None) -> bytes:
        """Return `network` as compiled ahead of time, by a backend that has a compiler. Raises NetworkError."""
        assert self.backend.compiler is not None
        device = self.target.device
        capability = device.compute_capability if device.name == ANY_GPU else None
        return self.backend.compiler.compile(
            network, precision, batch=batch, compute_capability=capability, on_step=on_step
        )

    def open(self, network: Network, precision: str, built: bytes | None) -> Engine:
        """Open `network` as built. For a device that is not here, ONNX Runtime runs the compiled ONNX."""
        compiler = self.backend.compiler
        if compiler is not None and self.target.device.name == ANY_GPU:
            lowered = replace(network, f32=compiler.lower(network, precision))
            return open_backend(lowered, "onnxruntime", precision="f32")
        if compiler is not None and built is None:
            built = self.compile(network, precision, batch=1)
        return open_backend(network, self.target.backend, precision=precision, built=built)
