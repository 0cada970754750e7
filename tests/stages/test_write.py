"""`write`: its video files, read back with PyAV only."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import Frame
from stream_seg.stages.video_file import fit_image
from stream_seg.stages.write import Write
from stream_seg.types import Image
from tests.support.clips import is_ordinary_mp4, number_image, read_number, read_video
from tests.support.program import list_folder

TICK = Fraction(1, 12800)
IRREGULAR = [7, 512, 1024, 1025, 1700, 4000, 4001, 9000, 9512, 15000]


def frames(pts: Iterable[int], *, time_base: Fraction = TICK, stream: str = "front") -> Iterator[Frame]:
    for seq, at in enumerate(pts):
        yield Frame(stream, seq, at, time_base, 0, number_image(seq, (160, 120)))


def write(path: Path, source: Iterator[Frame]) -> list[tuple[Fraction, Image]]:
    list(Write(path)(source))
    return read_video(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_frame_is_there_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    frames_out = list(Write(path)(frames(range(0, 60 * 512, 512))))
    assert [frame.seq for frame in frames_out] == list(range(60))
    assert [read_number(image) for _, image in read_video(path)] == list(range(60))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("pts", "fps", "numbers"),
    [
        (range(0, 10 * 512, 512), 25, [*range(10)]),
        (range(0, 10 * 512, 512), 12.5, [0, 2, 4, 6, 8]),
        (range(0, 4 * 1280, 1280), 25, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (range(7, 7 + 3 * 427, 427), 29.97, [0, 1, 2]),
        ([0, 100, 6400, 6500, 12800], 4, [0, 0, 2, 2, 4]),  # the last one lasts as long as the shortest step
        ([0, 12800], 0.5, [0]),
        ([512], 4, [0]),
    ],
)
def test_a_constant_rate_is_exact(tmp_path: Path, pts: Sequence[int], fps: float, numbers: list[int]) -> None:
    for suffix in (".mp4", ".mkv"):
        list(Write(tmp_path / f"out{suffix}", fps=fps)(frames(pts)))
        read = read_video(tmp_path / f"out{suffix}")
        assert [read_number(image) for _, image in read] == numbers
        exact = [number / Fraction(str(fps)) for number in range(len(numbers))]
        assert [time for time, _ in read] == [round(time, 3) if suffix == ".mkv" else time for time in exact]
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(str(fps))
        assert stream.duration is not None
        assert stream.duration * stream.time_base == len(numbers) / Fraction(str(fps))


@pytest.mark.parametrize("time_base", [TICK, Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 1_000_000)])
def test_irregular_times_are_kept_exactly(tmp_path: Path, time_base: Fraction) -> None:
    times = [time for time, _ in write(tmp_path / "out.mp4", frames(IRREGULAR, time_base=time_base))]
    assert times == [(at - IRREGULAR[0]) * time_base for at in IRREGULAR]


def test_matroska_keeps_times_to_the_millisecond(tmp_path: Path) -> None:
    pts = [at * 11 for at in IRREGULAR if at not in (1025, 4001)]
    times = [time for time, _ in write(tmp_path / "out.mkv", frames(pts))]
    assert max(abs(time - (at - pts[0]) * TICK) for time, at in zip(times, pts, strict=True)) <= Fraction(1, 2000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("pts", "length_ms"),
    [
        ([0, 40, 80, 120], 160),
        ([0, 40, 80, 280], 320),
        ([0, 40, 80, 300_080], 300_120),
        ([0, 40, 300_040, 300_080, 300_120], 300_160),
        ([0, 5000], 6000),
    ],
    ids=["even", "one longer step", "a pause before the last", "a pause", "only a pause"],
)
def test_the_last_frame_lasts_one_usual_interval(
    tmp_path: Path, suffix: str, pts: Sequence[int], length_ms: int
) -> None:
    path = tmp_path / f"out{suffix}"
    assert [time * 1000 for time, _ in write(path, frames(pts, time_base=Fraction(1, 1000)))] == pts
    with av.open(str(path)) as container:
        assert container.duration == length_ms * 1000


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30_000, 1001), Fraction(60)])
def test_the_header_has_the_rate_of_the_frames(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, frames(range(30), time_base=1 / rate))
    with av.open(str(path)) as container:
        average = container.streams.video[0].average_rate
        assert average is not None
        assert average == pytest.approx(rate, rel=0.02)


def test_matroska_has_the_configured_rate_in_its_header(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    list(Write(path, rate=50)(frames(range(5), time_base=Fraction(1, 25))))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 50
    assert [time for time, _ in read_video(path)] == [Fraction(at, 25) for at in range(5)]


def test_a_single_frame_makes_a_video(tmp_path: Path) -> None:
    assert [read_number(image) for _, image in write(tmp_path / "out.mp4", frames([77]))] == [0]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(1 / 30, abs=1e-3)


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, 40, 40, 30, 120], [0, 40, 41, 42, 120]),
        ([90_000, 90_040, 0, 40, 80], [0, 40, 80, 120, 160]),
        ([0, 40, 9_000_000, 9_000_040], [0, 40, 80, 120]),
        ([90_000, 90_040, 0, 30, 100], [0, 40, 80, 110, 180]),
        ([0, 40, 300_040, 0, 30], [0, 40, 300_040, 300_080, 300_110]),
    ],
    ids=[
        "a time that does not increase",
        "a clock that restarts at 0",
        "a clock that leaps ahead by hours",
        "a clock that restarts at 0, unevenly",
        "a clock that restarts at 0 after a pause",
    ],
)
def test_times_that_jump(tmp_path: Path, pts: Sequence[int], expected: Sequence[int]) -> None:
    times = [time for time, _ in write(tmp_path / "out.mp4", frames(pts, time_base=Fraction(1, 1000)))]
    assert times == [Fraction(at, 1000) for at in expected]


def test_times_are_independent_of_the_time_base(tmp_path: Path) -> None:
    first, second = frames([0, 25], time_base=Fraction(1, 1000)), frames([4500, 6750], time_base=Fraction(1, 90_000))
    times = [time for time, _ in write(tmp_path / "out.mp4", iter([*first, *second]))]
    assert [time * 1000 for time in times] == [0, 25, 50, 75]


def test_colours_are_preserved(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (0, 0, 230), (0, 200, 0), (220, 0, 0), (20, 180, 250)]
    image = np.repeat(np.repeat(np.array([colours], np.uint8), 64, axis=0), 32, axis=1)
    source = (Frame("front", seq, seq, Fraction(1, 25), 0, image) for seq in range(3))
    list(Write(tmp_path / "out.mp4", crf=1)(source))
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.profile) == ("yuv420p", "High")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        for frame in container.decode(video=0):  # by the tags of the file, as in a player
            centers = frame.to_ndarray(format="bgr24")[32, 16::32]
            assert np.abs(centers.astype(int) - colours).max() <= 4


def test_a_finished_file_is_an_ordinary_mp4(tmp_path: Path) -> None:
    """Without fragments: all frames are in one block, and one index lists them."""
    path = tmp_path / "out.mp4"
    write(path, frames(range(0, 60 * 512, 512)))
    assert is_ordinary_mp4(path)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60


@pytest.mark.parametrize("size", [(63, 97), (3, 3), (64, 97)])
def test_an_odd_side_loses_one_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    image.flags.writeable = False
    source = (Frame("front", seq, seq, Fraction(1, 25), 0, image) for seq in range(2))
    shapes = {image.shape for _, image in write(tmp_path / "out.mp4", source)}
    assert shapes == {(size[0] // 2 * 2, size[1] // 2 * 2, 3)}


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 8), "H.264 needs at least 2 pixels a side; the image is 8x1"),
        ((4, 16400), "H.264 ends at 16384 pixels a side; the image is 16400x4"),
        ((16386, 4), "H.264 ends at 16384 pixels a side; the image is 4x16386"),
        ((16200, 16384), "the encoder ends at 262 million pixels; the image is 16384x16200"),
    ],
)
def test_an_image_that_the_codec_cannot_hold_is_an_error(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    image = np.broadcast_to(np.zeros(3, np.uint8), (*size, 3))
    with pytest.raises(OutputError) as error:
        list(Write(tmp_path / "out.mp4")(iter([Frame("front", 0, 0, TICK, 0, image)])))
    assert str(error.value) == f"cannot write {tmp_path / 'out.mp4'}: {message}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(2, 2), (2, 16384), (16384, 2), (16, 16385)])
def test_the_smallest_and_the_largest_images_are_written(tmp_path: Path, size: tuple[int, int]) -> None:
    source = (Frame("front", seq, seq, TICK, 0, np.full((*size, 3), 90, np.uint8)) for seq in range(2))
    assert len(write(tmp_path / "out.mp4", source)) == 2


def test_an_image_of_another_size_is_scaled_to_fit(tmp_path: Path) -> None:
    wide = np.full((60, 160, 3), 200, np.uint8)
    source = list(frames([0, 512]))
    images = [image for _, image in write(tmp_path / "out.mp4", iter([source[0], replace(source[1], image=wide)]))]
    assert [image.shape for image in images] == [(120, 160, 3)] * 2
    assert images[1][60].mean() > 190
    assert max(images[1][5].mean(), images[1][-5].mean()) < 10


def test_fitting_keeps_the_aspect_ratio() -> None:
    tall = np.full((400, 100, 3), 255, np.uint8)
    fit = fit_image(tall, (100, 200))
    assert fit.shape == (100, 200, 3)
    assert np.flatnonzero(fit[50, :, 0] > 128).tolist() == list(range(87, 112))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_stopped_run_leaves_a_playable_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    stage = Write(path)(frames(count(0, 512)))
    for _ in range(7):
        next(stage)
    assert not path.exists()
    stage.close()  # type: ignore[attr-defined]
    assert [read_number(image) for _, image in read_video(path)] == list(range(7))
    assert list(tmp_path.iterdir()) == [path]


def test_without_frames_no_file_is_written(tmp_path: Path) -> None:
    assert list(Write(tmp_path / "out.mp4")(iter([]))) == []
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_output_is_an_error_before_the_first_frame(tmp_path: Path) -> None:
    source = frames(count())
    for path in (tmp_path / "no/such/out.mp4", tmp_path / "no/such/{stream}.mp4"):
        with pytest.raises(OutputError, match="no such folder"):
            next(Write(path)(source))
    assert next(source).seq == 0


def test_each_stream_has_its_own_file(tmp_path: Path) -> None:
    both = [frame for pair in zip(frames(range(4)), frames(range(4), stream="rear"), strict=True) for frame in pair]
    with pytest.raises(ConfigError, match=r"front, rear cannot share .*out\.mp4; .*out-\{stream\}\.mp4"):
        list(Write(tmp_path / "out.mp4")(iter(both)))
    assert list_folder(tmp_path) == ["out.partial.mp4"]
    list(Write(tmp_path / "out-{stream}.mp4")(iter(both)))
    assert [len(read_video(tmp_path / f"out-{stream}.mp4")) for stream in ("front", "rear")] == [4, 4]


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match=r"'out\.avi' does not end in \.mp4 or \.mkv"):
        Write("out.avi")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"rate is for \.mkv"):
        Write("out.mp4", rate=50)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="less than or equal to 51"):
        Write("out.mp4", crf=52)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="veryfast"):
        Write("out.mp4", preset="quick")  # type: ignore[arg-type]


FILL = """
import os, resource, signal, sys
from fractions import Fraction
import numpy as np
from stream_seg.errors import OutputError
from stream_seg.frame import Frame
from stream_seg.stages.base import Context
from stream_seg.stages.write import Write
from tests.support.clips import count_frames
if len(sys.argv) > 2:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
noise = np.random.default_rng(0)
frames = (Frame("a", n, n, Fraction(1, 30), 0, noise.integers(0, 256, (240, 320, 3), np.uint8)) for n in range(60))
names = []
stage = Write(sys.argv[1], preset="ultrafast").bind(Context(recorded=True, truncated=names.append))
try:
    print(len(list(stage(frames))))
