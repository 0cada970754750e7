"""An output is never a file that the graph reads, with and without `overwrite`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stream_seg.config.graph_file import check
from stream_seg.config.outputs import check_files, output_paths, refuse_overwriting
from stream_seg.errors import OutputError


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "source",
    ["clip.mp4", "net.onnx", "mapped.onnx", "password", "certificate", "graph.yaml", "link", "hard", "no/../clip.mp4"],
)
def test_a_file_that_the_graph_reads_is_no_output(tmp_path: Path, source: str, overwrite: bool) -> None:
    names = ("clip.mp4", "net.onnx", "mapped.onnx", "password", "certificate", "graph.yaml")
    for name in names:
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("net.onnx")
    (tmp_path / "hard").hardlink_to(tmp_path / "clip.mp4")
    paths = {name: str(tmp_path / name) for name in names}
    stages: dict[str, Any] = {
        "capture": {"uri": paths["clip.mp4"], "password_file": paths["password"]},
        "segment": {"input": "capture", "network": paths["net.onnx"]},
        "again": {"stage": "segment", "input": "capture", "network": {"onnx": paths["mapped.onnx"]}},
        "serve": {"input": "segment", "certfile": paths["certificate"], "keyfile": paths["certificate"]},
        "records": {"input": "again", "path": str(tmp_path / "o.jsonl")},
    }
    config = check({"stages": stages, "overwrite": overwrite}, where="graph")
    refuse_overwriting(config, report_file=tmp_path / "report.json")
    with pytest.raises(OutputError, match=f"{source}: is the input as well"):
        refuse_overwriting(config, report_file=tmp_path / source, inputs=[Path(paths["graph.yaml"])])


@pytest.mark.parametrize("second", ["labels", "./x/../labels", "link", "upward/labels"])
def test_two_outputs_never_share_a_path(tmp_path: Path, second: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("labels")
    (tmp_path / "upward").symlink_to(tmp_path)
    first = {"input": "segment", "path": str(tmp_path / "labels")}
    stages = {"synthetic": {}, "segment": {"input": "synthetic"}, "masks": first}
    stages["again"] = {"stage": "masks", "input": "segment", "path": f"{tmp_path}/{second}"}
    with pytest.raises(OutputError, match="masks and again would both write it"):
        refuse_overwriting(check({"stages": stages, "overwrite": True}, where="graph"))


def test_the_path_of_an_output_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").touch()
    stages = {"synthetic": {}, "records": {"input": "synthetic", "path": str(tmp_path / "o.jsonl")}}
    config = check({"stages": stages, "overwrite": True}, where="graph")
    refuse_overwriting(config)
    assert output_paths(config) == [("records", tmp_path / "o.jsonl")]


@pytest.mark.parametrize(
    ("path", "source", "removes"),
    [
        ("d.mp4", "d-0002.mp4", True),
        ("d.mp4", "d-20261130T183000Z.mp4", True),
        ("link/d-{stream}-{part}.mp4", "d-capture-0002-2.partial.mp4", True),
        ("d.mp4", "d-2.mp4", False),
        ("d-{part}.mkv", "d-0002.mp4", False),
        ("other/d-{part}.mp4", "d-0002.mp4", False),
    ],
)
def test_an_output_that_removes_old_files_removes_no_input(
    tmp_path: Path, path: str, source: str, removes: bool
) -> None:
    (tmp_path / source).touch()
    (tmp_path / "link").symlink_to(tmp_path)
    write = {"input": "capture", "path": f"{tmp_path}/{path}", "segment_s": 60}
    stages = {"capture": {"uri": f"{tmp_path}/{source}"}, "write": write}
    refuse_overwriting(check({"stages": stages}, where="graph"))
    config = check({"stages": {**stages, "write": {**write, "keep_gb": 1}}}, where="graph")
    refused = pytest.raises(OutputError, match=f"keep_gb would remove the input .*{source}")
    with refused if removes else nullcontext():
        refuse_overwriting(config)


def test_files_of_a_command(tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.touch()
    check_files([new], overwrite=False, inputs=[old, None, "road"])
    with pytest.raises(OutputError, match=r"old\.json: the file exists"):
        check_files([new, old], overwrite=False)
    check_files([new, old], overwrite=True)
    with pytest.raises(OutputError, match=r"old\.json: is an input as well"):
        check_files([new, old], overwrite=True, inputs=[str(old)])
