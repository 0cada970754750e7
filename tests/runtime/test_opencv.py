"""Test the number of OpenCV's threads while graphs run."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest

from stream_seg.runtime.graph import Graph
from stream_seg.runtime.opencv import share_cores
from tests.support.fake_stages import Camera, Ledger, Work, make_chain, make_config


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(8)
    monkeypatch.setattr("stream_seg.runtime.opencv.count_cores", lambda: 16)
    yield
    cv2.setNumThreads(before)


@pytest.mark.parametrize(("stages", "threads"), [(1, 16), (5, 3), (16, 1), (40, 1)])
def test_the_stages_share_the_cores(stages: int, threads: int) -> None:
    with share_cores(stages):
        assert cv2.getNumThreads() == threads
    assert cv2.getNumThreads() == 8


def test_of_several_graphs_the_lowest_number_counts_and_the_last_one_restores_it() -> None:
    few, many, more = share_cores(4), share_cores(8), share_cores(8)
    for graph, threads in ((few, 4), (many, 2), (more, 2)):
        graph.__enter__()
        assert cv2.getNumThreads() == threads
    for graph, threads in ((many, 2), (more, 4), (few, 8)):
        graph.__exit__(None, None, None)
        assert cv2.getNumThreads() == threads


def test_a_graph_limits_them_while_it_runs() -> None:
    sink = Ledger()
    with Graph(make_config(make_chain(Camera(3), Work(), sink))) as graph:
        assert cv2.getNumThreads() == 5
        graph.wait(10)
    assert sink.numbers == [0, 1, 2]
    assert cv2.getNumThreads() == 8