except OutputError as error:
    print(error)
    print(*names)
folder = os.path.dirname(sys.argv[1])
print(*((name, count_frames(f"{folder}/{name}")) for name in os.listdir(folder)))
"""


def check_filled(path: Path, output: str, reason: str) -> None:
    """Check what FILL prints: the error, the file that it names, and how many of its frames can be decoded."""
    error, name, counts = output.splitlines()
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    assert error == f"cannot write {path}: {reason}"
    assert (match := re.fullmatch(rf"{re.escape(str(partial))} after (\d+) frames \((\d\.\d\d) s\)", name)), name
    assert int(match[1]) > 1
    assert float(match[2]) == pytest.approx(int(match[1]) / 30, abs=0.01)
    assert counts == str((partial.name, int(match[1])))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_that_exceeds_a_limit_keeps_its_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", FILL, str(path), "1000000"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    check_filled(path, run.stdout, "the file is larger than this system allows")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_that_cannot_take_its_header(tmp_path: Path, suffix: str) -> None:
    """FFmpeg crashes if it writes a header a second time. An empty file is not kept."""
    path = tmp_path / f"out{suffix}"
    run = subprocess.run([sys.executable, "-c", FILL, str(path), "0"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"cannot write {path}: the file is larger than this system allows\n\n\n"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_keeps_the_frames(tmp_path: Path, suffix: str) -> None:
    small_disk = f"mount -t tmpfs -o size=1000k none '{tmp_path}' && "
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", f"{small_disk} true"]).returncode:
        pytest.skip("a small disk cannot be mounted here")
    path = tmp_path / f"out{suffix}"
    script = f"{small_disk} '{sys.executable}' -c \"$0\" '{path}'"
    command = ["unshare", "-rm", "sh", "-c", script, FILL]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    check_filled(path, run.stdout, "disk full")
