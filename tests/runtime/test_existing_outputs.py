"""A graph replaces no file that exists when it starts or when a source is added; its own files do not count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from stream_seg.config.config import Config
from stream_seg.errors import OutputError
from stream_seg.files.templates import fill_stream
from stream_seg.runtime.graph import Graph
from stream_seg.runtime.reload import reload
from stream_seg.stages.base import Frames, Traits
from tests.support.fake_stages import make_camera, make_config, make_node
from tests.support.program import wait_until


@dataclass
class Names:
    """An output of a user's own: it creates its file with the first frame of a stream."""

    traits: ClassVar = Traits(role="output")
    path: str

    def __call__(self, frames: Frames) -> Frames:
        for frame in frames:
            fill_stream(Path(self.path), frame.stream).touch()
            yield frame


def make_graph(folder: Path, *cameras: str, name: str = "{stream}.txt", overwrite: bool = False) -> Config:
    nodes = [*map(make_camera, cameras), make_node("names", "output", Names(f"{folder}/{name}"), *cameras)]
    return replace(make_config(nodes), overwrite=overwrite)


def test_an_output_that_exists_is_refused_before_a_stage_starts(tmp_path: Path) -> None:
    (tmp_path / "rear.txt").write_text("mine")
    config = make_graph(tmp_path, "front", "rear")
    with pytest.raises(OutputError, match=r"rear\.txt: the file exists; .*--overwrite"):
        Graph(config)
    with Graph(replace(config, overwrite=True)):
        wait_until((tmp_path / "front.txt").exists)


@pytest.mark.parametrize("name", ["{stream}.txt", "all.txt"])
def test_an_added_source_does_not_count_the_files_of_the_running_graph(tmp_path: Path, name: str) -> None:
    with Graph(make_graph(tmp_path, "front", name=name)) as graph:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 1)
        for _ in range(2):
            graph.add(make_camera("rear"), into=["names"])
            wait_until(lambda: len(list(tmp_path.iterdir())) == (2 if "{" in name else 1))
            graph.remove("rear")
        (tmp_path / "left.txt").write_text("mine")
        if "{" in name:
            with pytest.raises(OutputError, match=r"left\.txt: the file exists"):
                graph.add(make_camera("left"), into=["names"])
        assert not graph.error
        assert not graph.done.is_set()
    assert (tmp_path / "left.txt").read_text() == "mine"


def test_a_reload_refuses_the_file_of_a_new_stream_before_it_changes_anything(tmp_path: Path) -> None:
    both, one = (make_graph(tmp_path, *names) for names in (["front", "rear"], ["front"]))
    with Graph(both) as graph:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        config = reload(graph, reload(graph, both, one), both)  # rear goes and comes back: its file is this run's
        (tmp_path / "left.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"left\.txt: the file exists"):
            reload(graph, config, make_graph(tmp_path, "left", "rear"))
        assert [worker.node.name for worker in graph.workers if worker.is_source] == ["front", "rear"]
        assert not graph.error
    assert (tmp_path / "left.txt").read_text() == "mine"
