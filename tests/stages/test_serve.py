"""Test the stage `serve`: invalid keys, unchanged frames, pacing of recordings."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from stream_seg.cli.program import main
from stream_seg.config.graph_file import check
from stream_seg.errors import ConfigError, OutputError
from stream_seg.frame import Frame
from stream_seg.stages.base import Context
from stream_seg.stages.serve import TOKEN_ENV, Serve
from tests.support.frames import make_frame
from tests.support.page_client import make_segmented_frame, run_page

TOKEN = "a token of some length"


def check_serve(**keys: Any) -> None:
    check({"stages": {"synthetic": {}, "serve": {"input": "synthetic", **keys}}}, where="g.yaml")


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_ENV, raising=False)


def test_frames_pass_unchanged() -> None:
    frames = [make_segmented_frame(seq) for seq in range(20)]
    before = [f.image.copy() for f in frames]
    out = list(Serve(port=0)(iter(frames)))
    assert all(a is b for a, b in zip(frames, out, strict=True))
    assert all((f.image == image).all() for f, image in zip(frames, before, strict=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "camera-box"])
def test_a_reachable_address_needs_a_token(host: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^g\.yaml: stages\.serve: host .* is reachable by other machines: set token_file or STREAM_SEG_TOKEN$",
    ):
        check_serve(host=host, plain=True)


def test_a_reachable_address_needs_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    with pytest.raises(ConfigError, match=r"needs TLS: set certfile and keyfile, or plain: true behind a TLS proxy$"):
        check_serve(host="0.0.0.0")
    check_serve(host="0.0.0.0", plain=True)
    check_serve(host="0.0.0.0", certfile="a.pem", keyfile="b.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_a_loopback_address_needs_neither(host: str) -> None:
    check_serve(host=host)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="certfile and keyfile must be set together"):
        check_serve(certfile="a.pem")


@pytest.mark.parametrize(
    ("text", "message"), [("short\n", "has 5 characters; the minimum is 12"), (None, "No such file")]
)
def test_an_invalid_token_file_is_rejected(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OutputError, match=f"serve: token_file: .*{message}"), run_page(token_file=path):
        pass


def test_an_invalid_certificate_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    keys = {"certfile": tmp_path / "a.pem", "keyfile": tmp_path / "a.pem"}
    with pytest.raises(ConfigError, match=r"serve: certfile .*a\.pem"), run_page(**keys):
        pass


def test_a_port_in_use_is_rejected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(OutputError, match=f"cannot serve on 127.0.0.1:{port}: .*; choose another"),
            run_page(port=port),
        ):
            pass


def test_a_missing_package_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stream_seg.web.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(OutputError, match=r"serve: .*uvicorn.*pip install .*\[web\]'"):
        next(Serve(port=0)(iter([make_frame(0)])))


def test_input_from_an_overlay_is_rejected() -> None:
    stages = {"synthetic": {}, "overlay": {"input": "synthetic"}, "serve": {"input": "overlay"}}
    with pytest.raises(ConfigError, match=r"stages\.serve\.input: serve draws .* from synthetic, before overlay"):
        check({"stages": stages}, where="g.yaml")


def test_a_paced_recording_plays_at_its_own_speed() -> None:
    start_s = time.monotonic()
    assert len(list(Serve(port=0, pace=True)(make_frame(seq) for seq in range(16)))) == 16
    assert time.monotonic() - start_s >= 0.5  # 15 intervals of 30 frames/s


def pace_frames(times_s: list[float]) -> list[float]:
    """Run a paced page over frames with these timestamps. Return the seconds at which it yields each."""
    start_s, frames = time.monotonic(), (make_timed_frame(seq, time_s) for seq, time_s in enumerate(times_s))
    return [time.monotonic() - start_s for _ in Serve(port=0, pace=True)(frames)]


def make_timed_frame(seq: int, time_s: float) -> Frame:
    return replace(make_frame(seq), pts=round(1000 * time_s), time_base=Fraction(1, 1000))


def test_intervals_of_more_than_a_second_are_kept() -> None:
    first, second, third = pace_frames([7.0, 8.2, 9.4])
    assert 1.15 <= second - first < 20
    assert 1.15 <= third - second < 20


def test_a_pause_of_one_stream_does_not_delay_the_others() -> None:
    start_s = time.monotonic()
    times = [("a", 0, 0.0), ("b", 0, 0.0), ("a", 1, 30.0), ("b", 1, 0.04)]
    frames = (replace(make_timed_frame(seq, time_s), stream=stream) for stream, seq, time_s in times)
    assert len(list(Serve(port=0, pace=True)(frames))) == 4
    assert time.monotonic() - start_s < 25


def test_jumps_of_timestamps_are_not_waited_for() -> None:
    first, *_, last = pace_frames([5.0, 0.0, 0.1, 700.0, 700.1, 99_999.0, 3.0])
    assert 0.2 <= last - first < 30


def test_the_end_of_the_run_interrupts_a_pause() -> None:
    stage = Serve(port=0, pace=True)
    frames, start_s = (make_timed_frame(seq, 500.0 * seq) for seq in range(4)), time.monotonic()
    stage.context = Context(stopping=lambda: time.monotonic() - start_s > 1)
    assert len(list(stage(frames))) == 4
    assert time.monotonic() - start_s < 60


def test_the_program_rejects_an_unprotected_page_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["run", "synth://road?frames=1", "http://0.0.0.0:8080"])
    assert exit_info.value.code == 2
    assert len(capfd.readouterr().err.splitlines()) == 1
