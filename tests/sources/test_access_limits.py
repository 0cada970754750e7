"""Limits of sources: addresses, tested with canary servers, and memory, tested with decompression bombs."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from stream_seg.config.graph_file import check
from stream_seg.errors import ConfigError, SourceError, StreamSegError
from stream_seg.runtime.graph import Graph
from stream_seg.stages.base import Context
from stream_seg.stages.capture import Capture
from tests.sources.test_images import png_of
from tests.support.clips import number_image, write_video
from tests.support.program import make_certificate
from tests.support.time_limits import TimeLimit


class Canary:
    """An http server on loopback that records requests; `answers` maps paths to (status, headers, body)."""

    def __init__(self, answers: dict[str, tuple[int, dict[str, str], bytes]]) -> None:
        self.hits: list[str] = []
        canary = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                canary.hits.append(self.path)
                status, headers, body = answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(canary: Canary) -> Iterator[Canary]:
    with canary.server as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield canary
        server.shutdown()


def error_of(uri: str, *, restricted: bool = True) -> StreamSegError:
    """Return the error of a source, in a graph that restricts the hosts or in one that does not."""
    source = Capture(uri=uri, reconnect=False, open_timeout_s=2, read_timeout_s=2).bind(Context(restricted=restricted))
    with pytest.raises(StreamSegError) as caught:
        list(source(iter(())))
    return caught.value


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Canary]:
    """A server that must not be reached. It has a real clip, so that only the limits prevent its use."""
    clip = write_video(tmp_path / "secret.ts", (number_image(n) for n in range(30))).read_bytes()
    with serving(Canary({"/secret.ts": (200, {"Content-Type": "video/mp2t"}, clip)})) as canary:
        yield canary


def playlist(address: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{address}\n#EXT-X-ENDLIST\n".encode()


def test_the_canary_is_reached_without_limits(inside: Canary, tmp_path: Path) -> None:
    """The negative control: FFmpeg by default follows a playlist."""
    (tmp_path / "a.m3u8").write_bytes(playlist(f"{inside.address}/secret.ts"))
    options = {"protocol_whitelist": "file,http,tcp", "allowed_extensions": "ALL", "extension_picky": "0"}
    with av.open(str(tmp_path / "a.m3u8"), options=options) as container:
        next(container.decode(video=0))
    assert inside.hits


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4"])
@pytest.mark.parametrize("form", ["m3u8", "ffconcat"])
def test_a_playlist_on_disk_is_not_followed(inside: Canary, tmp_path: Path, name: str, form: str) -> None:
    for target in (f"{inside.address}/secret.ts", str(tmp_path / "secret.ts"), "secret.ts"):
        body = playlist(target) if form == "m3u8" else f"ffconcat version 1.0\nfile {target}\n".encode()
        (tmp_path / name).write_bytes(body)
        assert isinstance(error_of(str(tmp_path / name)), SourceError)
    assert inside.hits == []


@pytest.mark.parametrize(
    "body",
    [
        (200, {"Content-Type": "application/vnd.apple.mpegurl"}, "playlist"),
        (302, {"Location": "INSIDE"}, ""),
        (301, {"Location": "INSIDE"}, ""),
        (307, {"Location": "INSIDE"}, ""),
        (200, {}, "ffconcat"),
    ],
)
def test_http_redirects_and_playlists_are_not_followed(inside: Canary, body: tuple[int, dict[str, str], str]) -> None:
    status, headers, form = body
    target = f"{inside.address}/secret.ts"
    texts = {"playlist": playlist(target), "ffconcat": f"ffconcat version 1.0\nfile {target}\n".encode(), "": b""}
    headers = {name: value.replace("INSIDE", target) for name, value in headers.items()}
    with serving(
        Canary({"/live": (status, headers, texts[form]), "/live.m3u8": (status, headers, texts[form])})
    ) as outside:
        for path in ("/live", "/live.m3u8"):
            assert error_of(outside.address + path).reason in ("not allowed", "broken")  # type: ignore[attr-defined]
        assert outside.hits
    assert inside.hits == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"200 OK\r\nConnection: close\r\n\r\nhello", "the answer is truncated and not a video"),
        (b"200 OK\r\nContent-Length: 9999\r\n\r\nhello", "the answer is truncated and not a video"),
        (b"302 Found\r\nLocation: /hello\r\nContent-Length: 0\r\n\r\n", "the server redirects to another address"),
        (b"200 OK\r\nContent-Length: 5\r\n\r\nhello", "not a video that FFmpeg can read"),
    ],
)
def test_the_error_for_an_answer_without_a_video_explains_it(answer: bytes, message: str) -> None:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 " + answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        error = error_of(f"http://127.0.0.1:{server.server_address[1]}/live")
        server.shutdown()
    assert isinstance(error, SourceError)
    assert (error.reason, message in str(error)) == ("broken", True), error


class RtspServer(socketserver.ThreadingTCPServer):
    """An RTSP server on loopback that counts connections. It answers a method in `answers` with its bytes (%d becomes
    the number of the request), and any other with 200; `pause_s` passes between two bytes."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, bytes], *, pause_s: float = 0) -> None:
        self.hits, self.requests, self.ended = 0, b"", threading.Event()
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                server.hits += 1
                for line in self.rfile:
                    server.requests += line
                    rest = list(iter(lambda: self.rfile.readline().strip(), b""))
                    number = next(header for header in rest if header.startswith(b"CSeq")).removeprefix(b"CSeq: ")
                    answer = answers.get(line.split()[0].decode(), b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n\r\n")
                    self.send(answer.replace(b"%d", number))

            def send(self, answer: bytes) -> None:
                if not pause_s:
                    self.wfile.write(answer)
                    return
                for byte in answer:
                    self.wfile.write(bytes([byte]))
                    if server.ended.wait(pause_s):
                        return

            def finish(self) -> None:
                with suppress(OSError):  # the client may have closed the connection
                    super().finish()

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"rtsp://user:pw@127.0.0.1:{self.server_address[1]}/live"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Keep the output of the tests clean."""

    def server_close(self) -> None:
        self.ended.set()
        self.shutdown()
        super().server_close()


def moved(to: RtspServer, status: str = "RTSP/1.0 302 Found", more: str = "") -> bytes:
    return f"{status}\r\nCSeq: %d\r\n{more}Location: {to.address}\r\n\r\n".encode()


NOT_FOUND = {"DESCRIBE": b"RTSP/1.0 404 Not Found\r\nCSeq: %d\r\n\r\n"}
GOOD = b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n"


@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE"])
@pytest.mark.parametrize(
    "status",
    ["RTSP/1.0 301 Moved", "RTSP/1.0 302 Found", "RTSP/1.0 305 Use Proxy", "RTSP/1.00 302", "RTSP/1.0\t302", "x 302"],
)
def test_a_redirect_of_an_rtsp_server_is_refused_where_hosts_are_restricted(status: str, method: str) -> None:
    with RtspServer(NOT_FOUND) as secret, RtspServer({method: moved(secret, status)}) as outside:
        error = error_of(outside.address)
        assert isinstance(error, SourceError)
        assert error.reason == "not allowed"
        assert "redirect" in str(error)
        assert (outside.hits, secret.hits) == (1, 0)
        assert f"{method} {outside.address.replace('user:pw@', '')} ".encode() in outside.requests
        assert b"pw" not in outside.requests


class RtspsServer(RtspServer):
    """An RtspServer with TLS."""

    def __init__(self, answers: Mapping[str, bytes], *, folder: Path) -> None:
        key, certificate = make_certificate(folder)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        super().__init__(answers)
        self.address = self.address.replace("rtsp:", "rtsps:")

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        return self.tls.wrap_socket(connection, server_side=True), address


def test_a_redirect_over_tls_is_refused(tmp_path: Path) -> None:
    with RtspServer(NOT_FOUND) as secret, RtspsServer({"DESCRIBE": moved(secret)}, folder=tmp_path) as outside:
        error = error_of(outside.address)
        assert isinstance(error, SourceError)
        assert (error.reason, outside.hits, secret.hits) == ("not allowed", 1, 0)


@pytest.mark.parametrize(
    "first",
    [
        GOOD + b"Content-Length: 5\r\n\r\nhello",
        b"$\0\0\x03abc" + GOOD + b"\r\n",
        GOOD + b"X: y\r\n" * 70 + b"\r\n",
        GOOD + b"X: y\r\n" * 20_000,
    ],
    ids=["body", "packet", "many headers", "no end"],
)
def test_a_redirect_is_detected_after_any_other_response(first: bytes) -> None:
    with RtspServer(NOT_FOUND) as secret, RtspServer({"OPTIONS": first, "DESCRIBE": moved(secret)}) as outside:
        error = error_of(outside.address)
        assert isinstance(error, SourceError)
        assert error.reason == "not allowed"
        assert secret.hits == 0


def test_ffmpeg_by_itself_follows_an_rtsp_redirect() -> None:
    """The negative control."""
    with RtspServer(NOT_FOUND) as secret, RtspServer({"DESCRIBE": moved(secret)}) as outside:
        with pytest.raises(av.FFmpegError):
            av.open(outside.address, options={"rtsp_transport": "tcp"}, timeout=5)
        assert secret.hits


def test_an_rtsp_server_is_asked_twice_only_where_hosts_are_restricted() -> None:
    for restricted, connections in ((False, 1), (True, 2)):
        with RtspServer(NOT_FOUND) as server:
            error = error_of(server.address, restricted=restricted)
            assert isinstance(error, SourceError)
            assert (error.reason, server.hits) == ("not found", connections)


def test_the_hosts_of_a_graph_file_restrict_its_sources(tmp_path: Path) -> None:
    with RtspServer(NOT_FOUND) as secret, RtspServer({"DESCRIBE": moved(secret)}) as outside:
        stages = {
            "capture": {"uri": outside.address, "reconnect": False},
            "write": {"path": str(tmp_path / "out.mp4"), "input": "capture"},
        }
        config = check({"stages": stages, "sources": {"hosts": ["127.0.0.1"]}}, where="g")
        with Graph(config) as running:
            assert running.wait(10)
        assert "redirect" in str(running.error)
        assert secret.hits == 0


@pytest.mark.parametrize("restricted", [False, True])
def test_an_rtsp_server_that_sends_slowly_is_abandoned_in_time(restricted: bool, time_limit: TimeLimit) -> None:
    with RtspServer({"OPTIONS": GOOD + b"\r\n"}, pause_s=0.2) as slow, time_limit(4):
        error = error_of(slow.address, restricted=restricted)
    assert isinstance(error, SourceError)
    assert error.reason == "no data"


def test_an_rtsp_server_with_one_client_at_a_time_is_opened() -> None:
    class OneAtATime(RtspServer):
        process_request = socketserver.TCPServer.process_request

    with OneAtATime(NOT_FOUND) as server:
        error = error_of(server.address)
    assert isinstance(error, SourceError)
    assert error.reason == "not found"


@pytest.mark.parametrize(
    "spelling",
    [
        "concat:{0}/secret.ts",
        "concat:{1}|{1}",
        "file:{1}",
        "subfile:,start,0,end,0,,:{1}",
        "async:{0}/secret.ts",
        "crypto:{1}",
        "cache:{0}/secret.ts",
    ],
)
def test_protocols_of_ffmpeg_are_file_names(inside: Canary, tmp_path: Path, spelling: str) -> None:
    error = error_of(spelling.format(inside.address, tmp_path / "secret.ts"))
    assert isinstance(error, SourceError | ConfigError)
    assert inside.hits == []


def graph(uri: str, **sources: Any) -> dict[str, Any]:
    return {"stages": {"capture": {"uri": uri}, "show": {"input": "capture"}}, "sources": sources}


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "[::ffff:127.0.0.1]",
        "0x7f000001",
        "127.1",
        "localhost.",
        "0177.0.0.1",
        "[::1]",
        "camera.example.evil",
    ],
)
def test_only_a_listed_host_is_opened_however_it_is_written(host: str) -> None:
    for hosts in (["camera.example"], ["10.0.0.0/8", "camera.example"]):
        with pytest.raises(ConfigError, match=r"is not among sources\.hosts"):
            check(graph(f"http://user:pw@{host}/live", hosts=hosts), where="g")


def test_listed_hosts_and_schemes_are_opened() -> None:
    for uri in ("rtsp://camera.example/live", "rtsp://CAMERA.example:99/x", "http://10.2.3.4/live", "drive.mp4", "0"):
        check(graph(uri, hosts=["camera.example", "10.0.0.0/8"]), where="g")
        check(graph(uri), where="g")
    with pytest.raises(ConfigError, match=r"the scheme file is not among sources\.schemes \(rtsp\)"):
        check(graph("drive.mp4", schemes=["rtsp"]), where="g")
    with pytest.raises(ConfigError, match="unknown scheme 'gopher'"):
        check(graph("drive.mp4", schemes=["gopher"]), where="g")


def jpeg_of(width: int, height: int) -> bytes:
    """Return the header of a JPEG that claims a size."""
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + bytes([1, 34, 0, 2, 17, 1, 3, 17, 1])
    return b"\xff\xd8" + frame + b"\xff\xda" + bytes(2000)


def large_video(path: Path) -> None:
    """Write an mp4 that claims 16384x16384 in every header; the images have 320x240."""
    write_video(path, (number_image(n) for n in range(3)), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    at = data.index(b"mp4v" if b"mp4v" in data else b"jpeg", data.index(b"stsd"))
    data[at + 28 : at + 32] = struct.pack(">HH", 16384, 16384)
    while (start := data.find(b"\xff\xc0")) >= 0:
        data[start + 5 : start + 9] = struct.pack(">HH", 16384, 16384)
        data[start : start + 2] = b"\xff\xc1"
    path.write_bytes(bytes(data))


def counted_video(path: Path, frames: int, *, fragment: bool = False) -> None:
    """Write an mp4 of three frames whose header, or fragment, claims `frames` without any data for them."""
    options = {"movflags": "frag_keyframe+empty_moov"} if fragment else {}
    write_video(path, (number_image(n) for n in range(3)), codec="mjpeg", pix_fmt="yuvj420p", container_options=options)
    data = bytearray(path.read_bytes())
    if fragment:
        at = data.index(b"trun") + 4
        data[at : at + 8] = struct.pack(">II", 1, frames)  # all of one size, that of the fragment header
    else:
        at = data.index(b"stsz") + 8
        data[at : at + 8] = struct.pack(">II", 1, frames)
        at = data.index(b"stts") + 12
        data[at : at + 4] = struct.pack(">I", frames)
        at = data.index(b"stsc") + 12
        data[at + 4 : at + 8] = struct.pack(">I", frames)
    path.write_bytes(bytes(data))


def growing_video(path: Path) -> None:
    """Write a Matroska file of 320x240 whose second frame has 8200x8200 pixels, just above the limit."""
    write_video(path, (number_image(n) for n in range(3)), codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as source, av.open(str(path.with_suffix(".mkv")), "w") as grown:
        stream = source.streams.video[0]
        copy = grown.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in source.demux(stream) if p.size):
            large = cv2.imencode(".jpg", np.zeros((8200, 8200), np.uint8))[1].tobytes()
            changed = av.Packet(large if number == 1 else bytes(packet))
            changed.stream, changed.pts, changed.dts, changed.time_base = copy, number, number, Fraction(1, 25)
            changed.is_keyframe = True
            grown.mux(changed)
    path.unlink()


def sparse_image(path: Path) -> None:
    """Write a small image followed by a hole of 1.5 GB."""
    path.write_bytes(png_of(8, 8))
    with path.open("r+b") as file:
        file.truncate(1_500_000_000)


MEASURED = """
import json, resource, sys, time
from pathlib import Path
import stream_seg.cli.app, stream_seg.config.graph_file
from stream_seg.datasets.labelled import read_labels, read_pair
from stream_seg.stages.capture import Capture
results = {}
for path in sys.argv[1:]:
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.process_time()
    outcome = "nothing"
    try:
        if path.endswith(".yaml"):
            stream_seg.config.graph_file.read_document(Path(path))
        elif path.endswith(".pair"):
            read_pair(Path(path).with_suffix(".png"), Path(path).with_suffix(".png"), classes=3)
        elif path.endswith(".labels"):
            read_labels(Path(path).with_suffix(".png"), classes=3, size=(20_000, 20_000))
        else:
            outcome = str(len(list(Capture(uri=path, reconnect=False)(iter(()))))) + " frames"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    results[Path(path).name] = [outcome, grown, time.process_time() - start_s]
print(json.dumps(results))
"""


def test_a_bomb_is_refused_before_it_costs_anything(tmp_path: Path) -> None:
    """Peak memory in MB and CPU seconds are measured in one fresh process."""
    (tmp_path / "a.png").write_bytes(png_of(20_000, 20_000))
    (tmp_path / "a.jpg").write_bytes(jpeg_of(65_500, 65_500))
    large_video(tmp_path / "large.mp4")
    counted_video(tmp_path / "counted.mp4", 85_000_000)
    counted_video(tmp_path / "fragment.mp4", 40_000_000, fragment=True)
    growing_video(tmp_path / "growing.mp4")
    sparse_image(tmp_path / "sparse.png")
    tick = Fraction(1, 10_000)
    write_video(tmp_path / "fast.mp4", (number_image(n) for n in range(50)), rate=10_000, time_base=tick)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "aliases.yaml").write_text("\n".join(lines))
    (tmp_path / "nesting.yaml").write_text("stages: " + "[" * 20_000)
    bombs = [str(path) for path in sorted(tmp_path.iterdir())]
    bombs += [str(tmp_path / "a.pair"), str(tmp_path / "a.labels")]
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *bombs], capture_output=True, text=True, timeout=60, check=True
    )
    results = json.loads(run.stdout)
    expected = {
        "a.png": "20000x20000 pixels, more than max_pixels",
        "a.jpg": "65500x65500 pixels, more than max_pixels",
        "a.pair": "20000x20000 pixels, more than 67108864",
        "a.labels": "20000x20000 pixels, more than 67108864",
        "large.mp4": "no frame can be decoded",
        "counted.mp4": "no frame can be decoded",
        "fragment.mp4": "it needs more memory than a video may take",
        "growing.mkv": "2 frames",
        "sparse.png": "is 1500000000 bytes for 8x8 pixels, which is no image",
        "fast.mp4": "claims 10000 frames/s, more than 1000",
        "aliases.yaml": "aliases are not allowed",
        "nesting.yaml": "more than 32 levels deep",
    }
    assert results.keys() == expected.keys()
    for name, (outcome, grown_mb, took_s) in results.items():
        assert expected[name] in outcome
        assert "\n" not in outcome
        assert (name, grown_mb < 256, took_s < 1) == (name, True, True), (grown_mb, took_s)
