"""Open videos with FFmpeg, and explain why one cannot be opened."""

from __future__ import annotations

import ctypes
import errno
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stream_seg.errors import Reason, SourceError
from stream_seg.sources.rtsp_redirect import probe_redirect
from stream_seg.sources.uri import HEIF_SUFFIXES, IMAGE_SUFFIXES, Source

PROTOCOLS = {"file": "file", "http": "http,https,httpproxy,tcp,tls,crypto", "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls"}
"""Protocols that FFmpeg may use, by kind of source: a playlist on disk reaches no network, one on a server no file."""
PLAYLIST_FORMATS = frozenset(
    ("concat", "dash", "hls", "image2", "image2pipe", "imf", "lavfi", "sdp", "vapoursynth", "webm_dash_manifest")
)
"""Formats that name other files or hosts; they are never opened."""
IMAGE_BRANDS = frozenset(("avif", "heic", "heim", "heis", "heix", "mif1"))
"""Brands of HEIC and AVIF images, of which FFmpeg shows a single tile."""
BEGIN_BYTES = 1 << 20
"""Bytes at the beginning of an mp4 in which a sample entry of encrypted video is searched."""
NO_DATA = "no data arrived in time"
UNAUTHORIZED = "401: user or password missing or wrong; write SCHEME://USER:PASSWORD@HOST/PATH"
REDIRECT = "the server redirects to another address, which is not followed"
FFMPEG_ERRORS: tuple[tuple[type[av.FFmpegError], Reason, str | None], ...] = (
    (av.error.ExitError, "no data", NO_DATA),
    (av.error.TimeoutError, "no data", NO_DATA),
    (av.error.ConnectionRefusedError, "refused", None),
    (av.error.HTTPNotFoundError, "not found", "404: there is nothing at this address"),
    (av.error.FileNotFoundError, "not found", None),
    (av.error.HTTPUnauthorizedError, "auth", UNAUTHORIZED),
    (av.error.HTTPForbiddenError, "auth", "403: forbidden"),
    (av.error.InvalidDataError, "broken", "not a video that FFmpeg can read"),
)
"""(error, reason, message) of FFmpeg's errors; None: FFmpeg's own message."""
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
WIDEST_PIXEL = 16
"""Bytes: 4 channels of 32 bits, not compressed."""
DEFAULT_BYTES = 256 << 20
"""An index of 11 million frames, two days at 60 frames/s, or an image of 8192x8192 in 24 bits."""

_limit_lock = threading.Lock()
_limit_bytes = 0


def allow_allocation(size: int = DEFAULT_BYTES) -> None:
    """Let FFmpeg allocate `size` bytes at once; a larger allocation fails as if memory had run out.

    FFmpeg trusts the counts of a header: for a file of 1.6 KB that promises 85 million frames it allocates an index of
    2 GB while opening it, which no option prevents. The limit, in every libavutil of this process (PyAV has one, OpenCV
    another), is never lowered below DEFAULT_BYTES or an earlier call. Does nothing on systems other than Linux.
    """
    global _limit_bytes
    with _limit_lock:
        size, maps = max(size, DEFAULT_BYTES), Path("/proc/self/maps")
        if size > _limit_bytes and maps.exists():
            for library in sorted(set(re.findall(r"/\S*libavutil\S*", maps.read_text()))):
                ctypes.CDLL(library).av_max_alloc(ctypes.c_size_t(size))
            _limit_bytes = size


