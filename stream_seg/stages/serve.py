"""`serve`: a page in the browser, live, with its JSON API."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files import at_home
from stream_seg.redact import named, without_secrets
from stream_seg.sources.timeline import LEAP_S, Pacer
from stream_seg.stages.base import STRICT, Context, Frames, Traits
from stream_seg.web.hosts import is_loopback

TOKEN_ENV = "STREAM_SEG_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST = 12
"""Characters of a token at least."""
SHARED_GAP_S = 1
"""Longest pause of a recording that is waited for where streams share the page: it holds up the others too."""
GLANCE_S = 0.1
"""How often it is looked whether the run is to end, while the next frame waits for its time."""

File = Annotated[Path, AfterValidator(at_home)]


@dataclass(config=STRICT)
class Serve:
    """Show the frames on a page in the browser; viewers never slow the pipeline.

    Takes the frames from before the overlay: it draws the classes itself, as the page asks for. Another address than
    this machine's own needs a token (`token_file`, or the variable STREAM_SEG_TOKEN) and TLS.
    """

    traits = Traits(role="output", images="undrawn", argument="a page's address (http://127.0.0.1:8080)")

    host: Annotated[str, Field(min_length=1, description="address to bind; 0.0.0.0 is every one")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 takes a free one")] = 8080
    opacity: Annotated[float, Field(ge=0, le=1, description="how much the colours cover at first, 0 to 1")] = 0.5
    max_clients: Annotated[int, Field(ge=1, le=256, description="moving pictures sent at once, at most")] = 16
    max_width: Annotated[int, Field(ge=64, description="width of a moving picture at most, pixels")] = 1280
    max_fps: Annotated[float, Field(ge=1, le=240, description="frames per second of a moving picture at most")] = 30.0
    quality: Annotated[int, Field(ge=1, le=100, description="JPEG quality")] = 80
    pace: Annotated[
        bool | None,
        Field(description="play at the recording's own speed; none: where the page is the only output of a recording"),
    ] = None
    token_file: Annotated[File | None, Field(description="a file whose first line is the token")] = None
    tls: Annotated[bool, Field(description="require TLS: certfile and keyfile")] = False
    certfile: Annotated[File | None, Field(description="TLS: the certificate chain, PEM")] = None
    keyfile: Annotated[File | None, Field(description="TLS: the private key, PEM")] = None
    plain: Annotated[bool, Field(description="true: no TLS on another address, a proxy before it has it")] = False
    hosts: Annotated[
        list[str], Field(description="names by which browsers may call the page, besides addresses and localhost")
    ] = Field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = Context()
        if self.tls and self.certfile is None:
            raise ValueError("https:// needs a certificate: set certfile and keyfile, or write http://")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile belong together; give both or none")
        if is_loopback(self.host):
            return
        host = without_secrets(self.host)
        if self.token_file is None and not os.environ.get(TOKEN_ENV):
            raise ValueError(f"host {host} can be reached by others: it needs token_file, or {TOKEN_ENV}")
        if self.certfile is None and not self.plain:
            raise ValueError(f"host {host} needs TLS: certfile and keyfile; or plain: true behind a proxy with TLS")

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT: http://HOST:PORT, or https:// with `certfile` and `keyfile`.

        None for an output that is no URL. Raises ConfigError for a URL of another form.
        """
        if "://" not in text:
            return None
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None or not plain:
            raise ConfigError("an output URL is the address of a page: http://HOST:PORT, such as http://127.0.0.1:8080")
        return {"host": parts.hostname, "port": port, **({"tls": True} if parts.scheme == "https" else {})}

    def bind(self, context: Context) -> Serve:
        """Return the stage with the graph's metrics and streams, and with `pace` decided."""
        pace = context.recorded and context.only_output if self.pace is None else self.pace
        bound = replace(self, pace=pace)
        bound.context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        try:
            from stream_seg.web.server import serve_page
        except ImportError as error:
            raise OutputError(f"serve: {error}; install it with: pip install '.[web]'") from error
        pacers: dict[str, Pacer] = {}
        context, token = self.context, self.read_token()
        with serve_page(self, token=token, registry=context.registry, streams=context.streams) as (page, url):
            context.announce(f"page at {url}")
            for frame in frames:
                if self.pace:
                    pacer = pacers.setdefault(frame.stream, Pacer())
                    longest_s = LEAP_S if len(pacers) == 1 else SHARED_GAP_S
                    time_s = float(frame.pts * frame.time_base)
                    self._wait(pacer.due_s(time_s, time.monotonic(), longest_s=longest_s))
                page.put(frame)
                yield frame

    def _wait(self, due_s: float) -> None:
        while (left_s := due_s - time.monotonic()) > 0 and not self.context.stopping():
            time.sleep(min(left_s, GLANCE_S))

    def read_token(self) -> str | None:
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
