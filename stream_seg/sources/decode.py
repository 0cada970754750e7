"""Decode the packets of a video to frames, and count every frame that is lost on the way.

PyAV returns all frames of a decoder in one list, which an error ends: the frames behind it are lost silently when the
decoder is emptied at the end. So packets and frames are counted, and the end of a file is decoded again, with
one thread, if frames are missing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from itertools import chain
from typing import TypeAlias

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.errors import Reason, SourceError
from stream_seg.sources.container import explain_error, strip_address
from stream_seg.sources.excerpt import find_key_frame
from stream_seg.sources.packet_balance import PacketBalance

Opened: TypeAlias = tuple[InputContainer, VideoStream]

INDEXED_FORMATS = ("mp4", "matroska", "avi")
"""FFmpeg's names of the containers in which a corrupt packet is one that the end of the file truncates."""
MOST_ATTEMPTS = 100
"""Attempts to read the next packet."""


class TruncatedError(SourceError):
    """A stream ended before its end."""


class EncryptedError(TruncatedError):
    """A stream whose packets are encrypted from here on."""

    def __init__(self) -> None:
        super().__init__("encrypted; only unencrypted video can be decoded", reason="not allowed")


def decode_frames(
    container: InputContainer,
    stream: VideoStream,
    *,
    live: bool = False,
    moved: bool = False,
    since: int | None = None,
    reopen: Callable[[], AbstractContextManager[Opened]] | None = None,
) -> Iterator[av.VideoFrame | None]:
    """Yield frames as decoded, None for one that is damaged or lost. Raises TruncatedError at the end of a truncated
    stream, EncryptedError where it is encrypted.

    `moved`: the stream is not at its beginning; the index promises the frames from the first packet on. `since` is the
    time, in ticks of the stream, from which on lost frames are counted. `reopen` opens a file again, with one thread,
    to decode its end.
    """
    expected, read, truncated = count_indexed_frames(container, stream), 0, False
    failure: TruncatedError | None = None
    balance = PacketBalance(stream, live=live, first_pts=since)
    try:
        for packet in _read_packets(container, stream):
            if moved and packet.size:
                moved = False
                expected = 0 if packet.dts is None else count_indexed_frames(container, stream, since=packet.dts)
            if packet.has_sidedata("encryption_info"):
                failure = EncryptedError()
                break
            # In streams (mpegts, hls, rtsp) the flag means that some part of the packet is missing.
            if packet.is_corrupt and any(name in container.format.name for name in INDEXED_FORMATS):
                truncated = True
            elif packet.size:  # an empty packet would end the decoder
                read += not packet.is_discard
                balance.add_packet(packet)
                yield from balance.count(_decode_packet(stream, packet))
    except av.FFmpegError as error:
        reason, message = explain_error(error)
        failure = _truncated(message, reason, strip_address(error))
    except IndexError as error:  # of PyAV, after the last packet, if streams appear while it reads
        failure = _truncated("streams appear that its beginning does not list", "broken", error)
    # Frames that the decoder still holds come before the error.
    rest = _decode_packet(stream, None)
    whole = failure is None and not truncated
    if reopen is not None and whole and balance.misses(rest):
        yield from balance.count(frame for frame in rest if frame is not None)
        yield from balance.count(_decode_end(reopen, after=balance.last_pts, errors=not balance.reliable))
    else:
        yield from balance.count(rest)
    if not live:
        yield from [None] * balance.lost
    if failure is not None:
        raise failure
    if read < expected:
        raise TruncatedError(f"its index lists {expected} frames")
    if truncated:
        raise TruncatedError("its last frame is incomplete")


def _read_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """Yield the packets of a stream. In a damaged one FFmpeg may ask to be called again, an error that ends PyAV's."""
    attempts = 0
    while True:
        try:
            for packet in container.demux(stream):
                attempts = 0
                yield packet
        except av.error.BlockingIOError:
            attempts += 1
            if attempts > MOST_ATTEMPTS:
                raise
        else:
            return


def count_indexed_frames(container: InputContainer, stream: VideoStream, *, since: int | None = None) -> int:
    """Return the number of frames in the index of an mp4, without those that its edit list cuts; 0 for other formats,
    whose frame counts are guesses of the program that wrote the header. `since`: from this decoding time on."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    entries = [entry for entry in stream.index_entries if not entry.is_discard]
    return sum(since is None or entry.timestamp >= since for entry in entries)


def _decode_packet(stream: VideoStream, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame | None]:
    try:
        return [*stream.decode(packet)]
    except av.FFmpegError:
        return [None]


def _decode_end(
    reopen: Callable[[], AbstractContextManager[Opened]], *, after: int | None, errors: bool
) -> Iterator[av.VideoFrame | None]:
    """Yield the frames of a file after the time `after`, None for all of them; with `errors` also None for each packet
    that cannot be decoded.

    `reopen` gives the decoder one thread, which decodes a packet at once: an error then hides no other frame.
    """
    try:
        with reopen() as (container, stream):
            tick = stream.time_base or Fraction(1, av.time_base)
            begin_s = Fraction(container.start_time or 0, av.time_base)
            target = None if after is None else find_key_frame(container, stream, after * tick, begin_s=begin_s)
        with reopen() as (container, stream):
            if target is not None:
                container.seek(target, stream=stream)
            packets = (packet for packet in container.demux(stream) if packet.size)
            for packet in chain(packets, (None,)):
                for frame in _decode_packet(stream, packet):
                    pts = frame.pts if frame is not None else packet.pts if packet is not None and errors else None
                    if pts is not None and (after is None or pts > after):
                        yield frame
    except (av.FFmpegError, IndexError, SourceError):
        return  # the frames stay lost, and are counted


def _truncated(message: str, reason: Reason, cause: BaseException) -> TruncatedError:
    error = TruncatedError(message, reason=reason)
    error.__cause__ = cause
    return error
