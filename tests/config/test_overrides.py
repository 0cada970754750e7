"""Command-line INPUT and OUTPUT placed in a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_seg.config.graph_file import apply_settings, check
from stream_seg.config.outputs import output_paths, refuse_overwriting
from stream_seg.config.overrides import default_document, total_frames, with_input, with_outputs
from stream_seg.errors import ConfigError
from stream_seg.runtime.graph import Graph
from stream_seg.stages.serve import Serve
from tests.support.clips import number_image, write_video


def inputs_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the `input` of every stage."""
    return {name: (keys or {}).get("input") for name, keys in document["stages"].items()}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["o.mp4"], {"overlay": "smooth", "write": "overlay"}),
        (["o.mkv", "window"], {"overlay": "smooth", "write": "overlay", "show": "overlay"}),
        (["a.mp4", "b.mp4"], {"overlay": "smooth", "write": "overlay", "write2": "overlay"}),
        (["masks/"], {"masks": "smooth"}),
        (["http://127.0.0.1:8080"], {"serve": "smooth"}),
        (["o.mp4", "http://[::1]:0/"], {"overlay": "smooth", "write": "overlay", "serve": "smooth"}),
        (["o.jsonl", "O.MP4"], {"overlay": "smooth", "records": "smooth", "write": "overlay"}),
    ],
)
def test_outputs_are_placed_before_or_behind_the_overlay(outputs: list[str], expected: dict[str, str]) -> None:
    document = with_outputs(with_input(default_document(), "drive.mp4"), outputs)
    assert inputs_of(document) == {"capture": None, "segment": "capture", "smooth": "segment", **expected}
    assert len(check(document, where="g").nodes) == len(expected) + 3


def test_a_page_replaces_the_overlay_and_takes_its_opacity() -> None:
    document = default_document()
    document["stages"]["overlay"]["opacity"] = 0.3
    page = with_outputs(with_input(document, "drive.mp4"), ["http://127.0.0.1:8080"])["stages"]["serve"]
    assert page == {"stage": "serve", "input": "smooth", "host": "127.0.0.1", "port": 8080, "opacity": 0.3}


@pytest.mark.parametrize(
    ("source", "outputs", "paced"),
    [
        ("drive.mp4", ["http://127.0.0.1:8080"], True),
        ("drive.mp4", ["http://127.0.0.1:8080", "window"], True),
        ("drive.mp4", ["http://127.0.0.1:8080", "o.mp4"], False),  # as fast as the file can be written
        ("rtsp://host/x", ["http://127.0.0.1:8080/"], False),
        ("synth://road", ["http://127.0.0.1:8080"], True),
        ("synth://road?paced=1", ["http://127.0.0.1:8080"], False),
    ],
)
def test_a_page_as_only_output_plays_a_recording_at_its_own_speed(source: str, outputs: list[str], paced: bool) -> None:
    graph = Graph(check(with_outputs(with_input(default_document(), source), outputs), where="graph"))
    (page,) = [worker.stage for worker in graph.workers if isinstance(worker.stage, Serve)]
    assert page.pace is paced


@pytest.mark.parametrize(
    "output",
    ["http://127.0.0.1", "http://:80", "ftp://h:1", "http://h:1/x", "http://u:canary@h:1", "http://h:x", "http://["],
)
def test_a_wrong_page_url_is_rejected(output: str) -> None:
    with pytest.raises(ConfigError, match="an output URL must be the URL of a page: http://HOST:PORT") as caught:
        with_outputs(default_document(), [output])
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("output", ["", " ", "\t\n"])
def test_an_empty_output_is_rejected(output: str) -> None:
    """It would mean the working directory, as a folder for label maps."""
    with pytest.raises(ConfigError, match=r"the output is empty; allowed: a video \(\.mp4"):
        with_outputs(default_document(), [output])


def test_https_needs_a_certificate() -> None:
    outputs = ["o.mp4", "http://127.0.0.1:8095", "https://127.0.0.1:8096"]
    document = with_outputs(with_input(default_document(), "drive.mp4"), outputs)
    with pytest.raises(ConfigError) as caught:
        check(document, where="graph")
    assert str(caught.value) == (
        "graph: stages.serve3: https:// needs a certificate: set certfile and keyfile, or write http://"
    )
    check(apply_settings(document, ["serve3.certfile=a.pem", "serve3.keyfile=b.pem"]), where="graph")


def test_outputs_replace_those_of_the_graph() -> None:
    document = with_input(default_document(), "drive.mp4")
    document = with_outputs(with_outputs(document, ["a.mp4", "a.jsonl"]), ["b.mp4"])
    assert output_paths(check(document, where="graph")) == [("write", Path("b.mp4"))]


def test_an_input_keeps_the_other_keys_of_its_capture() -> None:
    document = {"stages": {"front": {"stage": "capture", "uri": "a.mp4", "threads": 2}}}
    assert with_input(document, "b.mp4")["stages"]["front"] == {"stage": "capture", "uri": "b.mp4", "threads": 2}
    assert with_input(document, "synth://road?seed=3")["stages"]["front"]["stage"] == "synthetic"
    assert document["stages"]["front"]["uri"] == "a.mp4"


def test_a_graph_with_several_ends_is_rejected() -> None:
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
def test_a_graph_is_live_if_its_source_is(uri: str, live: bool) -> None:
    document = with_outputs(with_input(default_document(), uri), ["o.mp4"])
    assert check(document, where="graph").live is live


@pytest.mark.parametrize("paced", [1, "yes", True])
def test_every_spelling_of_paced_makes_a_source_live(paced: object) -> None:
    stages = {"synthetic": {"paced": paced}, "write": {"input": "synthetic", "path": "o.mp4"}}
    assert check({"stages": stages}, where="graph").live


def test_the_number_of_frames_is_known_for_recordings(tmp_path: Path) -> None:
    clip = str(write_video(tmp_path / "clip.mp4", (number_image(n, (96, 64)) for n in range(12))))

    def total(**sources: dict[str, object]) -> int | None:
        write = {"input": list(sources), "path": "{stream}.mp4"}
        return total_frames(check({"stages": {**sources, "write": write}}, where="graph"))

    assert total(capture={"uri": clip}) == 12
    assert total(capture={"uri": clip, "frames": 5}) == 5
    assert total(capture={"uri": clip, "frames": 50}) == 12
    assert total(capture={"uri": "0", "frames": 50}) == 50
    assert total(synthetic={"frames": 7}) == 7
    assert total(synthetic={}) is total(capture={"uri": "rtsp://host/x"}) is None
    assert total(capture={"uri": clip}, synthetic={"frames": 3}) == 15


def test_missing_images_are_no_input_to_overwrite(tmp_path: Path) -> None:
    """The source reports them when it opens; at a reload they may have been deleted after they were read."""
    stages = {"capture": {"uri": str(tmp_path)}, "write": {"input": "capture", "path": str(tmp_path / "o.mp4")}}
    refuse_overwriting(check({"stages": stages}, where="graph"))


def test_an_output_has_one_path_for_every_stream() -> None:
    front, rear = ({"stage": "capture", "uri": uri} for uri in ("a.mp4", "b.mp4"))
    write = {"path": "{stream}.mp4", "input": ["front", "rear"]}
    stages = {"front": front, "rear": rear, "write": write}
    assert output_paths(check({"stages": stages}, where="graph")) == [
        ("write", Path("front.mp4")),
        ("write", Path("rear.mp4")),
    ]
