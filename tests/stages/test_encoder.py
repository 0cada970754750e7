"""The speeds of the encoder, and the keys that replace parts of them."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import pytest

from stream_seg.frame import Frame
from stream_seg.stages import encoder
from stream_seg.stages.encoder import SPEEDS, Speed, add_stream
from stream_seg.stages.write import Write
from stream_seg.types import Image
from tests.support.clips import number_image, read_number, read_video

FAST = {"preset": "ultrafast", "crf": "21", "rc-lookahead": "0", "x264-params": "deblock=0,0"}
BALANCED = {"preset": "superfast", "crf": "22", "rc-lookahead": "0"}


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ({}, BALANCED),
        ({"speed": "balanced"}, BALANCED),
        ({"speed": "fast"}, FAST),
        ({"speed": "fast", "crf": 30}, {**FAST, "crf": "30"}),
        ({"speed": "fast", "preset": "slow"}, {"preset": "slow", "crf": "21", "rc-lookahead": "0"}),
        ({"preset": "veryfast", "crf": 20}, {"preset": "veryfast", "crf": "20", "rc-lookahead": "0"}),
    ],
)
def test_preset_and_crf_win_over_the_speed(keys: dict[str, Any], options: dict[str, str]) -> None:
    assert Write("out.mp4", **keys).encoding.options() == options  # type: ignore[arg-type]


def test_every_speed_has_settings() -> None:
    assert [*SPEEDS] == [*get_args(Speed)]


@pytest.mark.parametrize(
    ("cores", "keys", "threads"), [(1, {}, 1), (2, {}, 2), (64, {}, encoder.MOST_SLICES), (1, {"threads": 3}, 3)]
)
def test_the_encoder_has_a_thread_per_core(
    cores: int, keys: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "count_cores", lambda: cores)
    encoding = Write("out.mp4", **keys).encoding  # type: ignore[arg-type]
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = add_stream(container, encoding, size=(48, 64), rate=Fraction(30), tick=Fraction(1, 30))
        assert stream.codec_context.thread_count == threads


@pytest.mark.parametrize("speed", SPEEDS)
def test_times_are_exact_at_every_speed(tmp_path: Path, speed: Speed) -> None:
    pts = [0, 3, 10, 11, 40]
    images: list[Image] = [number_image(number, (64, 48)) for number in range(5)]
    frames = (Frame("a", k, pts[k], Fraction(1, 90), 0, image) for k, image in enumerate(images))
    list(Write(tmp_path / "out.mp4", speed=speed)(frames))
    shown = read_video(tmp_path / "out.mp4")
    assert [time for time, _ in shown] == [Fraction(at, 90) for at in pts]
    assert [read_number(image) for _, image in shown] == [*range(5)]
