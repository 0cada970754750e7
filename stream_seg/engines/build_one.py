"""Build a network in one precision on one backend, and compare it with float32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stream_seg.backends.choose import open_backend
from stream_seg.backends.engine import ANY_GPU, QUANTIZED, Engine, check_engine, select_onnx
from stream_seg.backends.registry import BACKENDS, Backend
from stream_seg.engines.accuracy_gate import measure_accuracy
from stream_seg.engines.attempts import Attempt
from stream_seg.engines.cache import describe_other_version, find_entry, read_engine, read_entries
from stream_seg.engines.cache_entry import Entry, Key, hash_bytes
from stream_seg.engines.calibration import CalibrationSet, QuantizeSettings, quantize
from stream_seg.engines.recipe import EngineRecipe
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network
from stream_seg.network.sidecar import AccuracyReport

TIMED_RUNS = 15
"""Runs of each engine whose times are compared."""


@dataclass(frozen=True)
class Reporter:
    """Receiver of a build's progress: `line` gets messages to keep, `step` a status that may be overwritten."""

    line: Callable[[str], None]
    step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Build:
    """An attempt at a recipe, and the images to calibrate and compare on. `quantized` holds the forms made so far."""

    recipe: EngineRecipe
    network: Network
    attempt: Attempt
    images: CalibrationSet
    report: Reporter
    quantized: dict[QuantizeSettings, bytes]

    @property
    def suffix(self) -> str:
        """Suffix of the engine's file."""
        return self._backend.compiler.suffix if self._backend.compiler else ".onnx"

    @property
    def _backend(self) -> Backend:
        return BACKENDS[self.attempt.target.backend]

    def make_key(self) -> Key:
        """Return the key of the engine in the cache. Raises NetworkError without NNCF, if it is needed."""
        calibration, target = None, self.attempt.target
        if self.attempt.settings is not None:
            calibration = self.images.calibration_digest(self.attempt.settings)
        elif self.attempt.precision in QUANTIZED:
            calibration = hash_bytes(self.network.int8 or b"")
        return Key(
            onnx=hash_bytes(self.network.f32),
            backend=target.backend,
            version=target.version,
            precision=self.attempt.precision,
            shape=(1, *self.network.size, 3),
            device=target.device.name,
            compute_capability=target.device.compute_capability,
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

    def build(self) -> tuple[bytes, AccuracyReport | None]:
        """Return an engine and its accuracy report, None for f32, the reference. Raises NetworkError."""
        network, name, images, precision = self._quantize(), self.network.name, self.images, self.attempt.precision
        engine = select_onnx(network, precision)
        if self._backend.compiler is not None:
            title, place = self._backend.title, self.attempt.target.device.label

            def report_step(phase: str, done: int, steps: int) -> None:
                self.report.step(f"{name}: {title} builds {precision}: {phase}, {done} of {steps}")

            self.report.line(f"{name}: {title} builds {precision} on {place}")
            engine = self._compile(network, precision, on_step=report_step)
        if precision == "f32":
            with self._open(network, "f32", engine) as f32:
                check_engine(f32)
            return engine, None
        count = len(images.fit) + len(images.held_back)
        self.report.line(f"{name}: comparing {self.attempt} with f32 on {count} images")
        with self._open(network, "f32", None) as f32, self._open(network, precision, engine) as lower:
            return engine, measure_accuracy(f32, lower, images, limits=self.recipe.limits)

    def explain_slowness(self, engine: bytes, rival: Build) -> str | None:
        """Return the reason not to use an engine that was built, if that of `rival` takes no more time, else None."""
        network = self._quantize()
        with (
            self._open(network, self.attempt.precision, engine) as ours,
            rival._open(network, rival.attempt.precision, None) as theirs,
        ):
            ours_ms, theirs_ms = measure_ms(ours, theirs)
        if ours_ms < theirs_ms:
            return None
        return f"{ours_ms:.1f} ms per image, {rival.attempt} takes {theirs_ms:.1f}"

    def _quantize(self) -> Network:
        """Return the network, with an int8 form of the attempt's settings if it has any."""
        settings, images = self.attempt.settings, self.images
        if settings is None:
            return self.network
        if settings not in self.quantized:
            preset = f"preset {settings.preset}, {len(images.fit)} images of {images.source}"
            self.report.line(f"{self.network.name}: quantizing: {preset}")
            fit = [sample.image for sample in images.fit]
            self.quantized[settings] = quantize(self.network.f32, fit, settings, name=self.network.name)
        return replace(self.network, int8=self.quantized[settings], int8_tested=False)

    def _compile(self, network: Network, precision: str, *, on_step: Any = None) -> bytes:
        """Return `network` as compiled ahead of time, by a backend that has a compiler. Raises NetworkError."""
        assert self._backend.compiler is not None
        device = self.attempt.target.device
        capability = device.compute_capability if device.name == ANY_GPU else None
        return self._backend.compiler.compile(network, precision, compute_capability=capability, on_step=on_step)

    def _open(self, network: Network, precision: str, built: bytes | None) -> Engine:
        """Open `network` as built. For a device that is not here, ONNX Runtime runs the compiled ONNX."""
        compiler, target = self._backend.compiler, self.attempt.target
        if compiler is not None and target.device.name == ANY_GPU:
            lowered = replace(network, f32=compiler.lower(network, precision))
            return open_backend(lowered, "onnxruntime", precision="f32")
        if compiler is not None and built is None:
            built = self._compile(network, precision)
        return open_backend(network, target.backend, precision=precision, built=built)


def measure_ms(*engines: Engine) -> list[float]:
    """Return the median time in ms that each engine takes for one image; they run in turn."""
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(TIMED_RUNS + 1):
        for engine, frames in zip(engines, times, strict=True):
            image = np.zeros((1, *engine.spec.size, 3), np.uint8)
            began = time.perf_counter()
            engine.infer(image)
            frames.append(1000 * (time.perf_counter() - began))
    return [statistics.median(frames[1:]) for frames in times]  # without the first run, which warms up
