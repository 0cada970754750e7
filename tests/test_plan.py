"""INPUT and OUTPUT find their places in a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_seg.config import check
from stream_seg.errors import ConfigError
from stream_seg.plan import default_document, is_live, outputs_of, total_frames, with_input, with_outputs
from tests.media import numbered, write_video


def arrows(document: dict[str, Any]) -> dict[str, Any]:
    """What each stage takes its frames from."""
    return {name: (keys or {}).get("input") for name, keys in document["stages"].items()}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["o.mp4"], {"overlay": "smooth", "write": "overlay"}),
        (["o.mkv", "window"], {"overlay": "smooth", "write": "overlay", "show": "overlay"}),
        (["a.mp4", "b.mp4", "a.mp4"], {"overlay": "smooth", "write": "overlay", "write2": "overlay"}),
        (["masks/"], {"masks": "smooth"}),
        (["o.jsonl", "O.MP4"], {"overlay": "smooth", "records": "smooth", "write": "overlay"}),
    ],
)
def test_outputs_find_their_place(outputs: list[str], expected: dict[str, str]) -> None:
    document = with_outputs(with_input(default_document(), "drive.mp4"), outputs)
    assert arrows(document) == {"capture": None, "segment": "capture", "smooth": "segment", **expected}
    assert len(check(document, where="g").nodes) == len(expected) + 3


def test_outputs_replace_those_of_the_graph() -> None:
    document = with_outputs(with_outputs(default_document(), ["a.mp4", "a.jsonl"]), ["b.mp4"])
    assert outputs_of(document) == [("write", Path("b.mp4"))]


def test_an_input_keeps_the_other_keys_of_its_capture() -> None:
    document = {"stages": {"front": {"stage": "capture", "uri": "a.mp4", "threads": 2}}}
    assert with_input(document, "b.mp4")["stages"]["front"] == {"stage": "capture", "uri": "b.mp4", "threads": 2}
    assert with_input(document, "synth://road?seed=3")["stages"]["front"]["stage"] == "synthetic"
    assert document["stages"]["front"]["uri"] == "a.mp4"


def test_several_ends_are_refused() -> None:
    document = {"stages": {"capture": {}, "smooth": {"input": "capture"}, "overlay": {"input": "capture"}}}
    with pytest.raises(ConfigError, match="the graph ends in smooth, overlay; name the outputs in the graph file"):
        with_outputs(document, ["o.mp4"])


@pytest.mark.parametrize(
    ("uri", "live"),
    [
        ("drive.mp4", False),
        ("0", True),
        ("rtsp://host/x", True),
        ("synth://road", False),
        ("synth://road?paced=1", True),
    ],
)
def test_who_is_live(uri: str, live: bool) -> None:
    assert is_live(with_input(default_document(), uri)) is live


def test_how_many_frames_will_come(tmp_path: Path) -> None:
    clip = str(write_video(tmp_path / "clip.mp4", (numbered(n, (96, 64)) for n in range(12))))

    def total(**keys: object) -> int | None:
        return total_frames({"stages": {"capture": keys}})

    assert total(uri=clip) == 12
    assert total(uri=clip, frames=5) == 5
    assert total(uri=clip, frames=50) == 12
    assert total(uri="0", frames=50) == 50
    assert total(stage="synthetic", frames=7) == 7
    assert total(stage="synthetic") is total(uri="rtsp://host/x") is None
    two = {"a": {"stage": "capture", "uri": clip}, "b": {"stage": "synthetic", "frames": 3}}
    assert total_frames({"stages": two}) == 15


def test_an_output_for_every_stream() -> None:
    stages = {"front": {"stage": "capture"}, "rear": {"stage": "capture"}, "write": {"path": "{stream}.mp4"}}
    assert outputs_of({"stages": stages}) == [("write", Path("front.mp4")), ("write", Path("rear.mp4"))]
