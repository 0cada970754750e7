"""Messages that quote user input contain no password."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_seg.redact import name_secret_file, redact_message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("rtsp://me:hunter2@h:9/x.onnx: no such file", "rtsp://…@h:9/x.onnx: no such file"),
        ("rtsp:/me:hunter2@h:9/x.onnx: no such file", "rtsp:/…@h:9/x.onnx: no such file"),
        ("got 'https://hunter2@h/x', and", "got 'https://…@h/x', and"),
        ("certfile=rtsp://me:hunter2@x@h", "certfile=rtsp://…@h"),
        ("(http://me:hun/hunter2@h:1/x)", "(http://…@h:1/x)"),
        ("me:hunter2@h/x.onnx: no", "…@h/x.onnx: no"),
        ("https://h/w.pth?token=hunter2", "https://h/w.pth?…"),
        ("rtsp:/h/user=me_password=hunter2.onnx: no", "rtsp:/h/user=… no"),
        ("network=me:hunter2@h/x", "…@h/x"),
        ("http://h:123/hunter2@h", "http://…@h"),
    ],
)
def test_passwords_are_removed(message: str, expected: str) -> None:
    assert redact_message(message) == redact_message(expected) == expected


@pytest.mark.parametrize(
    "message",
    [
        "a.yaml:3:7: unknown key 'b'\n",
        "cannot open http://127.0.0.1:8080: address in use; see http://127.0.0.1/@me, a@b.c",
        "write rtsp://USER@HOST/PATH or SCHEME://USER:PASSWORD@HOST/PATH",
        "synth://road?size=0x3: size is 8x8 or more",
        "C:/x/y? C:\\Users\\me@corp\\x",
        "/tmp/run12:30@site/a.mp4: no such file",
        "runs/2026-01-01T10:00:00/a@0.5.pth, file:///home/me/a@b.mp4",
        "frame 3:4@30fps, scores[:,0]@weights, 12:30@x",
        "http://127.0.0.1/a:b@c.mp4: refused; rtsp://[fe80::1]/x@y",
    ],
)
def test_other_messages_are_unchanged(message: str) -> None:
    assert redact_message(message) == message


def test_a_path_that_may_be_the_secret_itself_is_not_named() -> None:
    assert "hunter2" not in name_secret_file("password_file", Path("hunter2"))
    assert name_secret_file("password_file", Path("/run/secret")) == "password_file: /run/secret"
