"""Files and streams that capture takes, converts or refuses: rows of docs/formats.md."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.frame import Frame
from stream_seg.stages.capture import Capture
from tests.stages.test_capture import capture, capture_until_error, numbers
from tests.support.clips import number_image, read_number, write_video

SIZE = (64, 48)
ANAMORPHIC = {"x264-params": "sar=4/3"}


def clip(path: Path, count: int = 5, *, options: dict[str, str] | None = None, codec: str = "libx264") -> Path:
    images = (number_image(number, SIZE) for number in range(count))
    return write_video(path, images, time_base=Fraction(1, 25), options=options, codec=codec)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pixels_become_square(tmp_path: Path, suffix: str) -> None:
    frames = capture(clip(tmp_path / f"a{suffix}", options=ANAMORPHIC))
    assert {frame.image.shape for frame in frames} == {(48, 86, 3)}
    assert numbers(frames) == list(range(5))


def test_square_pixels_are_upright_and_within_max_pixels(tmp_path: Path) -> None:
    images = [np.ascontiguousarray(np.rot90(number_image(1234, SIZE)))] * 2
    path = write_video(tmp_path / "a.mp4", images, rotation=-90, options=ANAMORPHIC)
    assert capture(path)[0].image.shape == (64, 64, 3)  # the sides of the stored image: 48 x 4/3, 64
    assert len(capture(path, max_pixels=64 * 64)) == 2
    _, error = capture_until_error(path, max_pixels=64 * 64 - 1)
    assert "is 64x64 square pixels, more than max_pixels (4095) allows" in str(error)


def test_the_aspect_of_an_mp4_wins_over_that_of_its_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "sar=2/1"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(number_image(7, SIZE), "bgr24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == 2
    assert [frame.image.shape for frame in capture(path)] == [(48, 86, 3)]


def test_an_aspect_that_changes_in_the_middle_is_followed(tmp_path: Path) -> None:
    """As broadcasts do between 4:3 and 16:9."""
    options = {"g": "5", "bf": "0"}
    wide = clip(tmp_path / "wide.ts", options=options | ANAMORPHIC).read_bytes()
    square = clip(tmp_path / "square.ts", options=options | {"x264-params": "sar=1/1"}).read_bytes()
    (tmp_path / "a.ts").write_bytes(wide + square + wide)
    frames = capture(tmp_path / "a.ts", threads=1)
    assert [frame.image.shape[1] for frame in frames] == [86] * 5 + [64] * 5 + [86] * 5


def test_a_size_that_changes_in_the_middle_is_followed(tmp_path: Path) -> None:
    options = {"g": "5", "bf": "0"}
    parts = [
        write_video(tmp_path / f"{width}.ts", (number_image(n, (width, 48)) for n in range(5)), options=options)
        for width in (64, 128, 96)
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = capture(tmp_path / "a.ts")
    assert [frame.image.shape[1] for frame in frames] == [64] * 5 + [128] * 5 + [96] * 5
    assert numbers(frames) == [*range(5)] * 3


def test_h264_with_a_matrix_that_cannot_be_converted_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clip(tmp_path / "a.mp4", 10, options={"x264-params": "colormatrix=YCgCo"})
    assert numbers(capture(path)) == list(range(10))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: the color matrix YCgCo cannot be converted; the usual one of this size is taken"
    ]


def test_text_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXX"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(number_image(7, SIZE), "bgr24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"XXXX", b"\xe9\xff\xfe\xe8"))
    assert numbers(capture(path)) == [7]


def test_the_picture_of_an_album_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("libmp3lame", rate=44100), container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 4410), np.int16), "s16")
        frame.rate = 44100
        container.mux(cover.encode(av.VideoFrame.from_ndarray(number_image(7, SIZE), "bgr24")))
        container.mux(cover.encode(None))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    _, error = capture_until_error(path)
    assert str(error) == f"{path}: cannot be opened: it contains no video, only the picture of an album"


def test_an_unknown_codec_is_one_error(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1\0", b"zzz9\0"))
    _, error = capture_until_error(path)
    assert str(error) == f"{path}: cannot be opened: FFmpeg has no decoder for its video"


def test_a_heic_without_its_suffix_is_no_video(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.avif"), number_image(7))
    path = (tmp_path / "a.avif").rename(tmp_path / "a")
    _, error = capture_until_error(path)
    assert (
        str(error) == f"{path}: cannot be opened: it is an image; its name must end in .avif or .heic or .heif or .hif"
    )


@contextmanager
def motion_jpeg(count: int, proceed: threading.Event) -> Iterator[str]:
    """Serve `count` JPEGs in one answer, each after a turn of `proceed`, as an IP camera does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(count):
                jpeg = cv2.imencode(".jpg", number_image(number, SIZE))[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                with suppress(OSError):
                    self.wfile.write(head + jpeg + b"\r\n")
                proceed.wait(0.1)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live"
        proceed.set()
        server.shutdown()


@pytest.mark.parametrize("reconnect", [False, None])
def test_frames_of_a_live_stream_without_times_have_the_time_of_their_arrival(reconnect: bool | None) -> None:
    """FFmpeg invents 25 frames/s; here they come at most every 100 ms."""
    frames: list[Frame] = []
    with motion_jpeg(8, threading.Event()) as address:
        for frame in Capture(uri=address, reconnect=reconnect, frames=7)(iter(())):
            if frame.signal is None:
                frames.append(frame)
    assert [read_number(frame.image) for frame in frames] == list(range(7))
    for first, second in pairwise(frames[3:]):  # FFmpeg reads some at once to find out what they are
        step_s, waited_s = second.time_s - first.time_s, (second.captured_ns - first.captured_ns) / 1e9
        assert step_s == pytest.approx(waited_s, abs=0.01)


class RtspCamera(socketserver.StreamRequestHandler):
    """An RTSP camera with sound, video and metadata. It records the tracks that a client sets up, then refuses."""

    tracks: list[str]
    SDP = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:sound\r\n"
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:video\r\n"
        "m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:metadata\r\n"
    )

    def handle(self) -> None:
        """Answer the requests of one client."""
        with suppress(ConnectionError):
            while request := self.rfile.readline().decode().split():
                headers = dict(line.split(": ", 1) for line in iter(lambda: self.rfile.readline().decode().strip(), ""))
                answer, body = "RTSP/1.0 200 OK\r\nCSeq: " + headers["CSeq"], ""
                if request[0] == "DESCRIBE":
                    answer, body = answer + "\r\nContent-Type: application/sdp", self.SDP
                if request[0] == "SETUP":
                    self.tracks.append(request[1].rpartition("/")[2])
                    answer += "\r\nSession: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1"
                if request[0] == "PLAY":
                    answer = answer.replace("200 OK", "503 Service Unavailable")
                self.wfile.write(f"{answer}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


def test_only_the_video_of_an_rtsp_camera_is_set_up() -> None:
    RtspCamera.tracks = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), RtspCamera) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        _, error = capture_until_error(f"rtsp://127.0.0.1:{server.server_address[1]}/live")
        server.shutdown()
    assert isinstance(error, SourceError)
    assert RtspCamera.tracks == ["video"]
