import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.sources.image_header import PictureHeader, mirrored_by_exif, picture_header, read_picture

SIZE = (37, 21)
IMAGE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def encoded(suffix: str, *parameters: int) -> bytes:
    return bytes(cv2.imencode(suffix, IMAGE, parameters)[1])


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def oriented(suffix: str, image: np.ndarray, orientation: int, *, order: str = "<") -> bytes:
    """A picture file that says how it is to be shown."""
    data = encoded_as(suffix, image)
    height, width = image.shape[:2]
    entries = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1) + entries + bytes(4)
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]
    if suffix == ".png":
        return data[:33] + chunk(b"eXIf", exif) + data[33:]
    if suffix == ".webp":
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<II", 10, 0x08) + sizes + data[12:] + b"EXIF" + struct.pack("<I", len(exif))
        return b"RIFF" + struct.pack("<I", 4 + len(chunks) + len(exif)) + b"WEBP" + chunks + exif
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    old = [data[at : at + 12] for at in range(directory + 2, directory + 2 + 12 * count, 12)]
    tags = sorted([*(tag for tag in old if tag[:2] != entries[:2]), entries], key=lambda tag: tag[1::-1])
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)


def encoded_as(suffix: str, image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def png_of(width: int, height: int) -> bytes:
    """A small valid PNG file that claims a size."""
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


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientations_2_4_5_and_7_are_mirrored(suffix: str, order: str) -> None:
    turned = {2: 180, 3: 180, 5: 90, 6: -90, 7: -90, 8: 90}
    files = [oriented(suffix, IMAGE, orientation, order=order) for orientation in range(10)]
    said = [mirrored_by_exif(file, turned.get(orientation, 0)) for orientation, file in enumerate(files)]
    assert said == [orientation in (2, 4, 5, 7) for orientation in range(10)]
    assert not any(mirrored_by_exif(files[orientation], 0) for orientation in (2, 5, 7)), "FFmpeg has read another"
    whole = oriented(suffix, IMAGE, 2, order=order)
    assert picture_header(whole) == PictureHeader({".jpg": "mjpeg"}.get(suffix, suffix[1:]), *SIZE)
    assert {mirrored_by_exif(whole[:length], 180) for length in range(len(whole))} <= {False, True}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_a_picture_without_exif_is_not_mirrored(suffix: str) -> None:
    assert not any(mirrored_by_exif(encoded_as(suffix, IMAGE), turned) for turned in (0, 90, 180))


@pytest.mark.parametrize("data", [b"", b"text", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xd9", b"II*\0" + bytes(20)])
def test_anything_else_is_no_picture(data: bytes) -> None:
    assert picture_header(data) is None


def test_fill_and_stray_bytes_between_the_segments_of_a_jpeg() -> None:
    data = encoded(".jpg")
    for stray in (b"\xff" * 3, b"ab", b"\xff" * 5_000_000):
        assert picture_header(data[:2] + stray + data[2:]) == PictureHeader("mjpeg", *SIZE)
    assert picture_header(data[:2] + b"\xff" * 5_000_000) is None


def test_a_tiff_may_have_its_directory_and_other_pictures_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_seg.sources.image_header.HEAD", 100)
    data = encoded(".tif")
    assert struct.unpack_from("<I", data, 4)[0] > 100
    for suffix, content in ((".tif", data), (".png", encoded(".png"))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        read = read_picture(path, max_pixels=10_000, limit="a test")
        assert read is not None
        assert read[0] == content
        assert read[1][1:] == SIZE
        path.write_bytes(content + bytes(20_000))
        if suffix == ".png":
            with pytest.raises(SourceError, match="bytes for 37x21 pixels, which is no picture"):
                read_picture(path, max_pixels=10_000, limit="a test")
        else:
            assert read_picture(path, max_pixels=10_000, limit="a test") is not None
