import io
import struct
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from stream_seg.errors import SourceError
from stream_seg.installation import install_hint
from stream_seg.sources.image_header import ImageHeader, read_header, read_image_file
from stream_seg.sources.images import MAX_PIXELS, decode_image_files, list_image_files
from stream_seg.sources.uri import parse_source
from stream_seg.types import Image
from tests.support.clips import number_image, read_number

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


def read_image(path: Path) -> Image:
    """Return the image that a source shows of a file."""
    (frame,) = decode_image_files(parse_source(str(path)), rate=25, max_pixels=MAX_PIXELS)
    assert frame is not None
    return frame.image


def error_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_image(path)
    return str(caught.value)


def tiled_tiff(image: np.ndarray, tile: int) -> bytes:
    """Return an uncompressed TIFF in square tiles."""
    height, width = image.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    padded[:height, :width] = image[..., ::-1]
    tiles = padded.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).tobytes()
    count, size = rows * columns, tile * tile * 3
    offsets = struct.pack(f"<{count}I", *(8 + number * size for number in range(count)))
    sizes, bits = struct.pack(f"<{count}I", *[size] * count), struct.pack("<3H", 8, 8, 8)
    at = 8 + len(tiles)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, at + 6), (325, 4, count, at + 6 + len(offsets))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, at + 6 + len(offsets) + len(sizes))
    return head + tiles + bits + offsets + sizes + directory


def test_a_tiled_tiff_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiled_tiff(IMAGE, 16))
    assert np.array_equal(read_image(path), IMAGE)


def test_a_tiff_of_one_huge_tile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = tiled_tiff(IMAGE, 64)
    path.write_bytes(data.replace(struct.pack("<HHII", 322, 4, 1, 64), struct.pack("<HHII", 322, 4, 1, 1 << 24)))
    assert error_of(path).startswith(f"{path}: has tiles of 16777216x64 pixels, more than max_pixels")


@pytest.mark.parametrize(
    ("mode", "compression"),
    [(mode, name) for mode in ("RGB", "L", "1", "P", "CMYK", "RGBA", "LAB", "I;16") for name in ("raw", "tiff_lzw")]
    + [("RGB", "jpeg"), ("L", "jpeg"), ("1", "group4"), ("RGB", "tiff_adobe_deflate")],
)
def test_every_kind_of_tiff_is_decoded(tmp_path: Path, mode: str, compression: str) -> None:
    path, image = tmp_path / "a.tif", Pillow.fromarray(number_image(5, (64, 48))[..., ::-1])
    if mode == "I;16":
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Pillow.fromarray(deep).save(path, compression=compression)
        expected = image.convert("L").convert("RGB")
    else:
        image.convert(mode).save(path, compression=compression)
        expected = image.convert(mode).convert("RGB")
    assert np.abs(read_image(path).astype(int) - np.asarray(expected)[..., ::-1]).mean() < 3


def test_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Pillow.fromarray(np.ones((48, 64), np.float32)).save(path)
    assert error_of(path) == f"{path}: has pixels of 32 bits, whose white is unknown; convert them to 8 or 16 bits"


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif", ".avif"])
def test_an_animated_image_is_its_first_image(tmp_path: Path, suffix: str) -> None:
    images = [Pillow.fromarray(number_image(number, (64, 48))[..., ::-1]) for number in (5, 6, 7)]
    images[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=images[1:])
    assert read_number(read_image(tmp_path / f"a{suffix}")) == 5


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_avif_and_heic_are_decoded_and_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    upright = number_image(5)
    turned = {
        1: upright,
        3: upright[::-1, ::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        8: np.rot90(upright, 3),
    }
    exif = Pillow.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    Pillow.fromarray(np.ascontiguousarray(turned[orientation][..., ::-1])).save(path, exif=exif.tobytes(), quality=90)
    image = read_image(path)
    assert image.shape == upright.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - upright).mean() < 3
    path.rename(tmp_path / "a.jpg")  # as some phones name them
    assert np.array_equal(read_image(tmp_path / "a.jpg"), image)


def test_a_heic_of_many_tiles_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", 128)
    path = tmp_path / "a.heic"
    Pillow.fromarray(number_image(5)[..., ::-1]).save(path, quality=90)
    assert np.abs(read_image(path).astype(int) - number_image(5)).mean() < 3


def test_heic_without_its_package_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(1000))
    assert error_of(path) == f"{path}: HEIC images need the package pillow-heif: {install_hint('pillow-heif')}"


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".avif", ".jpg", ".png", ".bmp"])
def test_a_truncated_image_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Pillow.fromarray(IMAGE[..., ::-1]).save(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        assert list(decode_image_files(parse_source(str(path)), rate=25, max_pixels=MAX_PIXELS)) == [None]


def test_names_that_begin_with_a_dot_are_skipped(tmp_path: Path) -> None:
    """macOS writes metadata of a.png into ._a.png beside it."""
    for number in range(3):
        (tmp_path / f"img_{number}.png").write_bytes(encode(".png"))
        (tmp_path / f"._img_{number}.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    names = [f"img_{number}.png" for number in range(3)]
    for address in (tmp_path, tmp_path / "*.png", tmp_path / "**" / "*.png", tmp_path / "[.i]*.png"):
        assert [path.name for path in list_image_files(parse_source(str(address)))] == names
    assert [path.name for path in list_image_files(parse_source(str(tmp_path / "._img_0.png")))] == ["._img_0.png"]
    for number in range(3):
        (tmp_path / f"img_{number}.png").unlink()
    with pytest.raises(SourceError, match="contains no image"):
        list_image_files(parse_source(str(tmp_path)))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", mode) for mode in ("RGB", "L", "CMYK")]
    + [(".png", mode) for mode in ("RGB", "L", "LA", "P", "1", "RGBA", "I;16")]
    + [(".bmp", mode) for mode in ("RGB", "L", "P", "1", "RGBA")]
    + [(".webp", mode) for mode in ("RGB", "RGBA")],
)
def test_every_kind_of_image_is_decoded(tmp_path: Path, suffix: str, mode: str) -> None:
    path, image = tmp_path / f"a{suffix}", Pillow.fromarray(number_image(5, (64, 48))[..., ::-1])
    if mode == "I;16":
        deep = Pillow.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        deep.save(path)
        expected = image.convert("L").convert("RGB")
    else:
        image.convert(mode).save(path, quality=95)
        expected = image.convert(mode).convert("RGB")
    assert np.abs(read_image(path).astype(int) - np.asarray(expected)[..., ::-1]).mean() < 3
