"""`stream-seg bench`: what it measures, what it leaves out, what it refuses."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stream_seg.cli import bench
from stream_seg.cli.bench import first_pictures
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, Signal
from stream_seg.network.shipped import SHIPPED
from stream_seg.stages.capture import Capture
from stream_seg.stages.synthetic import Synthetic
from tests.support import small_networks as tiny
from tests.support.program import exit_code, read_json

SHORT = ("--seconds", "0.01", "--input", "synth://road?size=160x96&frames=2")


def test_the_road_network_in_all_that_works_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("bench", *SHORT, "--json", tmp_path / "b.json") == 0
    said = capsys.readouterr().out
    facts = read_json(tmp_path / "b.json")
    assert facts["picture"] == [96, 160]
    measured = {(row["backend"], row["precision"]) for row in facts["rows"]}
    assert {("openvino", "int8"), ("openvino", "f32"), ("onnxruntime", "f32")} <= measured
    assert ("onnxruntime", "bf16") not in measured
    (left,) = (left for left in facts["left_out"] if (left["backend"], left["precision"]) == ("onnxruntime", "bf16"))
    assert "precision bf16 is not to be had; here: int8, f32" in left["reason"]
    assert "bf16" in said.partition("not to be had: ")[2] or "left out: onnxruntime: precision bf16" in said
    for row in facts["rows"]:
        assert row["trained"]
        assert row["size"] == [384, 640]
        assert 0 <= row["outside"] < 1
        for part in ("model", "end_to_end"):
            assert row[part]["frames"] >= 5
            assert 0 < row[part]["p50_ms"] <= row[part]["p95_ms"] <= row[part]["p99_ms"]
            assert row[part]["cpu_ms"] > 0
        assert f"{row['backend']} {row['precision']}" in said


def test_a_network_of_the_users_own(tmp_path: Path) -> None:
    own = tiny.write(tmp_path, tiny.network(outputs={"scores": 3}), {"classes": tiny.CLASSES})
    only = ("--backend", "onnxruntime", "--precision", "f32")
    assert exit_code("bench", own, *only, *SHORT, "--json", tmp_path / "b.json") == 0
    (row,) = read_json(tmp_path / "b.json")["rows"]
    assert row["size"] == list(tiny.SIZE)
    assert row["model"]["p50_ms"] < row["end_to_end"]["p50_ms"]


def test_the_figures_say_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny.write(tmp_path, tiny.network(outputs={"scores": 3}), {"classes": tiny.CLASSES})
    pictures = list(Synthetic(width=160, height=96, frames=2)(iter(())))
    monkeypatch.setattr(bench, "first_frames", lambda _source, _count: pictures)
    only = {"networks": [str(own)], "backends": ["onnxruntime"], "precisions": ["f32"], "seconds": 0.01}
    plan = bench.Plan(**only, source="rtsp://me:hunter2@host/live")
    said = json.dumps(bench.measured(plan))
    assert "host/live" in said
    assert "hunter2" not in said


def test_the_name_of_a_network_need_be_no_file_name(tmp_path: Path) -> None:
    said = json.loads((SHIPPED / "road.json").read_text()) | {"name": "a/b", "int8": None}
    (tmp_path / "mine.json").write_text(json.dumps(said))
    (tmp_path / "mine.onnx").write_bytes((SHIPPED / "road.onnx").read_bytes())
    only = ("--backend", "openvino", "--precision", "f32", "--size", "64x96")
    assert exit_code("bench", tmp_path / "mine.onnx", *only, *SHORT, "--json", tmp_path / "b.json") == 0
    assert [row["size"] for row in read_json(tmp_path / "b.json")["rows"]] == [[64, 96]]


def test_a_shipped_network_is_measured_at_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--backend", "openvino", "--precision", "f32", "--size", "64x96", "--size", "352x480")
    assert exit_code("bench", "road", *only, *SHORT, "--json", tmp_path / "b.json") == 0
    rows = read_json(tmp_path / "b.json")["rows"]
    assert [(row["size"], row["trained"]) for row in rows] == [([64, 96], True), ([352, 480], True)]
    assert "road at 64x96; pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rode"], 2, "unknown network 'rode'; known: road, fcn32s"),
        (["--backend", "cuda"], 2, "unknown backend 'cuda'; known: "),
        (["--precision", "fp4"], 2, "unknown precision 'fp4'; known: int8"),
        (["--size", "352"], 2, "--size 352: expected HEIGHTxWIDTH"),
        (["--size", "8x9000"], 2, "8 to 8192 each"),
        (["--backend", "onnxruntime", "--precision", "bf16"], 4, "precision bf16 is not to be had; here: int8, f32"),
        (["deconvnet", "--size", "64x64"], 4, "64x64 is too small"),
        (["none.onnx"], 4, "none.onnx: no such file"),
        (["--input", "synth://moon"], 2, "no such drawn scene"),
        (["--input", "none.mp4"], 3, "none.mp4: no such file"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("bench", *arguments) == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def card(frame: Frame, reason: Reason | None) -> Frame:
    return replace(frame, signal=Signal("starting" if reason is None else "down", reason, time.monotonic_ns()))


def test_a_camera_is_measured_with_its_pictures_and_not_with_its_cards() -> None:
    drawn = list(Synthetic(width=96, height=64, frames=4)(iter(())))
    frames = [card(drawn[0], None), drawn[1], card(drawn[2], "no data"), drawn[3]]
    found = first_pictures(iter(frames), 12, shown="camera")
    assert [frame.seq for frame in found] == [1, 3]
    assert first_pictures(iter(frames), 1, shown="camera") == found[:1]
    assert first_pictures(iter(frames[1:]), 12, shown="camera", patience_s=0) == found[:1], "gone again: what there is"


@pytest.mark.parametrize("reason", ["refused", None])
def test_a_camera_that_gives_no_picture_is_given_up(reason: Reason | None) -> None:
    (drawn,) = Synthetic(width=96, height=64, frames=1)(iter(()))
    with pytest.raises(SourceError) as caught:
        first_pictures(iter([card(drawn, reason)]), 12, shown="camera", patience_s=0)
    assert str(caught.value) == f"camera: no picture for 0 s ({reason or 'starting'})"
    assert caught.value.reason == (reason or "no data")


def test_a_camera_that_is_not_there_is_given_up(unused_port: int) -> None:
    absent = Capture(f"rtsp://127.0.0.1:{unused_port}/x")
    with pytest.raises(SourceError, match=r"camera: no picture for 0\.1 s \(refused\)"):
        first_pictures(absent(iter(())), 12, shown="camera", patience_s=0.1)


def test_another_size_than_the_file_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = tiny.write(tmp_path, tiny.network(outputs={"scores": 3}), {"classes": tiny.CLASSES})
    assert exit_code("bench", own, "--size", "64x64") == 2
    assert "size: [64, 64] is not to be had" in capfd.readouterr().err