@contextmanager
def open_video(
    source: Source, options: Mapping[str, str], *, timeouts_s: tuple[float, float], stay_on_host: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and yield its container and its video stream. Raises SourceError.

    `timeouts_s` are for opening and for each read. With `stay_on_host` an RTSP server is asked first whether it
    redirects to another host, which FFmpeg would follow; redirects of http are never followed.
    """
    _check_exists(source)
    allow_allocation()
    options = dict(options)
    if source.kind in PROTOCOLS:
        options["protocol_whitelist"] = PROTOCOLS[source.kind]
    if source.kind in ("file", "http"):
        options["format_whitelist"] = ",".join(sorted(av.formats_available - PLAYLIST_FORMATS))
    if source.kind == "http":
        options["max_redirects"] = "0"
    # Without the prefix FFmpeg would take the `a` of a file named a:b.mp4 for a protocol.
    address = f"file:{source.address}" if source.kind == "file" else source.address
    container_format, deadline_s = "v4l2" if source.kind == "camera" else None, 0.0

    def open_within(open_s: float) -> InputContainer:
        nonlocal deadline_s
        deadline_s = time.monotonic() + open_s
        timeout = open_s, timeouts_s[1]
        # Titles and comments are not used; one that is not UTF-8 would be an error.
        return av.open(address, format=container_format, options=options, timeout=timeout, metadata_errors="replace")

    try:
        if source.kind == "rtsp" and stay_on_host:
            container = _open_rtsp_on_host(source, open_within, open_s=timeouts_s[0])
        else:
            container = open_within(timeouts_s[0])
    except av.FFmpegError as error:
        kind, message = _explain_open_error(error, source, in_time=time.monotonic() < deadline_s)
        raise SourceError(f"{source.display}: cannot be opened: {message}", reason=kind) from strip_address(error)
    with container:
        stream = container.streams.best("video")
        if fault := _explain_unusable(container, stream):
            raise SourceError(f"{source.display}: cannot be opened: {fault}")
        assert isinstance(stream, VideoStream)
        yield container, stream


def _explain_unusable(container: InputContainer, stream: Stream | None) -> str | None:
    """Return why the best stream of a container is no video that can be decoded; None if it is one."""
    # FFmpeg takes any text named .txt for terminal art, and draws it.
    if not isinstance(stream, VideoStream) or container.format.name == "tty":
        return "it contains no video"
    if stream.disposition & Disposition.attached_pic:
        return "it contains no video, only the picture of an album"
    if container.metadata.get("major_brand") in IMAGE_BRANDS:
        return f"it is an image; its name must end in {' or '.join(HEIF_SUFFIXES)}"
    if "enc_key_id" in stream.metadata:
        return "it is encrypted"
    if stream.codec_context is None:  # a codec that FFmpeg does not know
        return "FFmpeg has no decoder for its video"
    return None


def explain_error(error: av.FFmpegError) -> tuple[Reason, str]:
    """Return the reason of an error and a message without the address."""
    strerror = error.strerror or type(error).__name__
    for kind, reason, message in FFMPEG_ERRORS:
        if isinstance(error, kind):
            return reason, message or strerror
    return ("unreachable" if error.errno in UNREACHABLE else "broken"), strerror


def strip_address(error: av.FFmpegError) -> av.FFmpegError:
    """Return the same error without the address that FFmpeg opened, which may contain a password."""
    return av.FFmpegError(error.errno or 0, error.strerror or type(error).__name__)


def _explain_open_error(error: av.FFmpegError, source: Source, *, in_time: bool) -> tuple[Reason, str]:
    """Explain why a source cannot be opened: FFmpeg has one error number for several causes."""
    if error.errno == errno.ENOMEM:
        return "not allowed", "it needs more memory than a video may take"
    if begin := _begin_of_mp4(source):
        return "broken", "it is encrypted" if b"encv" in begin else "the file ends before its index (moov)"
    if source.kind in ("rtsp", "http"):
        if not in_time:  # over RTSP, an answer that never came is invalid data
            return "no data", NO_DATA
        if error.errno == errno.EIO and not _resolves(source):
            return "dns", "the host name has no address"
    if source.kind in ("file", "http") and error.errno == errno.EINVAL:
        playlist = "a list of other files or addresses (a playlist) is never followed"
        return "not allowed", f"{playlist}; an image must end in {', '.join(IMAGE_SUFFIXES)}"
    if source.kind == "http" and error.errno == errno.EIO:
        # One number for both; only FFmpeg's log tells them apart.
        return "broken", f"the answer is truncated and not a video that FFmpeg can read, or {REDIRECT}"
    return explain_error(error)


def _resolves(source: Source) -> bool:
    with suppress(OSError, ValueError):
        return bool(socket.getaddrinfo(urlsplit(source.address).hostname, None))
    return False


def _check_exists(source: Source) -> None:
    """Raise SourceError for a camera or file that FFmpeg need not try."""
    path = Path(source.address)
    if source.kind == "camera" and not path.exists():
        cameras = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{source.display}: no such camera; cameras here: {cameras}", reason="not found")
    if source.kind == "file" and not path.exists():
        raise SourceError(f"{source.display}: no such file", reason="not found")
    if source.kind == "file" and not path.is_file():
        raise SourceError(f"{source.display}: is not a regular file")
    if source.kind == "file" and path.stat().st_size == 0:
        raise SourceError(f"{source.display}: the file is empty")


def _open_rtsp_on_host(
    source: Source, open_within: Callable[[float], InputContainer], *, open_s: float
) -> InputContainer:
    """Open an RTSP stream. Raises SourceError if its server redirects or does not answer in time."""
    deadline_s = time.monotonic() + open_s
    try:
        with probe_redirect(source.address, timeout_s=open_s) as redirects:
            if redirects:
                raise SourceError(f"{source.display}: cannot be opened: {REDIRECT}", reason="not allowed")
            try:
                return open_within(max(0.1, deadline_s - time.monotonic()))
            except av.FFmpegError:
                if time.monotonic() < deadline_s:
                    raise
    except TimeoutError:
        raise SourceError(f"{source.display}: cannot be opened: {NO_DATA}", reason="no data") from None
    return open_within(open_s / 2)  # some servers accept one client at a time, and the probe is closed now


def _begin_of_mp4(source: Source) -> bytes:
    """Return the first bytes of an mp4 file, empty for any other."""
    if source.kind == "file":
        # A file that cannot be opened here cannot be opened by FFmpeg either, and its error says why.
        with suppress(OSError), Path(source.address).open("rb") as file:
            begin = file.read(BEGIN_BYTES)
            return begin if begin[4:8] == b"ftyp" else b""
    return b""
