"""The Python API: segment a video frame by frame, run the main job, run a graph, or segment one image."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import inf
from os import PathLike, fspath
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import ValidationError

from stream_seg.backends.engine import Engine
from stream_seg.config.graph_file import Config, apply_settings, check, read_document
from stream_seg.config.outputs import refuse_overwriting
from stream_seg.config.overrides import default_document, total_frames, with_input, with_outputs
from stream_seg.config.switches import apply_switches
from stream_seg.engines.open import open_engine as open_network_engine
from stream_seg.errors import ConfigError, StageError, StreamSegError
from stream_seg.frame import Frame
from stream_seg.network.network import open_network
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.report import Report
from stream_seg.schema.validation import describe_error, describe_unknown
from stream_seg.stages.base import Context, Frames, Traits
from stream_seg.stages.registry import StageLoader
from stream_seg.stages.segment import Segment, segment_image
from stream_seg.telemetry.metrics import register
from stream_seg.telemetry.server import serve_metrics
from stream_seg.types import Classes, Image

PathText: TypeAlias = str | PathLike[str]
Document: TypeAlias = Mapping[str, Any]


_RUNNING: set[Pipeline] = set()


@atexit.register
def _close_all() -> None:
    """Close abandoned pipelines: foreign code in their threads would crash when the interpreter ends."""
    for pipeline in tuple(_RUNNING):
        pipeline.close()


def open(  # noqa: A001 - called as stream_seg.open
    source: PathText | int,
    *,
    network: PathText | Document = "road",
    device: str = "auto",
    precision: str = "auto",
    size: tuple[int, int] | None = None,
    every: int | Literal["auto"] = 1,
    threads: int = 1,
    smooth: bool = True,
    palette: str | None = None,
    start: float | str = 0,
    duration: float | str | None = None,
    loop: bool = False,
    fps: float | None = None,
) -> FrameStream:
    """Open a video, camera, URL or folder of images. Return an iterator over its segmented frames.

    `every`: frames from one frame that the network processes to the next. `size`: (height, width) of the network's
    input. `palette`: colours by class name, such as "cityscapes". `start` and `duration`: seconds, or a text such as
    "1:30". A recording yields every frame, or `fps` per second; a live source yields the newest one each time. Raises
    ConfigError, SourceError or NetworkError.
    """
    switches = _switches(
        network=network, device=device, precision=precision, size=size, every=every, threads=threads,
        smoothing=smooth, palette=palette, start=start, duration=duration, loop=loop, fps=fps,
    )  # fmt: skip
    document = _make_document(source, (), switches)
    last = document["stages"].pop("overlay")["input"]
    return FrameStream(Pipeline(document, frames=last))


def run(
    source: PathText | int,
    *outputs: PathText,
    network: PathText | Document = "road",
    device: str = "auto",
    precision: str = "auto",
    size: tuple[int, int] | None = None,
    every: int | Literal["auto"] = 1,
    threads: int = 1,
    smooth: bool = True,
    palette: str | None = None,
    classes: Sequence[str] | None = None,
    opacity: float | None = None,
    start: float | str = 0,
    duration: float | str | None = None,
    loop: bool = False,
    fps: float | None = None,
    overwrite: bool = False,
) -> Report:
    """Segment a video into every output, as `stream-seg run` does. Return the report of the run.

    An output is a video (.mp4, .mkv), a table (.jsonl), a folder for label maps (masks/), "window" or the URL of a
    page. One that exists is refused, before anything runs, unless `overwrite` is set. The other arguments are those of
    `open`; `classes` are the names of the classes to show, and `opacity`, 0 to 1, is that of their colours. Raises the
    first StreamSegError of any stage, after the files are finished.
    """
    if not outputs:
        raise ConfigError("run: no output; name at least one, such as out.mp4")
    switches = _switches(
        network=network, device=device, precision=precision, size=size, every=every, threads=threads,
        smoothing=smooth, palette=palette, classes=classes, opacity=opacity,
        start=start, duration=duration, loop=loop, fps=fps,
    )  # fmt: skip
    document = _make_document(source, [fspath(output) for output in outputs], switches)
    with Pipeline({**document, "overwrite": overwrite}) as pipeline:
        pipeline.wait()
    return pipeline.report()


def open_engine(
    network: PathText | Document = "road",
    *,
    device: str = "auto",
    precision: str = "auto",
    size: tuple[int, int] | None = None,
    threads: int = 1,
) -> ImageEngine:
    """Open a network for single images: `open_engine("road")(image).labels`. Raises NetworkError or ConfigError."""
    try:
        keys = Segment(_network(network), backend=device, precision=precision, size=size, threads=threads)
    except ValidationError as error:
        fields = Segment.__pydantic_fields__  # type: ignore[attr-defined]
        raise ConfigError(describe_error(error, fields, where="open_engine")) from error
    opened = open_network(keys.network, size=keys.size)
    return ImageEngine(
        open_network_engine(opened, backend=keys.backend, precision=keys.precision, threads=keys.threads)
    )


class ImageEngine:
    """A compiled network that segments one image at a time. A context manager; `close` frees the network."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def classes(self) -> Classes:
        """Class names and colours, by label."""
        return self._engine.spec.classes

    def __call__(self, image: Image) -> Frame:
        """Segment an image of any size, uint8 (H, W, 3) BGR. Raises ValueError for another array."""
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.size) or (
            image.shape[2] != 3
        ):
            raise ValueError(f"expected an image uint8 (H, W, 3) BGR, got {kind}")
        semantic = segment_image(image, self._engine)
        return Frame("image", 0, 0, Fraction(1), time.monotonic_ns(), image, semantic)

    def close(self) -> None:
        """Free the network. Closing twice is allowed."""
        self._engine.close()

    def __enter__(self) -> ImageEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Pipeline:
    """A graph: its frames, its metrics, its report. `with Pipeline("graph.yaml") as pipeline: pipeline.wait()`.

    `graph` is the path of a graph file, a mapping with the same keys (in which `stage:` may also be a class), or a
    checked Config. `settings` are changes such as "smooth.weight=0.6". `frames` names the stage whose frames iteration
    yields; they must then be consumed, since a recording waits for them. `announce` receives lines for the user, such
    as the address of a page. `attended`: a person ends the run, so a page or window may stay after the last frame.

    Raises ConfigError, SourceError or OutputError for a graph that cannot run, before anything is started.
    """

    def __init__(
        self,
        graph: PathText | Document | Config,
        *,
        settings: Sequence[str] = (),
        frames: str | None = None,
        announce: Callable[[str], None] = lambda message: None,
        attended: bool = False,
    ) -> None:
        self.config = graph if isinstance(graph, Config) else _read(graph, settings, frames)
        self.total_frames = total_frames(self.config)
        """Number of frames that the sources will yield; None if unknown."""
        self.graph = Graph(self.config, announce=announce, attended=attended)
        register(self.graph)
        self._announce = announce
        self._resources = ExitStack()
        self._started = False
        self._ended_ns: int | None = None

    def start(self) -> None:
        """Start the metrics server and the stages; `close` follows. Raises ConfigError or OutputError."""
        if self._started:
            raise ConfigError("a pipeline runs once; make another one")
        self._started = True
        with ExitStack() as resources:
            if (metrics := self.config.metrics) is not None:
                url = resources.enter_context(serve_metrics(self.graph, metrics))
                self._announce(f"metrics at {url}")
            if (traces := self.config.traces) is not None:
                from stream_seg.telemetry.tracing import trace_frames  # its package is heavy and optional

                resources.enter_context(trace_frames(self.graph, traces, deadline_ms=self.config.deadline_ms))
            resources.enter_context(self.graph)
            self._resources = resources.pop_all()
        _RUNNING.add(self)

    def close(self) -> None:
        """Stop the stages, finish the files and close everything. Raises nothing: see `error`."""
        _RUNNING.discard(self)
        for tap in self._taps():
            tap.close()
        self._resources.close()
        abandoned = [f"{worker.node.name} ({worker.activity})" for worker in self.graph.abandoned()]
        if abandoned:
            self.graph.fail(StageError(f"gave up on {', '.join(abandoned)}, which did not end"))
        self._ended_ns = self._ended_ns or time.monotonic_ns()

    @property
    def error(self) -> StreamSegError | None:
        """The first error of any stage."""
        return self.graph.error

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after a body without an exception, raise the first error of any stage."""
        self.close()
        if kind is None and self.error is not None:
            raise self.error

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of the stage `frames` until the graph ends. Raises the first error of any stage."""
        taps = self._taps()
        if not taps:
            ends = ", ".join(dict.fromkeys(name for node in self.config.outputs for name in node.inputs))
            raise ConfigError(f"the pipeline yields no frames; name a stage, such as Pipeline(..., frames={ends!r})")
        if not self._started:
            raise ConfigError("the pipeline is not running: use it as a context manager")
        yield from taps[0]
        if self.error is not None:
            raise self.error

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every output has ended. Return False if the time runs out before.

        Raises ConfigError if nothing would end: the pipeline is not running, or nobody has asked for its frames.
        """
        if not self._started or (timeout_s is None and any(not tap.requested for tap in self._taps())):
            raise ConfigError("the pipeline does not run to an end by itself: start it, and iterate over its frames")
        return self.graph.wait(timeout_s)

    def stop(self) -> None:
        """End the sources; frames under way are still processed. Callable from any thread."""
        self.graph.stop()

    def metrics(self) -> dict[str, float]:
        """Return the current value of every metric, by its name and labels as Prometheus writes them."""
        samples = (sample for family in self.graph.registry.collect() for sample in family.samples)
        return {_series(sample.name, sample.labels): sample.value for sample in samples}

    def report(self) -> Report:
        """Return the figures of the run, or of the run so far."""
        ended_ns = self._ended_ns or time.monotonic_ns()
        return Report.of(self.graph, seconds=(ended_ns - self.graph.started_ns) / 1e9)

    def _taps(self) -> list[_Tap]:
        return [worker.stage for worker in self.graph.workers if isinstance(worker.stage, _Tap)]


class FrameStream:
    """The segmented frames of a source: an iterator and a context manager.

    The source opens with the first frame. It closes after the last one, with `close`, and when the object is deleted.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._frames = _run(pipeline)  # holds no reference to self: an abandoned stream closes at once

    @property
    def total_frames(self) -> int | None:
        """Number of frames of a recording; None if unknown."""
        return self.pipeline.total_frames

    def close(self) -> None:
        """Stop the pipeline and close the source. Closing twice is allowed, and closing from another thread."""
        self.pipeline.stop()
        for tap in self.pipeline._taps():
            tap.close()
        with suppress(ValueError):  # another thread iterates: its iteration ends now, and closes the pipeline
            self._frames.close()

    def __iter__(self) -> FrameStream:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(pipeline: Pipeline) -> Generator[Frame, None, None]:
    with pipeline:
        yield from pipeline


