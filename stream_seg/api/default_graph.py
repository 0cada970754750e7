"""The main job: a source through the default graph, into outputs or to the caller."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from os import fspath
from typing import Any, Literal

from stream_seg.api.arguments import Document, PathText, network_key, source_address
from stream_seg.api.pipeline import Pipeline
from stream_seg.config.overrides import default_document, with_input, with_outputs
from stream_seg.config.switches import apply_switches
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame
from stream_seg.runtime.report import Report


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
    speed: Literal["fast", "balanced", "small"] | None = None,
    overwrite: bool = False,
) -> Report:
    """Segment a video into every output, as `stream-seg run` does. Return the report of the run.

    An output is a video (.mp4, .mkv), a table (.jsonl), a folder for label maps (masks/), "window" or the URL of a
    page. One that exists is refused, before anything runs, unless `overwrite` is set. The other arguments are those of
    `open`; `classes` are the names of the classes to show, and `opacity`, 0 to 1, is that of their colours;
    `speed` is that of the encoder: "fast", "balanced" or "small". Raises the first StreamSegError of any stage, after
    the files are finished.
    """
    if not outputs:
        raise ConfigError("run: no output; name at least one, such as out.mp4")
    switches = _switches(
        network=network, device=device, precision=precision, size=size, every=every, threads=threads,
        smoothing=smooth, palette=palette, classes=classes, opacity=opacity,
        start=start, duration=duration, loop=loop, fps=fps, speed=speed,
    )  # fmt: skip
    document = _make_document(source, [fspath(output) for output in outputs], switches)
    with Pipeline({**document, "overwrite": overwrite}) as pipeline:
        pipeline.wait()
    return pipeline.report()


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
        self.pipeline.end_iterations()
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


def _make_document(source: PathText | int, outputs: Sequence[str], switches: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default graph from a source into outputs, if there are any, with the switches set."""
    document = with_input(default_document(), source_address(source))
    if outputs:
        document = with_outputs(document, outputs)
    return apply_switches(document, switches, where="graph", prefix="")


def _switches(*, network: PathText | Document, **values: Any) -> dict[str, Any]:
    """Return the values of switches, None for those that change nothing: not every source has a start or a loop."""
    unset = {"start": 0, "loop": False}
    return {"network": network_key(network)} | {
        name: None if value == unset.get(name) else value for name, value in values.items()
    }
