import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.sources.image_header import ImageHeader, read_header, read_image_file

SIZE = (37, 21)
IMAGE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def encode(suffix: str, *parameters: int, image: np.ndarray = IMAGE) -> bytes:
    return bytes(cv2.imencode(suffix, image, parameters)[1])


def header_of(data: bytes) -> ImageHeader | None:
    return read_header(io.BytesIO(data), name="a test")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def oriented(suffix: str, image: np.ndarray, orientation: int, *, order: str = "<") -> bytes:
    """Return an image file with an EXIF orientation."""
    data = encode(suffix, image=image)
    height, width = image.shape[:2]
    entries = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1) + entries + bytes(4)
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]
    if suffix == ".png":
        return data[:33] + chunk(b"eXIf", exif) + data[33:]
    if suffix == ".webp":
        return webp_of(width, height, data[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif)
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    old = [data[at : at + 12] for at in range(directory + 2, directory + 2 + 12 * count, 12)]
    tags = sorted([*(tag for tag in old if tag[:2] != entries[:2]), entries], key=lambda tag: tag[1::-1])
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)


def webp_of(width: int, height: int, chunks: bytes) -> bytes:
    """Return an extended WebP file that claims a size, with EXIF data among its chunks."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0x08) + sizes + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_of(width: int, height: int) -> bytes:
    """Return a small valid PNG file that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(3000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("png", encode(".png")),
        ("bmp", encode(".bmp")),
        ("mjpeg", encode(".jpg")),
        ("mjpeg", encode(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("webp", encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 80)),
        ("webp", encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)),
        ("tiff", encode(".tif")),
    ],
    ids=["png", "bmp", "jpeg", "progressive", "webp", "lossless-webp", "tiff"],
)
def test_format_and_size_are_read_from_the_header(codec: str, data: bytes) -> None:
    assert header_of(data) == ImageHeader(codec, *SIZE)
    assert all(header_of(data[:length]) in (None, ImageHeader(codec, *SIZE)) for length in range(len(data)))


def test_pixels_are_not_decoded() -> None:
    assert header_of(png_of(20_000, 20_000)) == ImageHeader("png", 20_000, 20_000)
    assert header_of(encode(".jpg")[:-500]) == ImageHeader("mjpeg", *SIZE)


def test_size_of_old_and_upside_down_bmp() -> None:
    def bmp_of(header: bytes) -> bytes:
        return b"BM" + struct.pack("<IHHI", 14 + len(header), 0, 0, 14 + len(header)) + header

    assert header_of(bmp_of(struct.pack("<IHHHH", 12, 7, 5, 1, 24))) == ImageHeader("bmp", 7, 5)
    assert header_of(bmp_of(struct.pack("<IiiHHIIiiII", 40, 7, -5, 1, 24, *[0] * 6))) == ImageHeader("bmp", 7, 5)


@pytest.mark.parametrize("size", [(9_500, 9_500), (20_000, 20_000), (100_000, 100_000)])
def test_an_image_that_is_too_large_is_one_error_and_no_warning(tmp_path: Path, size: tuple[int, int]) -> None:
    """Pillow by itself warns of the first, and raises an error for the others."""
    path = tmp_path / "a.png"
    path.write_bytes(png_of(*size))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(SourceError) as caught:
            read_image_file(path, max_pixels=10_000, limit="max_pixels (10000) allows")
    assert str(caught.value) == f"{path}: is {size[0]}x{size[1]} pixels, more than max_pixels (10000) allows"
    assert warned == []


def test_a_webp_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(webp_of(16_384, 16_384, encode(".webp")[12:]))
    with pytest.raises(SourceError, match=r"a\.webp: .*268435456 pixels"):
        read_image_file(path, max_pixels=10_000, limit="a test")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientations_2_4_5_and_7_are_mirrored(suffix: str, order: str) -> None:
    rotations = {2: 180, 3: 180, 5: 90, 6: -90, 7: -90, 8: 90}
    headers = [header_of(oriented(suffix, IMAGE, orientation, order=order)) for orientation in range(10)]
    mirrored = [header.is_mirrored(rotations.get(number, 0)) for number, header in enumerate(headers) if header]
    assert mirrored == [orientation in (2, 4, 5, 7) for orientation in range(10)]
    assert not any(headers[number].is_mirrored(0) for number in (2, 5, 7)), "FFmpeg has read another"  # type: ignore[union-attr]
    whole = oriented(suffix, IMAGE, 2, order=order)
    assert header_of(whole) == ImageHeader({".jpg": "mjpeg"}.get(suffix, suffix[1:]), *SIZE, 2)
    truncated = [header_of(whole[:length]) for length in range(len(whole))]
    assert {header.orientation for header in truncated if header} <= {1, 2}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_an_image_without_exif_is_not_mirrored(suffix: str) -> None:
    header = header_of(encode(suffix))
    assert header is not None
    assert not any(header.is_mirrored(rotation) for rotation in (0, 90, 180))


@pytest.mark.parametrize(
    "data",
    [b"", b"text", b"\xff\xd8\xff\xd9", b"II*\0" + bytes(20), encode(".ppm"), b"GIF89a\1\0\1\0" + bytes(40)],
    ids=["empty", "text", "an empty JPEG", "an empty TIFF", "PPM", "GIF"],
)
def test_any_other_file_is_no_image(data: bytes) -> None:
    assert header_of(data) is None


def test_fill_and_stray_bytes_between_the_segments_of_a_jpeg() -> None:
    data = encode(".jpg")
    for stray in (b"\xff" * 3, b"ab", b"\xff" * 500_000):
        assert header_of(data[:20] + stray + data[20:]) == ImageHeader("mjpeg", *SIZE)  # behind the first segment
    assert header_of(data[:2] + b"\xff" * 500_000) is None
    assert header_of(data[:2] + b"\xff" * 5_000_000 + data[2:]) is None  # it would take seconds


def test_a_header_takes_no_more_than_its_share_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(".png")
    large = data[:33] + chunk(b"tExt", bytes(50_000)) + data[33:]
    assert header_of(large) == ImageHeader("png", *SIZE)
    monkeypatch.setattr("stream_seg.sources.image_header.HEADER_BYTES", 49_000)
    assert header_of(large) is None
    assert header_of(data + bytes(100_000)) == ImageHeader("png", *SIZE)


def test_a_tiff_may_have_its_directory_and_other_images_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_seg.sources.image_header.HEADER_BYTES", 5_000)
    data = encode(".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1, image=np.zeros((50, 50, 3), np.uint8))
    assert struct.unpack_from("<I", data, 4)[0] > 5_000
    for suffix, content in ((".tif", data), (".png", encode(".png"))):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        read = read_image_file(path, max_pixels=10_000, limit="a test")
        assert read is not None
        assert read[0] == content
        path.write_bytes(content + bytes(50_000))
        if suffix == ".png":
            with pytest.raises(SourceError, match="bytes for 37x21 pixels, which is no image"):
                read_image_file(path, max_pixels=10_000, limit="a test")
        else:
            assert read_image_file(path, max_pixels=10_000, limit="a test") is not None
