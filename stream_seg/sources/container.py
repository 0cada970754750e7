"""Opening a video with FFmpeg, and saying in plain words why it cannot be opened."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.errors import SourceError
from stream_seg.uri import Source

PROTOCOLS = {
    "file": "file",
    "http": "http,https,httpproxy,tcp,tls,crypto",
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
}
"""By kind of source, what FFmpeg may open: a playlist on disk reaches no network, one on the network no file."""

SILENT = "it gave no data in time"
REASONS: tuple[tuple[type[av.FFmpegError], str], ...] = (
    (av.error.ExitError, SILENT),
    (av.error.TimeoutError, SILENT),
    (av.error.HTTPNotFoundError, "404: there is nothing at this address"),
    (av.error.HTTPUnauthorizedError, "401: it wants another user and password: SCHEME://USER:PASSWORD@HOST/PATH"),
    (av.error.HTTPForbiddenError, "403: forbidden"),
    (av.error.InvalidDataError, "it is not a video that FFmpeg can read"),
)


@contextmanager
def opened(
    source: Source, options: Mapping[str, str], *, timeouts_s: tuple[float, float]
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream. `timeouts_s` are for opening and for each read. Raises SourceError."""
    _refuse_without_opening(source)
    protocols = {"protocol_whitelist": PROTOCOLS[source.kind]} if source.kind in PROTOCOLS else {}
    began_s = time.monotonic()
    try:
        container = av.open(
            # Without the prefix FFmpeg would take a file named a:b.mp4 for a protocol `a`.
            f"file:{source.address}" if source.kind == "file" else source.address,
            format="v4l2" if source.kind == "camera" else None,
            options={**protocols, **options},
            timeout=timeouts_s,
        )
    except av.FFmpegError as error:
        reason = "it breaks off before its index (moov)" if _is_mp4_without_index(source) else reason_of(error)
        # RTSP calls an answer that never came invalid data.
        if source.kind in ("rtsp", "http") and time.monotonic() - began_s >= timeouts_s[0]:
            reason = SILENT
        raise SourceError(f"{source.shown}: cannot be opened: {reason}") from without_address(error)
    with container:
        stream = container.streams.best("video")
        # FFmpeg takes any text named .txt for terminal art, and draws it.
        if not isinstance(stream, VideoStream) or container.format.name == "tty":
            raise SourceError(f"{source.shown}: cannot be opened: it holds no video")
        yield container, stream


def reason_of(error: av.FFmpegError) -> str:
    """Why, without the address."""
    known = (reason for kind, reason in REASONS if isinstance(error, kind))
    return next(known, error.strerror or type(error).__name__)


def without_address(error: av.FFmpegError) -> av.FFmpegError:
    """The same error without the address that FFmpeg was given, which may hold a password."""
    return av.FFmpegError(error.errno or 0, error.strerror or type(error).__name__)


def _refuse_without_opening(source: Source) -> None:
    path = Path(source.address)
    if source.kind == "camera" and not path.exists():
        cameras = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{source.shown}: no such camera; cameras here: {cameras}")
    if source.kind != "file":
        return
    if not path.exists():
        raise SourceError(f"{source.shown}: no such file")
    if not path.is_file():
        raise SourceError(f"{source.shown}: is not a regular file")
    if path.stat().st_size == 0:
        raise SourceError(f"{source.shown}: the file is empty")


def _is_mp4_without_index(source: Source) -> bool:
    if source.kind != "file":
        return False
    try:
        with Path(source.address).open("rb") as file:
            return file.read(12)[4:8] == b"ftyp"
    except OSError:  # FFmpeg could not read it either, and said why.
        return False
