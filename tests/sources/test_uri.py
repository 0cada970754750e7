from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stream_seg.errors import ConfigError
from stream_seg.sources.uri import SCHEMES, parse


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
    source = parse(uri)
    assert (source.kind, source.live) == (kind, live)


def test_folder_is_images_and_existing_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "take[1].mp4").touch()
    assert parse(str(tmp_path)).kind == "images"
    assert parse(str(tmp_path / "take[1].mp4")).kind == "file"
    assert parse(str(tmp_path / "take[2].mp4")).kind == "images"


def test_camera_number_opens_its_device() -> None:
    assert parse("3").address == parse("3").shown == "/dev/video3"


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
def test_shown_hides_every_password(user: str, path: str) -> None:
    for scheme in ("rtsp", "RTSP", "https"):
        for host in ("host", "10.0.0.1:554", "[fe80::1]", "[fe80::1]:554"):
            source = parse(f"{scheme}://{user}@{host}{path}")
            assert "hunter2" not in source.shown
            assert "hunter2" not in repr(source)
            assert source.shown.startswith(f"{scheme.lower()}://{host}")


@pytest.mark.parametrize(
    "address", ["u:1/hunter2@host/live", "1.0.0.5:80/hunter2@1", "u:1?hunter2@host", "u:1#hunter2@host"]
)
def test_an_at_where_a_host_and_a_user_are_the_same_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"the input http://…: an @ behind .* write it as %40") as refused:
        parse(f"http://{address}")
    assert "hunter2" not in str(refused.value)


def test_what_is_shown_is_what_is_opened() -> None:
    for address in ("host:80/drive.mp4?mail=a@b", "[::1]:80/x?@", "host/x@y"):
        source = parse(f"http://{address}")
        assert source.address == f"http://{address}"
        assert "hunter2" not in source.shown
        assert urlsplit(source.shown).netloc == urlsplit(source.address).netloc


def test_address_without_password_is_shown_whole() -> None:
    assert parse("rtsp://[fe80::1]:554/cam/main").shown == "rtsp://[fe80::1]:554/cam/main"
    assert parse("http://host/@me/drive.mp4").shown == "http://host/@me/drive.mp4"


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("rtsp://u:p@host/x", "rtsp://u:p@host/x"),
        ("RTSP://u:p%40@host/x", "rtsp://u:p%40@host/x"),
        ("rtsp://u:p@/#?@host/x", "rtsp://u:p%40%2F%23%3F@host/x"),
        ("http://host:80/x?mail=a@b", "http://host:80/x?mail=a@b"),
    ],
)
def test_password_is_quoted_for_ffmpeg_only_where_it_must_be(uri: str, address: str) -> None:
    assert parse(uri).address == address


@pytest.mark.parametrize("uri", ["ftp://host/x.mp4", "subfile://x", "file:///etc/passwd", "", " "])
def test_unknown_scheme_lists_the_allowed(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(uri)
    assert all(f"{scheme}://" in str(caught.value) for scheme in SCHEMES)


@pytest.mark.parametrize("uri", ["rtsp://", "rtsp:///path", "http://:80/x", "rtsp://u:p@"])
def test_address_without_host_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no host"):
        parse(uri)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "RTSP"])
@pytest.mark.parametrize(
    "host", ["10.1.0.11：554", "[::1", "[fe80::x]", "h:0", "h:65536", "h:99999", "h:abc", "h:-1", "h:1:2"]
)
def test_a_host_or_port_that_cannot_be_read_is_refused_without_the_password(scheme: str, host: str) -> None:
    for user in ("", "viewer:hunter2@", "viewer:hun/hunter2@", "hunter2@"):
        with pytest.raises(ConfigError, match=r": its host or port cannot be read; write ") as caught:
            parse(f"{scheme}://{user}{host}/live")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        parse(f"{scheme}://viewer:hunter2")  # cut short: a password in the place of a port
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["h:1", "h:65535", "h:", "10.1.0.11", "[::1]:554", "käse.example"])
def test_a_host_with_a_port_that_there_can_be_is_read(host: str) -> None:
    assert parse(f"rtsp://viewer:{'：[]'}@{host}/live").shown == f"rtsp://{host}/live"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("~nobody_of_that_name/a.mp4", "there is no such user, or no home is known"),
        ("x" * 5000, "…': File name too long"),
    ],
)
def test_a_path_that_there_cannot_be_is_refused(uri: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(uri)
    assert str(caught.value).endswith(said)


def test_shown_is_one_line() -> None:
    assert parse("a\nb\x1b[31m.mp4").shown == "a?b?[31m.mp4"
