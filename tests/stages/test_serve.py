"""What `serve` refuses, and that it passes frames on untouched and in time."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from stream_seg.cli.app import main
from stream_seg.config.graph_file import check
from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import Frame
from stream_seg.stages.serve import TOKEN_ENV, Serve
from tests.support.frames import frame
from tests.support.page_client import segmented, shown

TOKEN = "a token of some length"


def checked(**keys: Any) -> None:
    check({"stages": {"synthetic": {}, "serve": {"input": "synthetic", **keys}}}, where="g.yaml")


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_ENV, raising=False)


def test_frames_pass_untouched() -> None:
    frames = [segmented(seq) for seq in range(20)]
    before = [f.image.copy() for f in frames]
    out = list(Serve(port=0)(iter(frames)))
    assert all(a is b for a, b in zip(frames, out, strict=True))
    assert all((f.image == image).all() for f, image in zip(frames, before, strict=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "camera-box"])
def test_another_address_without_a_token_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^g\.yaml: stages\.serve: host .* needs token_file, or STREAM_SEG_TOKEN$"):
        checked(host=host, plain=True)


def test_another_address_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    with pytest.raises(ConfigError, match=r"needs TLS: certfile and keyfile; or plain: true behind a proxy with TLS$"):
        checked(host="0.0.0.0")
    checked(host="0.0.0.0", plain=True)
    checked(host="0.0.0.0", certfile="a.pem", keyfile="b.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machine_needs_neither(host: str) -> None:
    checked(host=host)


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="certfile and keyfile belong together"):
        checked(certfile="a.pem")


@pytest.mark.parametrize(("text", "said"), [("short\n", "has 5 characters; at least 12"), (None, "No such file")])
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OutputError, match=f"serve: token_file: .*{said}"), shown(token_file=path):
        pass


def test_a_certificate_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    keys = {"certfile": tmp_path / "a.pem", "keyfile": tmp_path / "a.pem"}
    with pytest.raises(ConfigError, match=r"serve: certfile .*a\.pem"), shown(**keys):
        pass


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(OutputError, match=f"cannot serve on 127.0.0.1:{port}: .*; choose another"),
            shown(port=port),
        ):
            pass


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stream_seg.web.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(OutputError, match=r"serve: .*uvicorn.*pip install '\.\[web\]'"):
        next(Serve(port=0)(iter([frame(0)])))


def test_after_an_overlay_it_is_refused() -> None:
    stages = {"synthetic": {}, "overlay": {"input": "synthetic"}, "serve": {"input": "overlay"}}
    with pytest.raises(ConfigError, match=r"stages\.serve\.input: the page draws .* from synthetic, before overlay"):
        check({"stages": stages}, where="g.yaml")


def test_a_recording_keeps_its_own_time_on_request() -> None:
    began = time.monotonic()
    assert len(list(Serve(port=0, pace=True)(frame(seq) for seq in range(16)))) == 16
    assert time.monotonic() - began >= 0.5  # 15 intervals of 30 frames/s


def shown_at(times_s: list[float]) -> list[float]:
    """When each of a recording's frames went through, in seconds."""
    began, frames = time.monotonic(), (timed(seq, at) for seq, at in enumerate(times_s))
    return [time.monotonic() - began for _ in Serve(port=0, pace=True)(frames)]


def timed(seq: int, at_s: float) -> Frame:
    return replace(frame(seq), pts=round(1000 * at_s), time_base=Fraction(1, 1000))


def test_a_recording_of_one_frame_in_more_than_a_second_keeps_its_own_time() -> None:
    first, second, third = shown_at([7.0, 8.2, 9.4])
    assert 1.15 <= second - first < 2
    assert 1.15 <= third - second < 2


def test_where_streams_share_a_page_a_pause_of_one_does_not_hold_up_the_others() -> None:
    began = time.monotonic()
    given = [("a", 0, 0.0), ("b", 0, 0.0), ("a", 1, 30.0), ("b", 1, 0.04)]
    frames = (replace(timed(seq, at_s), stream=stream) for stream, seq, at_s in given)
    assert len(list(Serve(port=0, pace=True)(frames))) == 4
    assert time.monotonic() - began < 10


def test_a_clock_that_jumps_is_not_waited_for() -> None:
    first, *_, last = shown_at([5.0, 0.0, 0.1, 700.0, 700.1, 99_999.0, 3.0])
    assert 0.2 <= last - first < 1


def test_the_end_of_the_run_is_not_waited_for() -> None:
    stage = Serve(port=0, pace=True)
    frames, began = (timed(seq, 500.0 * seq) for seq in range(4)), time.monotonic()
    stage.stopping = lambda: time.monotonic() - began > 1
    assert len(list(stage(frames))) == 4
    assert time.monotonic() - began < 3


def test_the_program_refuses_an_open_page_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "synth://road?frames=1", "http://0.0.0.0:8080"])
    assert ended.value.code == 2
    assert len(capfd.readouterr().err.splitlines()) == 1
