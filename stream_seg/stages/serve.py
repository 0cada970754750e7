"""`serve`: a page in the browser, live, with its JSON API."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Annotated

from prometheus_client import CollectorRegistry
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import OutputError
from stream_seg.files import at_home
from stream_seg.redact import named, without_secrets
from stream_seg.stages.base import STRICT, Frames
from stream_seg.web.hosts import is_loopback

TOKEN_ENV = "STREAM_SEG_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST = 12
"""Characters of a token at least."""
LONGEST_GAP_S = 600
"""Between two frames of a recording: a leap of more is one of its clock."""
SHARED_GAP_S = 1
"""The same where streams share the page: the others would stand still meanwhile."""
GLANCE_S = 0.1
"""How often it is looked whether the run is to end, while the next frame waits for its time."""

File = Annotated[Path, AfterValidator(at_home)]


@dataclass(config=STRICT)
class Serve:
    """Show the frames on a page in the browser; viewers never slow the pipeline.

    Takes the frames from before the overlay: it draws the classes itself, as the page asks for. Another address than
    this machine's own needs a token (`token_file`, or the variable STREAM_SEG_TOKEN) and TLS.
    """

    host: Annotated[str, Field(min_length=1, description="address to bind; 0.0.0.0 is every one")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 takes a free one")] = 8080
    opacity: Annotated[float, Field(ge=0, le=1, description="how much the colours cover at first, 0 to 1")] = 0.5
    max_clients: Annotated[int, Field(ge=1, le=256, description="moving pictures sent at once, at most")] = 16
    max_width: Annotated[int, Field(ge=64, description="width of a moving picture at most, pixels")] = 1280
    max_fps: Annotated[float, Field(ge=1, le=240, description="frames per second of a moving picture at most")] = 30.0
    quality: Annotated[int, Field(ge=1, le=100, description="JPEG quality")] = 80
    pace: Annotated[bool, Field(description="true: no faster than the recording's own time")] = False
    token_file: Annotated[File | None, Field(description="a file whose first line is the token")] = None
    certfile: Annotated[File | None, Field(description="TLS: the certificate chain, PEM")] = None
    keyfile: Annotated[File | None, Field(description="TLS: the private key, PEM")] = None
    plain: Annotated[bool, Field(description="true: no TLS on another address, a proxy before it has it")] = False
    hosts: Annotated[
        list[str], Field(description="names by which browsers may call the page, besides addresses and localhost")
    ] = Field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()  # until somebody has metrics to show
        self.streams: Callable[[], Container[str]] | None = None  # until somebody knows: all that ever came
        self.announce: Callable[[str], None] = lambda _address: None
        self.stopping: Callable[[], bool] = lambda: False  # until somebody knows whether the run is to end
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together; give both or none")
        if is_loopback(self.host):
            return
        host = without_secrets(self.host)
        if self.token_file is None and not os.environ.get(TOKEN_ENV):
            raise ValueError(f"host {host} can be reached by others: it needs token_file, or {TOKEN_ENV}")
        if self.certfile is None and not self.plain:
            raise ValueError(f"host {host} needs TLS: certfile and keyfile; or plain: true behind a proxy with TLS")

    def __call__(self, frames: Frames) -> Frames:
        try:
            from stream_seg.web.server import serving
        except ImportError as error:
            raise OutputError(f"serve: {error}; install it with: pip install '.[web]'") from error
        began: dict[str, float] = {}
        with serving(self, token=self.token()) as (board, address):
            self.announce(address)
            for frame in frames:
                if self.pace:
                    at = float(frame.pts * frame.time_base)
                    due_s = began.setdefault(frame.stream, time.monotonic() - at) + at
                    longest_s = LONGEST_GAP_S if len(began) == 1 else SHARED_GAP_S
                    if 0 <= due_s - time.monotonic() <= longest_s:
                        self._wait(due_s)
                    else:  # late, or the time stamps jump: start anew from here
                        began[frame.stream] = time.monotonic() - at
                board.put(frame)
                yield frame

    def _wait(self, due_s: float) -> None:
        while (left_s := due_s - time.monotonic()) > 0 and not self.stopping():
            time.sleep(min(left_s, GLANCE_S))

    def token(self) -> str | None:
        """What a viewer has to know. Raises OutputError for a file that cannot be read or a token that is too short."""
        token, where = os.environ.get(TOKEN_ENV), f"the variable {TOKEN_ENV}"
        if self.token_file is not None:
            where = named("token_file", self.token_file)
            try:
                token = self.token_file.read_text(encoding="utf-8").partition("\n")[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                said = error.strerror if isinstance(error, OSError) else "it is no text"
                raise OutputError(f"serve: {where}: {said}") from error
        if token is None or (token == "" and self.token_file is None):
            return None
        if len(token) < SHORTEST:
            raise OutputError(f"serve: {where}: the token has {len(token)} characters; at least {SHORTEST} are needed")
        return token
