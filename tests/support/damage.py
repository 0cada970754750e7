"""Damaged copies of videos: packets that are changed, streams whose bytes are flipped."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import av
from av.packet import Packet

Change = Callable[[bytes], bytes]


def zero(packet: bytes) -> bytes:
    """Return a packet of zeros, which no decoder takes for a frame."""
    return bytes(len(packet))


def halve(packet: bytes) -> bytes:
    """Return the first half of a packet."""
    return packet[: len(packet) // 2]


def scramble(packet: bytes) -> bytes:
    """Return a packet whose second half is noise."""
    half = len(packet) // 2
    return packet[:half] + random.Random(0).randbytes(len(packet) - half)


def change_packets(source: Path, target: Path, changes: Mapping[int, Change]) -> Path:
    """Copy the video of a file, packet by packet in decoding order, with those of `changes` changed."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        for number, packet in enumerate(packets):
            change = changes.get(number)
            changed = packet if change is None else Packet(change(bytes(packet)))
            changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
            changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
            changed.stream = copy
            output.mux(changed)
    return target


def flip_bits(source: Path, target: Path, *, share: float, seed: int) -> Path:
    """Copy a file with a share of its bytes changed in one bit each."""
    data, chance = bytearray(source.read_bytes()), random.Random(seed)
    for _ in range(max(1, round(share * len(data)))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    target.write_bytes(data)
    return target
