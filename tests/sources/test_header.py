import struct
import zlib

import cv2
import numpy as np
import pytest

from stream_seg.sources.header import PictureHeader, picture_header

SIZE = (37, 21)
IMAGE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def encoded(suffix: str, *parameters: int) -> bytes:
    return bytes(cv2.imencode(suffix, IMAGE, parameters)[1])


def png_of(width: int, height: int) -> bytes:
    """A small valid PNG file that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(3000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("png", encoded(".png")),
        ("bmp", encoded(".bmp")),
        ("mjpeg", encoded(".jpg")),
        ("mjpeg", encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("webp", encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 80)),
        ("webp", encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)),
        ("tiff", encoded(".tif")),
    ],
    ids=["png", "bmp", "jpeg", "progressive", "webp", "lossless-webp", "tiff"],
)
def test_size_is_read_from_the_first_bytes_only(codec: str, data: bytes) -> None:
    assert picture_header(data) == PictureHeader(codec, *SIZE)
    for length in range(30):
        assert picture_header(data[:length]) in (None, PictureHeader(codec, *SIZE))


def test_size_of_extended_webp_and_of_old_and_upside_down_bmp() -> None:
    webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (19_999).to_bytes(3, "little") + (99_999).to_bytes(3, "little")
    assert picture_header(webp) == PictureHeader("webp", 20_000, 100_000)
    assert picture_header(b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 5)) == PictureHeader("bmp", 7, 5)
    assert picture_header(b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -5)) == PictureHeader("bmp", 7, 5)


def test_claimed_size_is_taken_at_its_word() -> None:
    assert picture_header(png_of(20_000, 20_000)) == PictureHeader("png", 20_000, 20_000)


@pytest.mark.parametrize("data", [b"", b"text", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xd9", b"II*\0" + bytes(20)])
def test_anything_else_is_no_picture(data: bytes) -> None:
    assert picture_header(data) is None
