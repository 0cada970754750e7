"""`stream-seg run` with the default graph: every frame arrives, at its time, in every kind of output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event

import av
import cv2
import pytest

from stream_seg.config.graph_file import check
from stream_seg.datasets.palettes import CAMVID
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Frames
from stream_seg.stages.records import Records
from stream_seg.stages.serve import Serve
from tests.support.clips import number_image, read_number, read_video, write_video
from tests.support.program import ENDLESS_DRIVE, count_lines, list_folder, read_json, run_cli, start_program, wait_until

CLIPS = {
    "highway_1024_512": 199,
    "person_walking_intel": 1394,
    "project_video_cut": 76,
    "solidWhiteRight": 221,
    "test_video": 38,
}
CLEAR = [f"--set=overlay.{setting}" for setting in ("opacity=0", "hud=false", "legend=false")]
"""Settings under which nothing is drawn, so that the numbers in the images stay legible."""


@pytest.mark.parametrize("name", CLIPS)
def test_a_real_clip_keeps_every_frame(data: Path, tmp_path: Path, name: str) -> None:
    clip, out = data / "videos" / f"{name}.mp4", tmp_path / "o.mp4"
    assert run_cli("run", clip, out, "--quiet", "--set", "write.preset=ultrafast") == 0
    with av.open(str(clip)) as source, av.open(str(out)) as result:
        assert result.streams.video[0].frames == CLIPS[name]
        assert sum(1 for packet in result.demux(video=0) if packet.size) == CLIPS[name]
        before, after = source.streams.video[0], result.streams.video[0]
        assert (after.width, after.height) == (before.width, before.height)
        assert after.codec_context.name == "h264"
        assert after.average_rate == pytest.approx(before.average_rate, rel=0.001)


def test_frames_with_variable_intervals_keep_their_times(tmp_path: Path) -> None:
    pts = [0, 40, 50, 200, 210, 500, 533, 1700, 1710, 1720]
    clip = write_video(tmp_path / "vfr.mp4", map(number_image, range(10)), pts=pts)
    assert run_cli("run", clip, tmp_path / "o.mp4", "--quiet", *CLEAR) == 0
    before, after = read_video(clip), read_video(tmp_path / "o.mp4")
    assert [read_number(image) for _, image in after] == list(range(10))
    assert [time_s - after[0][0] for time_s, _ in after] == [time_s - before[0][0] for time_s, _ in before]
    assert after[-1][0] - after[0][0] == Fraction(1720, 1000)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_rotated_clip_comes_out_upright(tmp_path: Path, rotation: int) -> None:
    turns = {90: cv2.ROTATE_90_CLOCKWISE, -90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180}
    images = (cv2.rotate(number_image(n), turns[rotation]) for n in range(5))
    clip = write_video(tmp_path / "turned.mp4", images, rotation=rotation)
    assert run_cli("run", clip, tmp_path / "o.mp4", "--quiet", *CLEAR) == 0
    result = [image for _, image in read_video(tmp_path / "o.mp4")]
    assert [read_number(image) for image in result] == list(range(5))
    assert result[0].shape == (240, 320, 3)


def test_a_folder_of_images_becomes_label_maps_records_and_a_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(12):
        cv2.imwrite(str(images / f"{number}.png"), number_image(number))
    outputs = [tmp_path / "o.jsonl", tmp_path / "o.mp4", f"{tmp_path}/masks/"]
    assert run_cli("run", images, *outputs, "--report", tmp_path / "run.json", *CLEAR) == 0
    labels = [f"{number:06}.png" for number in range(12)]
    assert list_folder(tmp_path / "masks") == [*labels, "classes.json"]
    label_map = cv2.imread(str(tmp_path / "masks" / labels[7]), cv2.IMREAD_UNCHANGED)
    assert (label_map.shape, label_map.dtype) == ((240, 320), "uint8")
    assert label_map.max() < len(CAMVID)
    assert count_lines(tmp_path / "o.jsonl") == 12
    assert [read_number(image) for _, image in read_video(tmp_path / "o.mp4")] == list(range(12))
    assert read_json(tmp_path / "run.json")["frames"]["by_output"] == {"records": 12, "write": 12, "masks": 12}
    assert f"written: {outputs[0]}, {outputs[1]}, {tmp_path}/masks" in capsys.readouterr().out


def test_an_output_that_does_not_finish_is_not_reported_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release = Event()

    def hang_at_the_end(self: Records, frames: Frames) -> Frames:
        try:
            for number, frame in enumerate(frames):
                yield frame
                if number == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
        finally:
            release.wait(60)  # like a disk that does not answer

    monkeypatch.setattr(Records, "__call__", hang_at_the_end)
    monkeypatch.setattr("stream_seg.runtime.stopping.FINISH_S", 0.1)
    (tmp_path / "o.jsonl").write_text("an older run\n")
    report = tmp_path / "run.json"
    assert run_cli("run", f"{ENDLESS_DRIVE}&paced=1", tmp_path / "o.jsonl", "--report", report, "--overwrite") == 6
    release.set()
    out, error = capfd.readouterr()
    assert "gave up on records (finishing), which did not end" in error
    assert "written:" not in out
    facts = read_json(report)
    assert facts["error"] == "gave up on records (finishing), which did not end"
    assert (facts["frames"]["written"], facts["frames"]["by_output"]) == (0, {"records": 0})


def test_a_file_of_an_older_run_is_not_reported_as_written(tmp_path: Path, unused_port: int) -> None:
    """Without its camera a run records placeholder frames, but makes no video of them."""
    video, lines = tmp_path / "o.mp4", tmp_path / "o.jsonl"
    video.write_text("an older run\n")
    with start_program("run", f"rtsp://127.0.0.1:{unused_port}/live", video, lines, "--overwrite") as program:
        wait_until(lambda: count_lines(tmp_path / "o.partial.jsonl") > 0, program)
        program.terminate()
        out, _ = program.communicate(timeout=60)
    assert f"written: {lines}\n" in out
    assert video.read_text() == "an older run\n"


def test_the_keys_of_the_report_are_stable(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    assert run_cli("run", f"{ENDLESS_DRIVE}&frames=30", tmp_path / "o.mp4", "--report", report, "--quiet") == 0
    facts = read_json(report)
    assert list(facts) == [
        *("frames", "seconds", "fps", "stages", "age_ms", "overhead_ms", "first_frame_s"),
        *("peak_rss_mib", "cpu_ms_per_frame", "engine", "policy", "notes", "error"),
    ]
    assert list(facts["stages"]["write"]) == ["frames", "p50_ms", "p95_ms", "p99_ms"]
    assert list(facts["age_ms"]) == list(facts["overhead_ms"]) == ["p50", "p99"]
    assert list(facts["engine"]) == ["network", "backend", "precision", "device", "requests"]
    assert facts["frames"] == {
        "captured": 30,
        "placeholders": 0,
        "written": 30,
        "by_output": {"write": 30},
        "dropped": dict.fromkeys(("decode_error", "late", "superseded", "stopped"), 0),
    }
    assert list(facts["stages"]) == ["capture", "segment", "smooth", "overlay", "write"]
    assert facts["policy"] == "every"
    assert facts["error"] is None
    assert facts["engine"]["network"] == "road"
    assert 0 < facts["age_ms"]["p50"] <= facts["age_ms"]["p99"]
    assert all(0 < s["p50_ms"] <= s["p95_ms"] <= s["p99_ms"] for s in facts["stages"].values())
    assert facts["fps"] > 0
    assert 50 < facts["peak_rss_mib"] < 10_000
    assert read_json(report)["cpu_ms_per_frame"] > 0


def test_a_live_run_drops_late_frames_and_counts_them(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    source = f"{ENDLESS_DRIVE}&paced=1&rate=200&frames=200"
    assert run_cli("run", source, tmp_path / "o.jsonl", "--report", report, "--quiet", "--overwrite") == 0
    facts = read_json(report)
    assert facts["policy"] == "latest"
    dropped = facts["frames"]["dropped"]
    assert facts["frames"]["captured"] == 200 == facts["frames"]["written"] + sum(dropped.values())
    assert dropped["superseded"] + dropped["late"] > 20
    numbers = [int(number) for number in re.findall(r'"seq": (\d+)', (tmp_path / "o.jsonl").read_text())]
    assert all(b > a for a, b in pairwise(numbers))
    assert numbers[-1] == 199


def test_settings_reach_their_stage(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    assert (
        run_cli("run", ENDLESS_DRIVE, out, "--quiet", "--set", "capture.frames=7", "--set", "capture.stream=front") == 0
    )
    assert count_lines(out) == 7
    assert '"stream": "front"' in out.read_text()


def test_the_demo_runs_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli("run", "--quiet", "--set", "capture.frames=30") == 0
    frames = read_video(tmp_path / "demo.mp4")
    assert len(frames) == 30
    assert frames[0][1].shape == (540, 960, 3)
    assert list_folder(tmp_path) == ["demo.mp4"]


def test_a_run_imports_no_torch(tmp_path: Path) -> None:
    """The import takes seconds and gigabytes, and an installation without extras has no torch."""
    script = (
        "import sys; from stream_seg.cli.program import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'nncf', 'onnx', 'onnxruntime'}))"
    )
    arguments = ["run", "-q", f"{ENDLESS_DRIVE}&frames=3", str(tmp_path / "o.mp4")]
    command = [sys.executable, "-c", script, *arguments]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "[]\n"


def test_a_page_that_waits_for_the_time_of_a_frame_notices_the_end() -> None:
    config = check({"stages": {"synthetic": {}, "serve": {"input": "synthetic", "port": 0}}}, where="graph")
    graph = Graph(config)
    page = next(worker.stage for worker in graph.workers if isinstance(worker.stage, Serve))
    assert not page.context.stopping()
    graph.stop_requested.set()
    assert page.context.stopping()