@dataclass
class _Tap:
    """An output that hands frames to an iterator in another thread, each when the iterator asks for it."""

    traits = Traits(role="output")

    def __post_init__(self) -> None:
        self._requests, self._frames = Semaphore(0), SimpleQueue[Frame | None]()
        self.requested = self._closed = False
        self._context = Context()

    def bind(self, context: Context) -> _Tap:
        """Return the stage, which waits for its iterator as long as that takes."""
        self._context = context
        return self

    def __call__(self, frames: Frames) -> Frames:
        try:
            while self._wait_for_request() and not self._closed:
                frame = next(frames, None)
                if frame is None:
                    return
                self._frames.put(frame)
                yield frame
        finally:
            self._frames.put(None)

    def _wait_for_request(self) -> bool:
        self._context.busy("waiting for the iterator", within_s=inf)
        return self._requests.acquire()

    def __iter__(self) -> Iterator[Frame]:
        self.requested = True
        while True:
            self._requests.release()
            frame = self._frames.get()
            if frame is None:
                self._frames.put(None)  # another iteration ends at once as well
                return
            yield frame

    def close(self) -> None:
        """End the stage, which may be waiting for a request."""
        self._closed = True
        self._requests.release()


def check_config(document: Document, *, where: str, loader: StageLoader, report_file: Path | None = None) -> Config:
    """Return the config of a document. Raises ConfigError, and OutputError for an output that would overwrite."""
    config = check(document, where=where, loader=loader)
    refuse_overwriting(config, report_file=report_file, inputs=[Path(where)])
    return config


