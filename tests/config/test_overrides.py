"""INPUT and OUTPUT find their places in a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_seg.config.graph_file import check, with_settings
from stream_seg.config.overrides import (
    default_document,
    is_live,
    outputs_of,
    refuse_overwriting,
    refuse_plain,
    total_frames,
    with_input,
    with_outputs,
)
from stream_seg.errors import ConfigError
from tests.support.clips import numbered, write_video


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
        (["http://127.0.0.1:8080"], {"serve": "smooth"}),
        (["o.mp4", "http://[::1]:0/"], {"overlay": "smooth", "write": "overlay", "serve": "smooth"}),
        (["o.jsonl", "O.MP4"], {"overlay": "smooth", "records": "smooth", "write": "overlay"}),
    ],
)
def test_outputs_find_their_place(outputs: list[str], expected: dict[str, str]) -> None:
    document = with_outputs(with_input(default_document(), "drive.mp4"), outputs)
    assert arrows(document) == {"capture": None, "segment": "capture", "smooth": "segment", **expected}
    assert len(check(document, where="g").nodes) == len(expected) + 3


def test_a_page_knows_its_address_and_keeps_a_recording_to_its_time() -> None:
    document = default_document()
    document["stages"]["overlay"]["opacity"] = 0.3

    def page(source: str, *outputs: str) -> dict[str, Any]:
        keys: dict[str, Any] = with_outputs(with_input(document, source), outputs)["stages"]["serve"]
        return keys

    given = {"stage": "serve", "input": "smooth", "host": "127.0.0.1", "port": 8080, "opacity": 0.3}
    assert page("drive.mp4", "http://127.0.0.1:8080") == {**given, "pace": True}
    assert page("drive.mp4", "http://127.0.0.1:8080", "o.mp4") == given  # as fast as the file can be written
    assert page("rtsp://host/x", "http://127.0.0.1:8080/") == page("synth://road?paced=1", "http://127.0.0.1:8080")
    assert page("synth://road", "http://127.0.0.1:8080")["pace"]
    assert "pace" not in page("rtsp://host/x", "http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "output",
    ["http://127.0.0.1", "http://:80", "ftp://h:1", "http://h:1/x", "http://u:canary@h:1", "http://h:x", "http://["],
)
def test_an_address_that_is_none_is_refused(output: str) -> None:
    with pytest.raises(ConfigError, match=r"a page's address, http://HOST:PORT") as refused:
        with_outputs(default_document(), [output])
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("output", ["", " ", "\t\n"])
def test_an_empty_output_is_refused(output: str) -> None:
    """It would be the working directory, and label maps among what is there."""
    with pytest.raises(ConfigError, match=r"the output is empty; an output is a video \(\.mp4"):
        with_outputs(default_document(), [output])


def test_https_needs_a_certificate() -> None:
    outputs = ["o.mp4", "http://127.0.0.1:8095", "https://127.0.0.1:8096"]
    document = with_outputs(with_input(default_document(), "drive.mp4"), outputs)
    with pytest.raises(ConfigError) as caught:
        refuse_plain(document, outputs)
    assert str(caught.value) == (
        "output https://127.0.0.1:8096: needs a certificate: "
        "--set serve3.certfile=CERT.pem --set serve3.keyfile=KEY.pem; without one write http://"
    )
    refuse_plain(with_settings(document, ["serve3.certfile=a.pem", "serve3.keyfile=b.pem"]), outputs)
    refuse_plain(with_settings(document, ["serve3.port=1", "serve3.certfile=a.pem"]), outputs)
    refuse_plain(with_outputs(document, outputs[:2]), outputs[:2])


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
    document = with_outputs(with_input(default_document(), uri), ["o.mp4"])
    assert is_live(check(document, where="graph")) is live


@pytest.mark.parametrize("paced", [1, "yes", True])
def test_paced_is_live_however_it_is_spelt(paced: object) -> None:
    stages = {"synthetic": {"paced": paced}, "write": {"input": "synthetic", "path": "o.mp4"}}
    assert is_live(check({"stages": stages}, where="graph"))


def test_how_many_frames_will_come(tmp_path: Path) -> None:
    clip = str(write_video(tmp_path / "clip.mp4", (numbered(n, (96, 64)) for n in range(12))))

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


def test_pictures_that_are_gone_are_no_input_to_overwrite(tmp_path: Path) -> None:
    """Whoever opens them says so: at a reload they may have been read long ago."""
    stages = {"capture": {"uri": str(tmp_path)}, "write": {"input": "capture", "path": str(tmp_path / "o.mp4")}}
    refuse_overwriting({"stages": stages})


def test_an_output_for_every_stream() -> None:
    stages = {"front": {"stage": "capture"}, "rear": {"stage": "capture"}, "write": {"path": "{stream}.mp4"}}
    assert outputs_of({"stages": stages}) == [("write", Path("front.mp4")), ("write", Path("rear.mp4"))]
