"""Measure the speeds of the encoder: CPU time, size and SSIM, on frames that were segmented and drawn.

Every contender encodes the same frames in turns (A B A B), into memory. SSIM is that of luma, against the frames before
encoding, in windows of 8x8 pixels. `crf 20` is the preset veryfast, the default before there was `speed`. Size and SSIM
do not depend on the load of the machine.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import av
import cv2
import numpy as np
import typer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from load import BusyOk, describe_load, measure_quietly
from numpy.typing import NDArray
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

import stream_seg
from stream_seg.config.overrides import default_document, with_input
from stream_seg.stages.encoder import SPEEDS, Encoding, add_stream
from stream_seg.stages.encoder_frames import EncoderFrames
from stream_seg.types import Image

RATE = Fraction(30)
SYNTHETIC = "synth://road?size={size}&seed=7"
WINDOW = (8, 8)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants of SSIM (Wang et al., IEEE TIP 2004)."""


def main(
    videos: Annotated[
        list[Path] | None, typer.Argument(metavar="VIDEO", help="Clips to segment, draw and encode; none: synthetic.")
    ] = None,
    sizes: Annotated[list[str] | None, typer.Option("--size", metavar="WxH", help="Of synthetic drives.")] = None,
    frames: Annotated[int, typer.Option(min=4, help="Frames of each clip.")] = 90,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each contender encodes a clip.")] = 3,
    busy_ok: BusyOk = False,
    json_file: JsonFile = None,
) -> None:
    """Measure CPU time, size and SSIM of every speed of the encoder."""
    clips = {path.name: str(path) for path in videos or []}
    if not clips:
        clips = {size: SYNTHETIC.format(size=size) for size in sizes or ("960x540", "1920x1080")}
    facts: dict[str, Any] = {"machine": describe_machine(), "clips": {}, "conversion": {}}
    loads = []
    for name, source in clips.items():
        images = draw(source, frames)
        (facts["clips"][name], facts["conversion"][name]), load = measure_quietly(
            lambda images=images: (measure_encoders(images, rounds), measure_conversions(images)),  # type: ignore[misc]
            busy_ok=busy_ok,
        )
        loads.append(load)
    facts["load"] = describe_load(loads)
    table = figures_table("encoder", "clip", "contender", "CPU-ms/frame", "size", "SSIM", "difference")
    for name, rows in facts["clips"].items():
        for contender, row in rows.items():
            cells = (f"{row['cpu_ms']:.2f}", f"{row['size']:.2f}", f"{row['ssim']:.4f}", f"{row['difference']:+.4f}")
            table.add_row(name, contender, *cells)
    conversion = figures_table("BGR to 4:2:0", "clip", "ours, CPU-ms", "swscale, CPU-ms")
    for name, row in facts["conversion"].items():
        conversion.add_row(name, f"{row['ours']:.2f}", f"{row['swscale']:.2f}")
    print_results(facts, [table, conversion], json_file)


def draw(source: str, frames: int) -> list[Image]:
    """Return the images of a source through the default graph, with classes, legend and figures, at even sides."""
    document = with_input(default_document(), source)
    with stream_seg.Pipeline(document, frames="overlay") as pipeline:
        images = [frame.image for frame in islice(pipeline, frames)]
    return [np.ascontiguousarray(image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]) for image in images]


def measure_encoders(images: Sequence[Image], rounds: int) -> dict[str, dict[str, float]]:
    """Return CPU-ms per frame, size in units of balanced, SSIM, and its difference to that of balanced."""
    contenders = {name: make_encoding(name) for name in SPEEDS} | {"crf 20": make_encoding("balanced", "veryfast", 20)}
    height, width = images[0].shape[:2]
    converter = EncoderFrames((height, width), reuse=False)
    frames = [converter.convert(image) for image in images]
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    files: dict[str, io.BytesIO] = {}
    for _ in range(rounds):
        for name, encoding in contenders.items():
            began_s = time.process_time()
            files[name] = encode(frames, encoding)
            times_ms[name].append(1000 * (time.process_time() - began_s) / len(frames))
    similarity = {name: compare(file, frames) for name, file in files.items()}
    return {
        name: {
            "cpu_ms": round(median(times_ms[name]), 3),
            "size": round(file.getbuffer().nbytes / files["balanced"].getbuffer().nbytes, 3),
            "ssim": round(similarity[name], 5),
            "difference": round(similarity[name] - similarity["balanced"], 5),
        }
        for name, file in files.items()
    }


def make_encoding(speed: Any, preset: str | None = None, crf: int | None = None) -> Encoding:
    """Return the settings of a speed, or of a preset and a crf."""
    return Encoding(speed, crf, preset, rate=None, fps=None, threads=None, title=None)


def encode(frames: Sequence[av.VideoFrame], encoding: Encoding) -> io.BytesIO:
    """Return an MP4 file of the frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        size = frames[0].height, frames[0].width
        stream = add_stream(container, encoding, size=size, rate=RATE, tick=1 / RATE)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.duration = number, 1 / RATE, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def compare(file: io.BytesIO, frames: Sequence[av.VideoFrame]) -> float:
    """Return the mean SSIM of luma over the frames of a file."""
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = container.decode(video=0)
        return float(np.mean([ssim(read_luma(a), read_luma(b)) for a, b in zip(decoded, frames, strict=True)]))


def read_luma(frame: av.VideoFrame) -> NDArray[np.float32]:
    """Return the luma of a frame, float32 (H, W)."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width].astype(np.float32)


def ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the mean structural similarity of two images (Wang et al., IEEE TIP 2004) in windows of WINDOW pixels."""

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(values, -1, WINDOW), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    structure = (2 * covariance + C2) / (variances + C2)
    return float((structure * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)).mean())


def measure_conversions(images: Sequence[Image]) -> dict[str, float]:
    """Return the CPU-ms to convert one image, by ours and by FFmpeg's swscale, in turns."""
    converter, reformatter = EncoderFrames((images[0].shape[0], images[0].shape[1]), reuse=True), VideoReformatter()

    def scale(image: Image) -> None:
        frame = av.VideoFrame.from_numpy_buffer(image, format="bgr24")
        keys = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
        reformatter.reformat(frame, format="yuv420p", **keys)

    contenders: dict[str, Any] = {"ours": converter.convert, "swscale": scale}
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for image in images:
        for name, convert in contenders.items():
            began_s = time.process_time()
            convert(image)
            times_ms[name].append(1000 * (time.process_time() - began_s))
    return {name: round(median(values), 3) for name, values in times_ms.items()}


if __name__ == "__main__":
    run_command(main)
