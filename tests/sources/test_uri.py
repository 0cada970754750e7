"""Parsing of INPUT: kind, address, and a display name without secrets."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stream_seg.errors import ConfigError
from stream_seg.sources.uri import SCHEMES, parse_source


@pytest.mark.parametrize(
    ("uri", "kind", "live"),
    [
        ("drive.mp4", "file", False),
        ("concat:a.mp4|b.mp4", "file", False),
        ("road.PNG", "images", False),
        ("frames/*.png", "images", False),
        ("0", "camera", True),
        ("/dev/video12", "camera", True),
        ("/dev/v4l/by-id/usb-camera", "camera", True),
        ("rtsp://host/stream", "rtsp", True),
        ("RTSPS://host/stream", "rtsp", True),
        ("http://host:8080/mjpeg", "http", True),
        ("https://host/drive.MP4?sig=1", "http", False),
        ("http://host:80/drive.mp4?mail=a@b", "http", False),
        ("synth://road", "synth", False),
        ("synth://road?size=640x480&paced=true", "synth", True),
    ],
)
def test_kind_and_live(uri: str, kind: str, live: bool) -> None:
    source = parse_source(uri)
    assert (source.kind, source.live) == (kind, live)


def test_a_folder_is_images_and_an_existing_file_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "take[1].mp4").touch()
    assert parse_source(str(tmp_path)).kind == "images"
    assert parse_source(str(tmp_path / "take[1].mp4")).kind == "file"
    assert parse_source(str(tmp_path / "take[2].mp4")).kind == "images"


def test_a_camera_number_opens_its_device() -> None:
    assert parse_source("3").address == parse_source("3").display == "/dev/video3"


@pytest.mark.parametrize(
    "user",
    [
        "hunter2",
        "u:hunter2",
        "u:hunter2@hunter2",
        "u:/hunter2",
        "u:hunter2#hunter2",
        "u:?hunter2",
        ":hunter2",
    ],
)
@pytest.mark.parametrize(
    "path", ["", "/live", "/live?token=hunter2", "/user=u_password=hunter2.sdp?real", "/x#hunter2?hunter2"]
)
def test_the_display_name_hides_every_password(user: str, path: str) -> None:
    for scheme in ("rtsp", "RTSP", "https"):
        for host in ("host", "10.0.0.1:554", "[fe80::1]", "[fe80::1]:554"):
            source = parse_source(f"{scheme}://{user}@{host}{path}")
            assert "hunter2" not in source.display
            assert "hunter2" not in repr(source)
            assert source.display.startswith(f"{scheme.lower()}://{host}")


@pytest.mark.parametrize(
    "address", ["u:1/hunter2@host/live", "1.0.0.5:80/hunter2@1", "u:1?hunter2@host", "u:1#hunter2@host"]
)
def test_an_address_whose_host_is_ambiguous_is_rejected(address: str) -> None:
    with pytest.raises(ConfigError, match=r"the input http://…: an @ after HOST:PORT; write it as %40") as refused:
        parse_source(f"http://{address}")
    assert "hunter2" not in str(refused.value)


def test_the_host_displayed_is_the_host_opened() -> None:
    for address in ("host:80/drive.mp4?mail=a@b", "[::1]:80/x?@", "host/x@y"):
        source = parse_source(f"http://{address}")
        assert source.address == f"http://{address}"
        assert "hunter2" not in source.display
        assert urlsplit(source.display).netloc == urlsplit(source.address).netloc


def test_an_address_without_a_password_is_displayed_whole() -> None:
    assert parse_source("rtsp://[fe80::1]:554/cam/main").display == "rtsp://[fe80::1]:554/cam/main"
    assert parse_source("http://host/@me/drive.mp4").display == "http://host/@me/drive.mp4"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("rtsp://u:p@host/x", "rtsp://u:p@host/x"),
        ("RTSP://u:p%40@host/x", "rtsp://u:p%40@host/x"),
        ("rtsp://u:p@/#?@host/x", "rtsp://u:p%40%2F%23%3F@host/x"),
        ("http://host:80/x?mail=a@b", "http://host:80/x?mail=a@b"),
    ],
)
def test_a_password_is_percent_encoded_for_ffmpeg_only_where_necessary(uri: str, address: str) -> None:
    assert parse_source(uri).address == address


@pytest.mark.parametrize("uri", ["ftp://host/x.mp4", "subfile://x", "file:///etc/passwd", "", " "])
def test_the_error_for_an_unknown_scheme_lists_the_allowed_ones(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(uri)
    assert all(f"{scheme}://" in str(caught.value) for scheme in SCHEMES)


@pytest.mark.parametrize("uri", ["rtsp://", "rtsp:///path", "http://:80/x", "rtsp://u:p@"])
def test_an_address_without_a_host_is_rejected(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no host"):
        parse_source(uri)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "RTSP"])
@pytest.mark.parametrize(
    "host", ["10.1.0.11：554", "[::1", "[fe80::x]", "h:0", "h:65536", "h:99999", "h:abc", "h:-1", "h:1:2"]
)
def test_the_error_for_an_invalid_host_or_port_contains_no_password(scheme: str, host: str) -> None:
    for user in ("", "viewer:hunter2@", "viewer:hun/hunter2@", "hunter2@"):
        with pytest.raises(ConfigError, match=r": invalid host or port; write ") as caught:
            parse_source(f"{scheme}://{user}{host}/live")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(ConfigError, match="invalid host or port") as caught:
        parse_source(f"{scheme}://viewer:hunter2")  # truncated: a password in place of the port
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["h:1", "h:65535", "h:", "10.1.0.11", "[::1]:554", "käse.example"])
def test_a_host_with_a_valid_port_is_accepted(host: str) -> None:
    assert parse_source(f"rtsp://viewer:{'：[]'}@{host}/live").display == f"rtsp://{host}/live"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("~nobody_of_that_name/a.mp4", "unknown user or home folder"),
        ("x" * 5000, "…': File name too long"),
    ],
)
def test_an_impossible_path_is_rejected(uri: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(uri)
    assert str(caught.value).endswith(message)


def test_the_display_name_is_one_line() -> None:
    assert parse_source("a\nb\x1b[31m.mp4").display == "a?b?[31m.mp4"
