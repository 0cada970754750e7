"""Pictures of a folder, a glob or a single picture file, in natural order."""

from __future__ import annotations

import glob
import re
import time
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from stream_seg.errors import SourceError
from stream_seg.sources.ffmpeg_memory import allow
from stream_seg.sources.image_header import WIDEST_PIXEL, read_picture
from stream_seg.sources.picture import Picture, Pictures, upright_bgr
from stream_seg.sources.uri import PICTURES, Source


def picture_files(source: Source) -> list[Path]:
    """The files in natural order: 2.png before 10.png. Raises SourceError where there is none, or
    where they may not be looked for."""
    place = Path(source.address)
    try:
        if place.is_dir():
            found = list(place.iterdir())
        else:
            found = [place] if place.exists() else [Path(p) for p in glob.glob(source.address, recursive=True)]
        files = [p for p in found if p.suffix.lower() in PICTURES and p.is_file()]
    except OSError as error:
        raise SourceError(f"{source.shown}: {error.strerror}") from error
    if not files:
        what = "holds" if place.is_dir() else "matches"
        raise SourceError(f"{source.shown}: {what} no picture; a picture ends in {', '.join(PICTURES)}")
    return sorted(files, key=_natural)


def image_pictures(source: Source, *, rate: float, max_pixels: int) -> Pictures:
    """One picture per file, None for an unreadable one; sizes may differ. Raises SourceError for a picture of more
    than `max_pixels`, from its header."""
    time_base = 1 / Fraction(rate).limit_denominator(1001)
    reformatter = VideoReformatter()
    for number, path in enumerate(picture_files(source)):
        decoded = _decoded(path, max_pixels)
        if decoded is None:
            yield None
            continue
        frame, mirrored = decoded
        captured_ns = time.monotonic_ns()
        yield Picture(upright_bgr(frame, reformatter, mirrored=mirrored), number, 1, time_base, captured_ns)


def _decoded(path: Path, max_pixels: int) -> tuple[av.VideoFrame, bool] | None:
    """The picture, and whether it is to be shown mirrored."""
    try:
        found = read_picture(path, max_pixels=max_pixels, limit=f"max_pixels ({max_pixels}) allows")
    except OSError:
        return None
    if found is None:
        return None
    data, header = found
    allow(WIDEST_PIXEL * header.width * header.height)
    decoder = av.CodecContext.create(header.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = {"max_pixels": str(max_pixels)}
    if header.codec == "mjpeg":  # Half a JPEG would pass for a whole one; half of another format is an error anyway.
        decoder.options["err_detect"] = "explode"
    try:
        frames = decoder.decode(av.Packet(data)) or decoder.decode(None)
    except av.FFmpegError:
        return None
    if not frames or frames[0].is_corrupt:
        return None
    return frames[0], header.is_mirrored(frames[0].rotation)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Digits compare as numbers, before letters."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdecimal() else (1 << 62, part) for part in parts]
