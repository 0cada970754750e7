"""Decode the packets of a video to frames, and count every frame that is lost on the way.

PyAV returns all frames of a decoder in one list, and an error ends it: the frames behind it are lost without a word
when the decoder is emptied at the end. So packets and frames are counted, and the end of a file is decoded again, with
one thread, if frames are missing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

Opened: TypeAlias = tuple[InputContainer, VideoStream]

INDEXED_FORMATS = ("mp4", "matroska", "avi")
"""FFmpeg's names of the containers in which a corrupt packet is one that the end of the file truncates."""
ONE_FRAME_PER_PACKET = frozenset((
    "av1", "dnxhd", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "mpeg1video", "mpeg2video", "png", "prores", "vp9",
    "vvc",
))  # fmt: skip
"""FFmpeg's names of decoders that lose a frame where a packet gives none. VP8 has packets with hidden frames, MPEG-4
packets that say that the image does not change."""
LONGEST_REORDERING = 16
"""Frames that a decoder may hold back to sort them, by the standards of H.264 and HEVC."""
MOST_ATTEMPTS = 100
"""Attempts to read the next packet."""
AUTOMATIC_THREADS = 16
"""Threads that FFmpeg starts at most by itself."""


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
    balance = _Balance(stream, live=live, first_pts=since)
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


class _Balance:
    """Packets sent to a decoder, and frames that came back, of those from the time `first_pts` on.

    A packet has lost its frame once the frame of a much later packet, with a later time, comes. Of packets without
    times only the number is known.
    """

    def __init__(self, stream: VideoStream, *, live: bool, first_pts: int | None) -> None:
        self._sent = self._returned = self._without_frame = self._errors = 0
        self._joining = live
        self._longest_delay = LONGEST_REORDERING + (stream.codec_context.thread_count or AUTOMATIC_THREADS)
        self._first_pts = first_pts
        self._pending: dict[int, int] = {}  # number of each packet in the decoder, by time
        self.reliable = stream.codec_context.name in ONE_FRAME_PER_PACKET
        """True if every packet holds one frame."""
        self.last_pts: int | None = None
        """Time of the latest frame, in ticks of the stream. A damaged stream may not end with it."""

    @property
    def lost(self) -> int:
        """Number of frames that are missing or still in the decoder."""
        return max(0, self._sent - self._returned) if self.reliable else 0

    def misses(self, rest: Sequence[av.VideoFrame | None]) -> bool:
        """Return True if the last frames of the decoder, `rest`, may lack some."""
        return None in rest or self._sent > self._returned + len(rest)

    def add_packet(self, packet: av.Packet[VideoStream]) -> None:
        """Count a packet. One before the first key frame in time refers to frames before the beginning."""
        if self._first_pts is None:
            self._first_pts = packet.pts
        if packet.is_discard or not self._is_inside(packet.pts):
            return
        self._sent += 1
        if packet.pts is not None and self.reliable:
            self._pending[packet.pts] = self._sent
            if len(self._pending) > 2 * self._longest_delay:  # lost, with a time that no frame overtakes
                del self._pending[next(iter(self._pending))]

    def count(self, frames: Iterable[av.VideoFrame | None]) -> Iterator[av.VideoFrame | None]:
        """Yield frames, None for a damaged one, and None for each that cannot be in the decoder any more."""
        for frame in frames:
            if frame is None and self._joining:
                continue
            if frame is None:
                self._errors += 1
                self._returned += 1
                yield None
                continue
            if self._joining:  # packets before the first key frame of a stream that is joined in the middle
                self._joining, self._sent, self._returned = False, 1, 0
                self._pending.clear()
            yield from self._overtake(frame.pts)
            self._returned += self._is_inside(frame.pts)
            self.reliable &= not frame.interlaced_frame  # the packets of some are fields
            if frame.pts is not None:
                self.last_pts = max(frame.pts, self.last_pts or frame.pts)
            yield None if frame.is_corrupt else frame
        while self.lost > self._longest_delay and not self._joining:
            yield from self._lose()

    def _overtake(self, pts: int | None) -> Iterator[None]:
        """Yield None for every packet that a frame of this time shows to have none; errors have announced some."""
        number = None if pts is None else self._pending.pop(pts, None)
        if number is not None and pts is not None:
            limit = number - LONGEST_REORDERING
            passed = [time for time, other in self._pending.items() if time < pts and other < limit]
            self._without_frame += len(passed)
            for time in passed:
                del self._pending[time]
        while self._errors < self._without_frame and self.lost:
            yield from self._lose()

    def _lose(self) -> Iterator[None]:
        self._errors += 1
        self._returned += 1
        yield None

    def _is_inside(self, pts: int | None) -> bool:
        return pts is None or self._first_pts is None or pts >= self._first_pts


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
