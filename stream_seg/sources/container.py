"""Opening a video with FFmpeg, and saying in plain words why it cannot be opened."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.errors import Reason, SourceError
from stream_seg.sources.ffmpeg_memory import allow
from stream_seg.sources.rtsp_redirect import asked_first
from stream_seg.sources.uri import Source

PROTOCOLS = {
    "file": "file",
    "http": "http,https,httpproxy,tcp,tls,crypto",
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
}
"""By kind of source, what FFmpeg may open: a playlist on disk reaches no network, one on the network no file."""

OTHERS_READ = frozenset(
    ("concat", "dash", "hls", "image2", "image2pipe", "imf", "lavfi", "sdp", "vapoursynth", "webm_dash_manifest")
)
"""Formats that name other files or hosts: none of them is opened."""

SILENT = "it gave no data in time"
REDIRECT = "it sends the reader elsewhere (a redirect), which is not followed"
SAID: tuple[tuple[type[av.FFmpegError], Reason, str | None], ...] = (
    (av.error.ExitError, "no data", SILENT),
    (av.error.TimeoutError, "no data", SILENT),
    (av.error.ConnectionRefusedError, "refused", None),
    (av.error.HTTPNotFoundError, "not found", "404: there is nothing at this address"),
    (av.error.FileNotFoundError, "not found", None),
    (
        av.error.HTTPUnauthorizedError,
        "auth",
        "401: it wants another user and password: SCHEME://USER:PASSWORD@HOST/PATH",
    ),
    (av.error.HTTPForbiddenError, "auth", "403: forbidden"),
    (av.error.InvalidDataError, "broken", "it is not a video that FFmpeg can read"),
)
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


@contextmanager
def opened(
    source: Source, options: Mapping[str, str], *, timeouts_s: tuple[float, float], stay_on_host: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and yield its container and its video stream. Raises SourceError.

    `timeouts_s` are for opening and for each read. With `stay_on_host` an RTSP server is asked first whether it
    redirects to another host, which FFmpeg would follow; redirects of http are never followed.
    """
    _refuse_without_opening(source)
    allow()
    fences = {"protocol_whitelist": PROTOCOLS[source.kind]} if source.kind in PROTOCOLS else {}
    if source.kind in ("file", "http"):
        fences["format_whitelist"] = ",".join(sorted(av.formats_available - OTHERS_READ))
    if source.kind == "http":
        fences["max_redirects"] = "0"
    # Without the prefix FFmpeg would take a file named a:b.mp4 for a protocol `a`.
    address = f"file:{source.address}" if source.kind == "file" else source.address
    form = "v4l2" if source.kind == "camera" else None
    given_up_s = 0.0

    def opened_within(open_s: float) -> InputContainer:
        nonlocal given_up_s
        given_up_s = time.monotonic() + open_s
        return av.open(address, format=form, options={**options, **fences}, timeout=(open_s, timeouts_s[1]))

    try:
        if source.kind == "rtsp" and stay_on_host:
            container = _opened_here(source, opened_within, open_s=timeouts_s[0])
        else:
            container = opened_within(timeouts_s[0])
    except av.FFmpegError as error:
        kind, reason = _why(error, source, in_time=time.monotonic() < given_up_s)
        raise SourceError(f"{source.shown}: cannot be opened: {reason}", reason=kind) from without_address(error)
    with container:
        stream = container.streams.best("video")
        # FFmpeg takes any text named .txt for terminal art, and draws it.
        if not isinstance(stream, VideoStream) or container.format.name == "tty":
            raise SourceError(f"{source.shown}: cannot be opened: it holds no video")
        yield container, stream


def reason_of(error: av.FFmpegError) -> tuple[Reason, str]:
    """Why: the kind of reason, and in words without the address."""
    said = error.strerror or type(error).__name__
    for kind, reason, words in SAID:
        if isinstance(error, kind):
            return reason, words or said
    return ("unreachable" if error.errno in UNREACHABLE else "broken"), said


def _why(error: av.FFmpegError, source: Source, *, in_time: bool) -> tuple[Reason, str]:
    """Why a source cannot be opened; FFmpeg calls several things by one name."""
    if error.errno == errno.ENOMEM:
        return "not allowed", "it asks for more memory than a video needs"
    if _is_mp4_without_index(source):
        return "broken", "it breaks off before its index (moov)"
    if source.kind in ("rtsp", "http"):
        if not in_time:  # RTSP calls an answer that never came invalid data
            return "no data", SILENT
        if error.errno == errno.EIO and not _has_address(source):
            return "dns", "no address is known for this host"
    if source.kind in ("file", "http") and error.errno == errno.EINVAL:
        return "not allowed", "it is a list of other files or addresses (a playlist), which is never followed"
    if source.kind == "http" and error.errno == errno.EIO:
        # One number for both, and FFmpeg's words on it are in its log alone.
        return "broken", f"its answer breaks off and is no video that FFmpeg can read, or {REDIRECT}"
    return reason_of(error)


def _has_address(source: Source) -> bool:
    try:
        socket.getaddrinfo(urlsplit(source.address).hostname, None)
    except (OSError, ValueError):
        return False
    return True


def without_address(error: av.FFmpegError) -> av.FFmpegError:
    """The same error without the address that FFmpeg was given, which may hold a password."""
    return av.FFmpegError(error.errno or 0, error.strerror or type(error).__name__)


def _refuse_without_opening(source: Source) -> None:
    path = Path(source.address)
    if source.kind == "camera" and not path.exists():
        cameras = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{source.shown}: no such camera; cameras here: {cameras}", reason="not found")
    if source.kind != "file":
        return
    if not path.exists():
        raise SourceError(f"{source.shown}: no such file", reason="not found")
    if not path.is_file():
        raise SourceError(f"{source.shown}: is not a regular file")
    if path.stat().st_size == 0:
        raise SourceError(f"{source.shown}: the file is empty")


def _opened_here(source: Source, opened_within: Callable[[float], InputContainer], *, open_s: float) -> InputContainer:
    """An RTSP stream. Raises SourceError where its server sends readers elsewhere, or says nothing in time."""
    deadline_s = time.monotonic() + open_s
    try:
        with asked_first(source.address, timeout_s=open_s) as elsewhere:
            if elsewhere:
                raise SourceError(f"{source.shown}: cannot be opened: {REDIRECT}", reason="not allowed")
            try:
                return opened_within(max(0.1, deadline_s - time.monotonic()))
            except av.FFmpegError:
                if time.monotonic() < deadline_s:
                    raise
    except TimeoutError:
        raise SourceError(f"{source.shown}: cannot be opened: {SILENT}", reason="no data") from None
    return opened_within(open_s / 2)  # some serve one reader at a time, and the first question is over now


def _is_mp4_without_index(source: Source) -> bool:
    if source.kind != "file":
        return False
    try:
        with Path(source.address).open("rb") as file:
            return file.read(12)[4:8] == b"ftyp"
    except OSError:  # FFmpeg could not read it either, and said why.
        return False
