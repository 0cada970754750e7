"""The Python API: what it yields, what it raises before the first frame, and that it leaves nothing running."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import numpy as np
import psutil
import pytest

import stream_seg
from stream_seg.api.tap import Tap
from stream_seg.stages.segment import Segment
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.synthetic import Synthetic
from tests.support.clips import number_image, write_video
from tests.support.frames import make_frame

DRIVE = "synth://road?size=96x64&frames=12"


def threads() -> set[str]:
    """Return the names of the threads that belong to pipelines."""
    return {thread.name for thread in threading.enumerate() if thread is not threading.main_thread()}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Check that a test leaves no thread and no socket behind."""
    process, before = psutil.Process(), threads()
    sockets = len(process.net_connections())
    yield
    assert threads() <= before
    assert len(process.net_connections()) == sockets


def test_every_public_name_can_be_imported() -> None:
    for name in stream_seg.__all__:
        assert getattr(stream_seg, name) is not None
    assert set(stream_seg.__all__) <= set(dir(stream_seg))
    with pytest.raises(AttributeError, match="no attribute 'opn'"):
        _ = stream_seg.opn


def test_import_is_fast_and_the_api_is_complete() -> None:
    """`import stream_seg` loads no engine and no graph; a star import gives exactly `__all__`."""
    script = (
        "import sys, stream_seg; assert not {'openvino', 'zmq', 'numba', 'torch'} & set(sys.modules), sys.modules;"
        "space = {}; exec('from stream_seg import *', space); space.pop('__builtins__');"
        "assert sorted(space) == sorted(stream_seg.__all__), space"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_frames_carry_labels_of_their_own_size() -> None:
    frames = list(stream_seg.open(DRIVE))
    assert [frame.seq for frame in frames] == list(range(12))
    assert frames[-1].time_s == pytest.approx(11 / 30)
    for frame in frames:
        assert frame.image.shape == (64, 96, 3)
        assert frame.image.dtype == frame.labels.dtype == np.uint8
        assert frame.labels.shape == (64, 96)
        assert frame.labels_at((30, 40)).shape == (30, 40)
        assert set(np.unique(frame.labels)) <= {*range(len(frame.classes)), 255}
    assert "road" in frames[0].classes.names


@pytest.mark.parametrize("smooth", [True, False])
def test_frames_equal_those_of_the_stages_alone(smooth: bool) -> None:
    frames = list(Segment()(Synthetic(width=96, height=64, frames=12)(iter(()))))
    expected = list(Smooth()(iter(frames))) if smooth else frames
    for frame, reference in zip(stream_seg.open(DRIVE, smooth=smooth), expected, strict=True):
        assert np.array_equal(frame.labels, reference.labels)


def test_the_network_is_asked_at_key_frames_only_and_at_the_size_given() -> None:
    frames = list(stream_seg.open(DRIVE, every=4, size=(96, 160), smooth=False))
    assert [frame.seq for frame in frames if frame.temporal is None or frame.temporal.key] == [0, 4, 8]
    assert frames[0].semantic is not None
    assert frames[0].semantic.size == (96, 160)


def test_a_stream_knows_its_length(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", (number_image(n, (96, 64)) for n in range(5)))
    with stream_seg.open(clip) as frames:
        assert frames.total_frames == 5
    with stream_seg.open("synth://road?size=96x64") as endless:
        assert endless.total_frames is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "missing.mp4"}, stream_seg.SourceError, "missing.mp4: no such file"),
        ({"source": "ftp://host/x"}, stream_seg.ConfigError, "unknown scheme ftp://"),
        ({"source": DRIVE, "network": "raod"}, stream_seg.ConfigError, "unknown network 'raod'"),
        ({"source": DRIVE, "every": 0}, stream_seg.ConfigError, "^every: expected whole number >= 1"),
        (
            {"source": DRIVE, "device": "abacus"},
            stream_seg.ConfigError,
            "^device: expected auto or .*, got 'abacus'",
        ),
        ({"source": DRIVE, "size": (4, 4)}, stream_seg.ConfigError, "^size"),
    ],
)
def test_bad_input_raises_before_the_first_frame(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        stream_seg.open(**arguments)
    settings = {key: value for key, value in arguments.items() if key != "source"}
    with pytest.raises(error, match=message):
        stream_seg.run(arguments["source"], "out.mp4", **settings)


def test_closing_early_ends_everything() -> None:
    before = threads()
    for frame in stream_seg.open("synth://road?size=96x64"):
        if frame.seq == 2:
            break
    assert threads() <= before
    frames = stream_seg.open("synth://road?size=96x64")
    assert next(frames).seq == 0
    frames.close()
    frames.close()
    assert list(frames) == []


def test_an_exception_in_the_loop_ends_everything() -> None:
    def fail() -> None:
        for _ in stream_seg.open("synth://road?size=96x64"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_frames_are_iterated_in_another_thread() -> None:
    sequence: list[int] = []
    thread = threading.Thread(target=lambda: sequence.extend(frame.seq for frame in stream_seg.open(DRIVE)))
    thread.start()
    thread.join(60)
    assert sequence == list(range(12))


def test_ctrl_c_in_a_loop_ends_the_program_at_once() -> None:
    script = (
        "import stream_seg, sys\n"
        "for frame in stream_seg.open('synth://road?size=96x64&paced=1'):\n"
        "    print(frame.seq, flush=True)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline().strip().isdigit()
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


@pytest.mark.parametrize("instruction", range(1, 100))
def test_an_iterator_that_is_interrupted_anywhere_leaves_nothing_locked(instruction: int) -> None:
    tap, count = Tap(), 0

    def interrupt(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        if count == instruction:
            count += 1
            raise KeyboardInterrupt
        return interrupt

    stage = Thread(target=lambda: list(tap(make_frame(seq) for seq in range(3))), daemon=True)
    stage.start()
    frames, before = iter(tap), sys.gettrace()
    sys.settrace(interrupt)
    try:
        for _ in range(2):
            next(frames)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    closing = Thread(target=tap.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    stage.join(10)
    assert not stage.is_alive()


def test_run_writes_the_outputs_and_returns_the_report(tmp_path: Path) -> None:
    report = stream_seg.run(DRIVE, tmp_path / "out.mp4", tmp_path / "out.jsonl", f"{tmp_path}/masks/", smooth=False)
    assert report.frames.written == 12
    assert report.error is None
    assert report.engine is not None
    assert report.engine.network == "road"
    assert report.fps > 0
    assert report.stages["segment"].frames == 12
    assert (tmp_path / "out.mp4").stat().st_size
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 12
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12
    assert report.to_dict()["frames"]["captured"] == 12


def test_run_replaces_an_output_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(stream_seg.OutputError, match=r"the file exists; .*overwrite=True"):
        stream_seg.run(DRIVE, out)
    assert out.read_text() == "mine"
    assert stream_seg.run(DRIVE, out, overwrite=True).frames.written == len(out.read_text().splitlines()) == 12
    graph = {"stages": {"synthetic": {"frames": 1}, "records": {"input": "synthetic", "path": str(out)}}}
    with pytest.raises(stream_seg.OutputError, match="the file exists"):
        stream_seg.Pipeline(graph)
    stream_seg.Pipeline({**graph, "overwrite": True})


def test_run_refuses_no_output_and_one_that_is_the_input(tmp_path: Path) -> None:
    with pytest.raises(stream_seg.ConfigError, match="no output"):
        stream_seg.run(DRIVE)
    clip = write_video(tmp_path / "clip.mp4", (number_image(n, (96, 64)) for n in range(5)))
    before = clip.read_bytes()
    with pytest.raises(stream_seg.OutputError, match="is the input as well"):
        stream_seg.run(clip, clip)
    assert clip.read_bytes() == before


@dataclass
class Invert:
    """Invert the image of every frame."""

    def __call__(self, frames: Iterator[stream_seg.Frame]) -> Iterator[stream_seg.Frame]:
        from dataclasses import replace

        for frame in frames:
            yield replace(frame, image=255 - frame.image)


@dataclass
class Wrong:
    """Yield something that is no frame, or return no generator."""

    generator: bool

    def __call__(self, frames: Iterator[stream_seg.Frame]) -> Any:
        return (frame.image for frame in frames) if self.generator else None


@dataclass
class Fail:
    """Fail at frame 3."""

    def __call__(self, frames: Iterator[stream_seg.Frame]) -> Iterator[stream_seg.Frame]:
        for frame in frames:
            if frame.seq == 3:
                raise ValueError("broken")
            yield frame


def graph(**stages: Any) -> dict[str, Any]:
    """Return a graph of a small drive and the given stages."""
    return {"stages": {"synthetic": {"width": 96, "height": 64, "frames": 12}, **stages}}


def test_a_pipeline_runs_a_graph_with_a_stage_class() -> None:
    with stream_seg.Pipeline(graph(invert={"stage": Invert, "input": "synthetic"}), frames="invert") as pipeline:
        frames = list(pipeline)
        metrics = pipeline.metrics()
    images = [frame.image for frame in Synthetic(width=96, height=64, frames=12)(iter(()))]
    assert all(np.array_equal(frame.image, 255 - image) for frame, image in zip(frames, images, strict=True))
    assert metrics['stream_seg_frames_total{stage="invert",outcome="out"}'] == 12
    assert pipeline.report().frames.captured == 12


def test_a_pipeline_of_a_graph_file_takes_settings(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(
        "stages:\n"
        "  synthetic: {width: 96, height: 64, frames: 5}\n"
        f"  write: {{input: synthetic, path: {tmp_path / 'out.mp4'}}}\n"
    )
    with stream_seg.Pipeline(tmp_path / "graph.yaml", settings=["synthetic.frames=7"]) as pipeline:
        assert pipeline.total_frames == 7
        assert pipeline.wait(30)
        with pytest.raises(stream_seg.ConfigError, match=r"yields no frames; name a stage, such as .*'synthetic'"):
            next(iter(pipeline))
    assert pipeline.report().frames.written == 7


def test_a_live_pipeline_yields_the_newest_frame() -> None:
    keys = {"width": 96, "height": 64, "paced": True, "rate": 30}
    with stream_seg.Pipeline({"stages": {"synthetic": keys}}, frames="synthetic") as pipeline:
        frames = iter(pipeline)
        first = next(frames)
        time.sleep(0.5)  # a slow consumer
        second = next(frames)
    assert second.seq - first.seq > 5


FAILURE = r"stage fail failed at frame synthetic:3: ValueError: broken \(.*test_api.py, line \d+\)"


def test_the_error_of_a_stage_is_raised_by_the_iteration() -> None:
    pipeline = stream_seg.Pipeline(graph(fail={"stage": Fail, "input": "synthetic"}), frames="fail")
    sequence: list[int] = []

    def iterate() -> None:
        with pipeline:
            sequence.extend(frame.seq for frame in pipeline)

    with pytest.raises(stream_seg.StageError, match=FAILURE):
        iterate()
    assert sequence == [0, 1, 2]


def test_the_error_of_a_stage_is_raised_at_the_end(tmp_path: Path) -> None:
    fail = {"stage": Fail, "input": "synthetic"}
    pipeline = stream_seg.Pipeline(graph(fail=fail, write={"input": "fail", "path": tmp_path / "out.mp4"}))

    def run() -> None:
        with pipeline:
            assert pipeline.wait(30)

    with pytest.raises(stream_seg.StageError, match=FAILURE):
        run()
    assert str(pipeline.report().error) == str(pipeline.error)


def test_a_camera_is_opened_by_its_number() -> None:
    with pytest.raises(stream_seg.SourceError, match="/dev/video99999: no such camera"):
        next(stream_seg.open(99_999))


def test_a_pipeline_runs_once_and_only_a_running_one_is_iterated() -> None:
    pipeline = stream_seg.Pipeline(graph(), frames="synthetic")
    with pytest.raises(stream_seg.ConfigError, match="not running"):
        list(pipeline)
    with pipeline:
        assert len(list(pipeline)) == 12
        assert list(pipeline) == []
    with pytest.raises(stream_seg.ConfigError, match="runs once"):
        pipeline.start()


@pytest.mark.parametrize(
    ("generator", "message"), [(True, "yielded ndarray, expected a Frame"), (False, "returned NoneType")]
)
def test_a_stage_that_yields_no_frames_is_named(generator: bool, message: str) -> None:
    pipeline = stream_seg.Pipeline(
        graph(wrong={"stage": Wrong, "input": "synthetic", "generator": generator}), frames="wrong"
    )

    def iterate() -> None:
        with pipeline:
            list(pipeline)

    with pytest.raises(stream_seg.StageError, match=f"stage wrong {message}"):
        iterate()


def test_waiting_for_frames_that_nobody_takes_is_refused() -> None:
    with pytest.raises(stream_seg.ConfigError, match="iterate over its frames"):
        stream_seg.Pipeline(graph(), frames="synthetic").wait()

    def wait() -> None:
        with stream_seg.Pipeline(graph(), frames="synthetic") as pipeline:
            pipeline.wait()

    with pytest.raises(stream_seg.ConfigError, match="iterate over its frames"):
        wait()


def test_a_stream_is_closed_from_another_thread() -> None:
    frames = stream_seg.open("synth://road?size=96x64")
    started = threading.Event()

    def iterate() -> None:
        for _ in frames:
            started.set()

    thread = threading.Thread(target=iterate)
    thread.start()
    assert started.wait(60)
    frames.close()
    thread.join(60)
    assert not thread.is_alive()


def test_an_abandoned_pipeline_ends_with_the_program() -> None:
    script = (
        "import stream_seg\n"
        "frames = stream_seg.open('synth://road?size=96x64')\n"
        "next(frames)\n"
        "pipeline = stream_seg.Pipeline({'stages': {'synthetic': {}}}, frames='synthetic')\n"
        "pipeline.start()\n"
        "next(iter(pipeline))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stream_seg.open(None), "source: expected a path, a URL or a camera number, got NoneType"),
        (lambda: stream_seg.open(b"x.mp4"), "source: expected a path, a URL or a camera number, got bytes"),
        (lambda: stream_seg.Pipeline({"stages": ["abc"]}, frames="abc"), "frames: unknown stage 'abc'"),
        (lambda: stream_seg.Pipeline(graph(), frames=["x"]), "frames: unknown stage"),
        (lambda: stream_seg.Pipeline(graph(), settings=[5]), "--set 5: expected KEY=VALUE"),
        (lambda: stream_seg.open_engine(size="ab"), "open_engine: size: expected list of 2"),
        (lambda: stream_seg.open_engine(size=(1, 2, 3)), "open_engine: size: expected list of 2"),
        (lambda: stream_seg.open_engine(threads="x"), "open_engine: threads: expected whole number >= 1"),
    ],
)
def test_a_wrong_type_is_a_config_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(stream_seg.ConfigError, match=message):
        call()


def test_a_stage_may_be_called_frames() -> None:
    with stream_seg.Pipeline(graph(frames={"stage": Invert, "input": "synthetic"}), frames="frames") as pipeline:
        assert len(list(pipeline)) == 12


def test_an_engine_segments_one_image_of_any_size() -> None:
    image = next(iter(Synthetic(width=160, height=96)(iter(())))).image
    with stream_seg.open_engine("road", device="onnxruntime", precision="f32") as engine:
        result = engine(image)
        assert result.labels.shape == (96, 160)
        assert result.labels_at((48, 80)).shape == (48, 80)
        assert "road" in engine.classes.names
        assert engine(image[:50, :70]).labels.shape == (50, 70)
        for wrong in (image[..., 0], image.astype(np.float32), image[..., :2], image[:0], image.tolist(), None):
            with pytest.raises(ValueError, match=r"expected an image uint8 \(H, W, 3\) BGR"):
                engine(wrong)
    with pytest.raises(stream_seg.NetworkError, match="the engine is closed"):
        engine(image)
