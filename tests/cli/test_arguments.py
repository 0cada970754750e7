"""INPUT and OUTPUT as typed: names that a shell expanded, and the outputs of a run that names none."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream_seg.cli.arguments import DEMO_INPUT, DEMO_TITLE, PAGE, complete_arguments, is_demo
from stream_seg.errors import ConfigError, OutputError
from tests.support.clips import number_image, write_video
from tests.support.program import list_folder, run_cli, run_failing

CONFIG, OUTPUT = 2, 5
DRIVE = "synth://road?size=96x64&frames=3"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    return tmp_path


def make_clip(name: str) -> str:
    write_video(Path(name), (number_image(n, (96, 64)) for n in range(3)))
    return name


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LOOP = 'for f in drive_*.mp4; do stream-seg run "$f"; done'


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--quiet"]])
def test_a_shell_glob_of_videos_replaces_none_of_them(
    folder: Path, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    drives = [make_clip(f"drive_{number}.mp4") for number in range(3)]
    before = contents(folder)
    code, line = run_failing(capfd, *drives, *options)
    assert code == OUTPUT
    assert "drive_1.mp4, drive_2.mp4 exist, but a run has one INPUT, and the names after it are OUTPUTs" in line
    assert f"start a run for each: {LOOP}" in line
    assert "--overwrite" in line
    assert contents(folder) == before


def test_two_videos(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_clip("drive_1.mp4")
    make_clip("drive_2.mp4")
    before = contents(folder)
    code, line = run_failing(capfd, "drive_1.mp4", "drive_2.mp4")
    assert (code, line) == (
        OUTPUT,
        "stream-seg: cannot write drive_2.mp4: the file exists; choose another name, or overwrite it with --overwrite;"
        f" if it is another input, start a run for each: {LOOP}",
    )
    assert contents(folder) == before
    assert run_cli("run", "drive_1.mp4", "drive_2.mp4", "--overwrite", "-q") == 0
    after = contents(folder)
    assert after["drive_1.mp4"] == before["drive_1.mp4"]
    assert after["drive_2.mp4"] != before["drive_2.mp4"]


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (["a.mp4", "b.mkv", "c.jsonl"], OUTPUT, 'for f in a.mp4 b.mkv; do stream-seg run "$f"; done'),
        (["a.mp4", "b.avi"], CONFIG, "b.avi exists, but a run has one INPUT"),
        (["a.avi", "b.avi", "new.mp4"], CONFIG, 'for f in *.avi; do stream-seg run "$f"; done'),
        (["a.mp4", "b.mp4", "labels/"], OUTPUT, 'stream-seg run "$f" "labels/$(basename "$f")/"; done'),
        (["a.mp4", "b c.mkv"], OUTPUT, "for f in a.mp4 'b c.mkv'; do"),
        ([f"{n}.mp4" for n in "abcdef"], OUTPUT, "b.mp4, c.mp4, d.mp4, e.mp4, ... exist"),
        (["i_1.png", "i_2.png", "i_3.png"], CONFIG, 'stream-seg run "i_*.png" masks/'),
        (["i_1.png", "i_2.png", "labels/"], CONFIG, 'stream-seg run "i_*.png" labels/'),
        (["i_1.png", "other.png", "labels/", "o.jsonl"], CONFIG, 'stream-seg run "*.png" labels/ o.jsonl'),
        (["a.mp4", "i_1.png"], CONFIG, "i_1.png exists, but a run has one INPUT"),
    ],
)
def test_several_inputs(
    folder: Path, capfd: pytest.CaptureFixture[str], names: list[str], code: int, message: str
) -> None:
    for name in names:
        if not name.endswith("/") and not name.startswith("new"):
            Path(name).write_text("mine")
    before = contents(folder)
    result, line = run_failing(capfd, *names)
    assert (result, message in line) == (code, True), line
    assert contents(folder) == before


def test_a_pattern_is_advised_only_if_it_matches_the_inputs_alone(folder: Path) -> None:
    for name in ("drive_1.mp4", "drive_2.mp4", "drive_x.mp4"):
        Path(name).touch()
    with pytest.raises(OutputError, match=r"for f in drive_1\.mp4 drive_2\.mp4; do"):
        complete_arguments("drive_1.mp4", ["drive_2.mp4"])


def test_outputs_that_do_not_exist_are_no_inputs(folder: Path) -> None:
    make_clip("a.mp4")
    for outputs in (["b.mp4", "c.mkv", "masks/"], ["b.mp4", "d.jsonl", "window"]):
        assert complete_arguments("a.mp4", outputs).outputs == outputs
    Path("d.jsonl").touch()  # refused later, as an output that exists
    assert complete_arguments("a.mp4", ["d.jsonl"]).outputs == ["d.jsonl"]


@pytest.mark.parametrize("outputs", [["a.mp4", "a.mp4"], ["masks/", "o.jsonl", "masks/"], ["window", "window"]])
def test_an_output_that_is_named_twice(folder: Path, capfd: pytest.CaptureFixture[str], outputs: list[str]) -> None:
    code, line = run_failing(capfd, DRIVE, *outputs)
    assert (code, line) == (CONFIG, f"stream-seg: OUTPUT {outputs[0]}: is named twice")
    assert list_folder(folder) == []


def test_a_video_without_an_output_is_written_beside_it(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("videos").mkdir()
    make_clip("videos/clip.mp4")
    for name in ("clip_seg.mp4", "clip_seg-2.mp4"):
        before = contents(folder)
        assert run_cli("run", "videos/clip.mp4") == 0
        assert f"no OUTPUT: writes videos/{name}" in capfd.readouterr().err.splitlines()
        after = contents(folder)
        assert after.keys() - before.keys() == {f"videos/{name}"}
        assert all(after[path] == content for path, content in before.items())
    assert complete_arguments("videos/clip.mp4", [], overwrite=True).outputs == ["videos/clip_seg.mp4"]
    Path("videos/clip_seg-3.partial.mp4").touch()  # of a run that goes on
    assert complete_arguments("videos/clip.mp4", []).outputs == ["videos/clip_seg-4.mp4"]
    assert complete_arguments("videos/clip.mp4", [], endless=True).outputs == [PAGE]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_video_in_a_folder_that_is_read_only(folder: Path) -> None:
    Path("card").mkdir()
    make_clip("card/clip.mp4")
    Path("card").chmod(0o500)
    assert complete_arguments("card/clip.mp4", []).outputs == ["clip_seg.mp4"]
    Path("card").chmod(0o700)


def test_images_without_an_output_become_label_maps(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    for number in range(2):
        cv2.imwrite(f"photos/p_{number}.png", np.full((64, 96, 3), 80 * number, np.uint8))
    assert run_cli("run", "photos") == 0
    assert "no OUTPUT: writes label maps to photos_seg/" in capfd.readouterr().err
    assert list_folder(folder / "photos_seg") == ["000000.png", "000001.png", "classes.json"]
    for source, expected in {
        "photos/": "photos_seg-2/",
        "photos/p_*.png": "photos/p_seg/",
        "photos/*.png": "photos/images_seg/",
        "photos/p_0.png": "photos/p_0_seg/",
    }.items():
        assert complete_arguments(source, []).outputs == [expected]
    assert complete_arguments(".", []).outputs == [f"{folder}_seg/"]
    for pattern in ("**/*.png", "*/p_0.png"):
        with pytest.raises(ConfigError, match="name an OUTPUT outside the folders that the pattern matches"):
            complete_arguments(pattern, [])


@pytest.mark.parametrize("source", ["0", "/dev/video0", "rtsp://10.0.0.1/x", "http://10.0.0.1/x.mp4", "synth://road"])
def test_other_sources_without_an_output_are_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    assert complete_arguments(source, []).outputs == [PAGE]
    monkeypatch.setattr("stream_seg.stages.show.require_display", lambda: None)
    arguments = complete_arguments(source, [])
    assert (arguments.outputs, arguments.note) == (["window"], "no OUTPUT: shows a window; q quits")


def test_a_graph_file_has_its_own_source_and_outputs() -> None:
    for source in (None, "clip.mp4"):
        arguments = complete_arguments(source, [], graph_file=True)
        assert (arguments.source, arguments.outputs, arguments.settings) == (source, [], ())


def test_an_unknown_source_is_left_to_the_check_of_the_graph(folder: Path) -> None:
    assert complete_arguments("gopher://x", []).outputs == ()


def write_demo(path: str, *, title: str | None) -> None:
    with av.open(path, "w", format="mp4") as video:
        if title is not None:
            video.metadata["title"] = title
        stream = video.add_stream("libx264", 30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(96, 64, "yuv420p")), *stream.encode(None)]:
            video.mux(packet)


def test_the_demo_replaces_its_own_file_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.cli.arguments.DEMO_INPUT", DRIVE)
    assert run_cli("run", "-q") == 0
    assert list_folder(folder) == ["demo.mp4"]
    assert is_demo(Path("demo.mp4"))
    first = Path("demo.mp4").stat().st_ino
    assert run_cli("run", "-q") == 0
    assert list_folder(folder) == ["demo.mp4"]
    assert Path("demo.mp4").stat().st_ino != first
    make_clip("demo.mp4")
    mine = Path("demo.mp4").read_bytes()
    for options in ([], ["--overwrite"]):
        assert run_cli("run", "-q", *options) == 0
        assert Path("demo.mp4").read_bytes() == mine
    assert list_folder(folder) == ["demo-2.mp4", "demo-3.mp4", "demo.mp4"]


def test_which_files_are_of_the_demo(folder: Path) -> None:
    for name, title in (("ours.mp4", DEMO_TITLE), ("other.mp4", "holidays"), ("none.mp4", None)):
        write_demo(name, title=title)
        assert is_demo(Path(name)) is (title == DEMO_TITLE)
    Path("text.mp4").write_text(DEMO_TITLE)
    Path("folder.mp4").mkdir()
    os.mkfifo("pipe.mp4")
    Path("nowhere.mp4").symlink_to("missing.mp4")
    Path("there.mp4").symlink_to("ours.mp4")
    for name in ("text.mp4", "folder.mp4", "pipe.mp4", "nowhere.mp4", "missing.mp4"):
        assert not is_demo(Path(name))
    assert is_demo(Path("there.mp4"))
    Path("demo.mp4").symlink_to("missing.mp4")
    arguments = complete_arguments(None, [])
    assert (arguments.source, arguments.outputs) == (DEMO_INPUT, ["demo-2.mp4"])


@pytest.mark.parametrize("name", ["symbolic.mp4", "hard.mp4", "./in.mp4"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_the_input_by_another_name_is_always_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, options: list[str]
) -> None:
    make_clip("in.mp4")
    Path("symbolic.mp4").symlink_to("in.mp4")
    Path("hard.mp4").hardlink_to("in.mp4")
    before = contents(folder)
    code, line = run_failing(capfd, "in.mp4", name, *options)
    assert (code, "is the input as well" in line) == (OUTPUT, True)
    assert contents(folder) == before
