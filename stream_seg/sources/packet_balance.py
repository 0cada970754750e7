"""Packets sent to a decoder, and the frames that it returns: every frame that it loses is counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import av
from av.video.stream import VideoStream

ONE_FRAME_PER_PACKET = frozenset((
    "av1", "dnxhd", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "mpeg1video", "mpeg2video", "png", "prores", "vp9",
    "vvc",
))  # fmt: skip
"""FFmpeg's names of decoders that lose a frame where a packet gives none. VP8 has packets with hidden frames, MPEG-4
packets that say that the image does not change."""
LONGEST_REORDERING = 16
"""Frames that a decoder may hold back to sort them, by the standards of H.264 and HEVC."""
AUTOMATIC_THREADS = 16
"""Threads that FFmpeg starts at most by itself."""


class PacketBalance:
    """Packets sent to a decoder, and frames that came back, of those from the time `first_pts` on.

    A packet has lost its frame once the frame of a much later packet, with a later time, comes. Of packets without
    times only the number is known.
    """

    def __init__(self, stream: VideoStream, *, live: bool, first_pts: int | None) -> None:
        self._sent = self._returned = self._without_frame = self._announced = 0
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
                self._announced += 1
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
        while self._announced < self._without_frame and self.lost:
            yield from self._lose()

    def _lose(self) -> Iterator[None]:
        self._announced += 1
        self._returned += 1
        yield None

    def _is_inside(self, pts: int | None) -> bool:
        return pts is None or self._first_pts is None or pts >= self._first_pts
