"""Frames for the encoder: their memory is used again, but not while somebody refers to it."""

from __future__ import annotations

import av
import numpy as np
from av.filter import Graph

from stream_seg.stages.encoder_frames import IN_TURN, EncoderFrames
from stream_seg.types import Image

SIZE = (32, 48)


def grey(value: int) -> Image:
    return np.full((*SIZE, 3), value, np.uint8)


def luma(frame: av.VideoFrame) -> int:
    values = {*np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(SIZE[0], -1)[:, : SIZE[1]].ravel()}
    assert len(values) == 1
    return int(values.pop())


def test_the_memory_of_a_frame_is_used_again() -> None:
    frames = EncoderFrames(SIZE, reuse=True)
    addresses, levels = [], []
    for number in range(3 * IN_TURN):
        frame = frames.convert(grey(10 * number))
        addresses.append(frame.planes[0].buffer_ptr)
        levels.append(luma(frame))
    assert addresses == addresses[:IN_TURN] * 3
    assert len({*addresses}) == IN_TURN
    assert levels == [round(16 + 10 * number * 219 / 255) for number in range(3 * IN_TURN)]


def test_frames_in_use_are_not_overwritten() -> None:
    frames = EncoderFrames(SIZE, reuse=False)
    in_use = [frames.convert(grey(50 * number)) for number in range(4)]
    assert [luma(frame) for frame in in_use] == [16, 59, 102, 145]


def test_a_frame_to_which_ffmpeg_refers_is_not_overwritten() -> None:
    frames = EncoderFrames(SIZE, reuse=True)
    frame = frames.convert(grey(200))
    graph = Graph()
    source = graph.add_buffer(width=SIZE[1], height=SIZE[0], format="yuv420p", time_base=1)
    source.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(frame)  # the graph keeps a reference until the pull
    levels = [luma(frames.convert(grey(value))) for value in (0, 100, 255)]
    assert levels == [16, 102, 235]
    referred = graph.pull()
    assert isinstance(referred, av.VideoFrame)
    assert luma(referred) == 188


def test_frames_state_their_colours() -> None:
    frame = EncoderFrames(SIZE, reuse=True).convert(grey(0))
    assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
