"""`stream-seg bench`: its figures, omitted combinations, and errors."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stream_seg.cli import bench
from stream_seg.cli.bench import BenchPlan, run_benchmark
from stream_seg.cli.timing import take_frames
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, Signal
from stream_seg.network.shipped import SHIPPED
from stream_seg.stages.capture import Capture
from stream_seg.stages.synthetic import Synthetic
from tests.support import small_networks
from tests.support.program import read_json, run_cli

SHORT = ("--seconds", "0.01", "--input", "synth://road?size=160x96&frames=2")


def test_the_road_network_on_everything_that_works_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("bench", *SHORT, "--json", tmp_path / "b.json") == 0
    output = capsys.readouterr().out
    facts = read_json(tmp_path / "b.json")
    assert facts["image"] == [96, 160]
    measured = {(row["backend"], row["precision"]) for row in facts["rows"]}
    assert {("openvino", "int8"), ("openvino", "f32"), ("onnxruntime", "f32")} <= measured
    assert ("onnxruntime", "bf16") not in measured
    omitted = {(one["backend"], one["precision"]): one["reason"] for one in facts["left_out"]}
    assert "precision bf16 is not available on " in omitted["onnxruntime", "bf16"]
    assert "bf16" in output.partition("not available: ")[2] or "omitted: onnxruntime: precision bf16" in output
    for row in facts["rows"]:
        assert row["trained"]
        assert row["size"] == [384, 640]
        assert 0 <= row["outside"] < 1
        for part in ("model", "end_to_end"):
            assert row[part]["frames"] >= 5
            assert 0 < row[part]["p50_ms"] <= row[part]["p95_ms"] <= row[part]["p99_ms"]
            assert row[part]["cpu_ms"] > 0
        assert f"{row['backend']} {row['precision']}" in output


def test_a_users_own_network(tmp_path: Path) -> None:
    own = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"scores": 3}), {"classes": small_networks.CLASSES}
    )
    only = ("--backend", "onnxruntime", "--precision", "f32")
    assert run_cli("bench", own, *only, *SHORT, "--json", tmp_path / "b.json") == 0
    (row,) = read_json(tmp_path / "b.json")["rows"]
    assert row["size"] == list(small_networks.SIZE)
    assert row["model"]["p50_ms"] < row["end_to_end"]["p50_ms"]


def test_the_figures_contain_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"scores": 3}), {"classes": small_networks.CLASSES}
    )
    frames = list(Synthetic(width=160, height=96, frames=2)(iter(())))
    monkeypatch.setattr(bench, "read_frames", lambda _source, _count: frames)
    only = {"networks": [str(own)], "backends": ["onnxruntime"], "precisions": ["f32"], "seconds": 0.01}
    plan = BenchPlan(**only, source="rtsp://me:hunter2@host/live")
    figures = json.dumps(run_benchmark(plan))
    assert "host/live" in figures
    assert "hunter2" not in figures


def test_the_name_of_a_network_may_contain_a_slash(tmp_path: Path) -> None:
    sidecar = json.loads((SHIPPED / "road.json").read_text()) | {"name": "a/b", "int8": None}
    (tmp_path / "mine.json").write_text(json.dumps(sidecar))
    (tmp_path / "mine.onnx").write_bytes((SHIPPED / "road.onnx").read_bytes())
    only = ("--backend", "openvino", "--precision", "f32", "--size", "64x96")
    assert run_cli("bench", tmp_path / "mine.onnx", *only, *SHORT, "--json", tmp_path / "b.json") == 0
    assert [row["size"] for row in read_json(tmp_path / "b.json")["rows"]] == [[64, 96]]


def test_a_shipped_network_is_measured_at_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--backend", "openvino", "--precision", "f32", "--size", "64x96", "--size", "352x480")
    assert run_cli("bench", "road", *only, *SHORT, "--json", tmp_path / "b.json") == 0
    rows = read_json(tmp_path / "b.json")["rows"]
    assert [(row["size"], row["trained"]) for row in rows] == [([64, 96], True), ([352, 480], True)]
    assert "road at 64x96; images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rode"], 2, "unknown network 'rode', did you mean road? (known: road, fcn32s"),
        (["--backend", "cuda"], 2, "unknown backend 'cuda' (known: "),
        (["--precision", "fp4"], 2, "unknown precision 'fp4'"),
        (["--size", "352"], 2, "--size 352: expected HEIGHTxWIDTH"),
        (["--size", "8x9000"], 2, "8 to 8192 each"),
        (["--backend", "onnxruntime", "--precision", "bf16"], 4, "available: int8, f32"),
        (["deconvnet", "--size", "64x64"], 4, "64x64 is too small"),
        (["none.onnx"], 4, "none.onnx: no such file"),
        (["--input", "synth://moon"], 2, "no such synthetic scene"),
        (["--input", "none.mp4"], 3, "none.mp4: no such file"),
    ],
)
def test_errors_are_one_line(arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("bench", *arguments) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def make_placeholder(frame: Frame, reason: Reason | None) -> Frame:
    return replace(frame, signal=Signal("starting" if reason is None else "down", reason, time.monotonic_ns()))


def test_a_camera_is_measured_without_its_placeholders() -> None:
    source = list(Synthetic(width=96, height=64, frames=4)(iter(())))
    frames = [make_placeholder(source[0], None), source[1], make_placeholder(source[2], "no data"), source[3]]
    taken = take_frames(iter(frames), 12, shown="camera")
    assert [frame.seq for frame in taken] == [1, 3]
    assert take_frames(iter(frames), 1, shown="camera") == taken[:1]
    assert take_frames(iter(frames[1:]), 12, shown="camera", patience_s=0) == taken[:1], "it went away: one frame"


@pytest.mark.parametrize("reason", ["refused", None])
def test_a_camera_without_an_image_is_an_error(reason: Reason | None) -> None:
    (frame,) = Synthetic(width=96, height=64, frames=1)(iter(()))
    with pytest.raises(SourceError) as caught:
        take_frames(iter([make_placeholder(frame, reason)]), 12, shown="camera", patience_s=0)
    assert str(caught.value) == f"camera: no image for 0 s ({reason or 'starting'})"
    assert caught.value.reason == (reason or "no data")


def test_an_absent_camera_is_an_error(unused_port: int) -> None:
    absent = Capture(f"rtsp://127.0.0.1:{unused_port}/x")
    with pytest.raises(SourceError, match=r"camera: no image for 0\.1 s \(refused\)"):
        take_frames(absent(iter(())), 12, shown="camera", patience_s=0.1)


def test_a_size_that_does_not_fit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"scores": 3}), {"classes": small_networks.CLASSES}
    )
    assert run_cli("bench", own, "--size", "64x64") == 2
    assert "size: [64, 64] does not fit" in capfd.readouterr().err