def _read(graph: PathText | Document, settings: Sequence[str], frames: str | None) -> Config:
    """Return the config of a graph file or mapping, with an output for the frames of the stage `frames`."""
    where, loader = "graph", StageLoader()
    if isinstance(graph, Mapping):
        document = dict(graph)
    else:
        where, loader = fspath(graph), StageLoader(Path(graph).parent)
        document = read_document(Path(graph))
    document = apply_settings(document, settings)
    if frames is not None:
        stages = document.get("stages")
        names = [*stages] if isinstance(stages, Mapping) else []
        if frames not in names:
            raise ConfigError(f"{where}: frames: {describe_unknown('stage', frames, names)}")
        name = next(name for number in count() if (name := "frames" + "_" * number) not in names)
        document["stages"] = {**document["stages"], name: {"stage": _Tap, "input": frames}}
    return check_config(document, where=where, loader=loader)


def _make_document(source: PathText | int, outputs: Sequence[str], switches: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default graph from a source into outputs, if there are any, with the switches set."""
    document = with_input(default_document(), _path_text(source))
    if outputs:
        document = with_outputs(document, outputs)
    return apply_switches(document, switches, where="graph", prefix="")


def _switches(*, network: PathText | Document, **values: Any) -> dict[str, Any]:
    """Return the values of switches, None for those that change nothing: not every source has a start or a loop."""
    unset = {"start": 0, "loop": False}
    return {"network": _network(network)} | {
        name: None if value == unset.get(name) else value for name, value in values.items()
    }


def _network(network: PathText | Document) -> str | dict[str, Any]:
    return dict(network) if isinstance(network, Mapping) else fspath(network)


def _path_text(source: object) -> str:
    if isinstance(source, str | int | PathLike):
        return str(source) if isinstance(source, int) else str(fspath(source))
    raise ConfigError(f"source: expected a path, a URL or a camera number, got {type(source).__name__}")


def _series(name: str, labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{pairs}}}" if pairs else name
