"""The protocol of one edge of the graph: frames one way, credits the other, over ZeroMQ DEALER and ROUTER.

    every:   stage thread --put--> DEALER ==== ROUTER --frames()--> stage thread
    latest:  stage thread --put--> newest frame --thread--> DEALER ==== ROUTER --frames()--> stage thread
                                                              <--- credit ---

Neither high-water marks nor ZMQ_CONFLATE bound the age of a frame (the kernel's socket buffers alone hold hundreds).
Therefore the receiver grants credits, and the sender never sends more frames than it has credits:

* `latest`: one credit, granted when the receiving stage asks for its next frame. The sender holds one frame; a newer
  frame replaces it, counted as a drop with reason "superseded". A received frame is at most one frame interval old.
* `every`: a window of credits, renewed frame by frame. `put` waits for a credit, so no frame is lost.

Every message is one part. To the receiver: HELLO; FRAME, number (u64), body; END. To the sender: CREDIT, the highest
number that may be sent (u64, counted from 1, cumulative, so that a repeated credit is harmless); STOP. The body depends
on the transport: a `Codec` packs and unpacks frames. Within a process the body is a reference.
"""

from __future__ import annotations

import struct
from itertools import count
from typing import Protocol, TypeAlias

import zmq

from stream_seg.frame import Frame
from stream_seg.stages.base import Policy

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

HELLO, FRAME, END, CREDIT, STOP = b"H", b"F", b"E", b"C", b"S"
NUMBER = struct.Struct("!Q")
WINDOW: dict[Policy, int] = {"latest": 1, "every": 3}
WAIT_MS = 100
"""Interval at which a waiting end checks whether it was stopped locally."""


class Codec(Protocol):
    """Converts frames to message bodies: `pack` on the sending side, `unpack` once on the receiving side."""

    def pack(self, frame: Frame, /) -> bytes: ...

    def unpack(self, body: bytes, /) -> Frame: ...


class ByReference:
    """The codec within a process: the body is the key of a frame in a shared dictionary."""

    def __init__(self) -> None:
        self._frames: dict[bytes, Frame] = {}
        self._keys = count()

    def pack(self, frame: Frame) -> bytes:
        key = NUMBER.pack(next(self._keys))
        self._frames[key] = frame
        return key

    def unpack(self, body: bytes) -> Frame:
        return self._frames.pop(body)
