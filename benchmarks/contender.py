"""Run one contender of compare.py in this process: all but the pipeline, which is a program itself.

`limits` measures the CPU time of decoding, of the network and of encoding, each alone, one image after the other: no
program that does all three takes less. `agreement` compares the labels of the pipeline and of the expert.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import av
import cv2
import numpy as np
import typer
from expert import Expert, decode, encode, leave, run, to_frame, to_image
from measured import Marks
from surroundings import run_command

from stream_seg.engines.open import open_engine
from stream_seg.network.network import open_network
from stream_seg.ops.labels import resize_labels
from stream_seg.ops.resize import resize_image
from stream_seg.stages.capture import Capture
from stream_seg.stages.segment import Segment

Contender: TypeAlias = Callable[[Path, Path | None, int, Callable[[], None]], None]
"""Segments the first frames of a clip into a video or into nothing, and calls a function for each that leaves."""
T = TypeVar("T")
COMPARED_FRAMES = 10


def main(
    name: Annotated[str, typer.Argument(help="The contender, limits or agreement.")],
    clip: Annotated[Path, typer.Argument(help="The video.")],
    figures: Annotated[Path, typer.Argument(help="The file to write, JSON.")],
    frames: Annotated[int, typer.Option(help="Frames to read, at most.")],
    output: Annotated[Path | None, typer.Option(help="The video to write; none: drop the frames.")] = None,
) -> None:
    """Run one contender and write its figures."""
    threading.excepthook = _end_process
    if name in MEASUREMENTS:
        figures.write_text(json.dumps(MEASUREMENTS[name](clip, frames)), encoding="utf-8")
        return
    marks = Marks()
    CONTENDERS[name](clip, output, frames, marks.add)
    marks.write(figures)


def run_expert(clip: Path, output: Path | None, frames: int, mark: Callable[[], None], *, interpolation: int) -> None:
    """Run the expert's loop."""
    run(clip, output, Expert(interpolation), frames=frames, mark=mark)


def run_expert_plus(clip: Path, output: Path | None, frames: int, mark: Callable[[], None]) -> None:
    """Run the expert's loop with tricks of the pipeline."""
    from expert_plus import ExpertPlus

    run(clip, output, ExpertPlus(), frames=frames, mark=mark)


def run_baseline(clip: Path, output: Path | None, frames: int, mark: Callable[[], None], *, kind: str) -> None:
    """Run a loop of baselines.py on one thread: read, segment, draw and write an image, then the next one."""
    from baselines import Decent, Naive, extract_plain_onnx, open_session, read_spec

    network = open_network("road")
    spec, session = read_spec(network), open_session(extract_plain_onnx(network), threads=1)
    loop = Naive(spec, session) if kind == "naive" else Decent(spec, session)
    leave(map(loop.draw, map(to_image, islice(decode(clip), frames))), output, mark)


def measure_limits(clip: Path, frames: int) -> dict[str, float]:
    """Return the CPU-ms per frame of decoding without conversion, of the network and of encoding, each alone."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        decoded, decode_ms = _measure_cpu_ms(lambda: list(islice(container.decode(video=0), frames)))
    images = [to_image(frame) for frame in decoded]
    with open_engine(open_network("road")) as engine:
        inputs = [resize_image(image, engine.spec.size)[None] for image in images]
        engine.infer(inputs[0])
        _, network_ms = _measure_cpu_ms(lambda: [engine.infer(image) for image in inputs])
    expert = Expert()
    overlays = [expert.draw(image, labels) for image, labels in expert.segment(images)]
    converted = [frame.reformat(format="yuv420p") for frame in map(to_frame, overlays)]
    _, encode_ms = _measure_cpu_ms(lambda: encode(converted, clip.with_name("limit.mp4"), lambda: None))
    limits = {"decode": decode_ms, "network": network_ms, "encode": encode_ms}
    return {name: cpu_ms / len(images) for name, cpu_ms in limits.items()}


def compare_labels(clip: Path, frames: int) -> dict[str, float]:
    """Return the share of pixels, at the network's size, that the pipeline and the expert give the same class."""
    captured = list(islice(Capture(str(clip))(iter(())), 0, frames, max(1, frames // COMPARED_FRAMES)))
    theirs = [labels for _, labels in Expert().segment([frame.image for frame in captured])]
    shares = []
    for frame, labels in zip(Segment()(iter(captured)), theirs, strict=True):
        assert frame.semantic is not None
        ours = frame.semantic.labels
        shares.append(float(np.mean(ours == resize_labels(labels, ours.shape[:2]))))
    return {"agreement": sum(shares) / len(shares)}


def _measure_cpu_ms(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `work` and the CPU milliseconds of all threads."""
    began_s = time.process_time()
    result = work()
    return result, 1000 * (time.process_time() - began_s)


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """Report the exception of a thread and end the process, whose other threads would wait for it."""
    threading.__excepthook__(failure)
    os._exit(1)


CONTENDERS: dict[str, Contender] = {
    "expert": partial(run_expert, interpolation=cv2.INTER_LINEAR),
    "expert_area": partial(run_expert, interpolation=cv2.INTER_AREA),
    "expert_plus": run_expert_plus,
    "decent": partial(run_baseline, kind="decent"),
    "naive": partial(run_baseline, kind="naive"),
}
MEASUREMENTS = {"limits": measure_limits, "agreement": compare_labels}

if __name__ == "__main__":
    run_command(main)
