"""The stage `serve`: a live web page with a JSON API."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.errors import ConfigError, OutputError
from stream_seg.files.writing import expand_home
from stream_seg.installation import install_hint
from stream_seg.redact import redact_secrets
from stream_seg.stages.base import STRICT, Context, Frames, Traits
from stream_seg.stages.playback import PACE, STAY, Playback, resolve_pace, resolve_stay
from stream_seg.web.access import read_token
from stream_seg.web.hosts import is_loopback

TOKEN_ENV = "STREAM_SEG_TOKEN"  # noqa: S105 - the name of an environment variable

File = Annotated[Path, AfterValidator(expand_home)]


@dataclass(config=STRICT)
class Serve:
    """Show the frames on a web page. Viewers never slow the pipeline.

    Takes frames from before the overlay, because it draws the classes itself with the settings of the page. An address
    that other machines can reach needs a token (`token_file` or the environment variable STREAM_SEG_TOKEN) and TLS.
    """

    traits = Traits(role="output", images="undrawn", watched=True, argument="the URL of a page (http://127.0.0.1:8080)")

    host: Annotated[str, Field(min_length=1, description="address to bind; 0.0.0.0: all IPv4 addresses")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 picks a free one")] = 8080
    opacity: Annotated[float, Field(ge=0, le=1, description="initial opacity of the class colours, 0 to 1")] = 0.5
    classes: Annotated[
        list[str] | None, Field(min_length=1, description="classes to show, the others are hidden at first; none: all")
    ] = None
    max_clients: Annotated[int, Field(ge=1, le=256, description="maximum number of live streams sent at once")] = 16
    max_width: Annotated[int, Field(ge=64, description="maximum width of a live stream, pixels")] = 1280
    max_fps: Annotated[float, Field(ge=1, le=240, description="maximum frame rate of a live stream")] = 30.0
    quality: Annotated[int, Field(ge=1, le=100, description="JPEG quality")] = 80
    pace: Annotated[bool | None, Field(description=PACE)] = None
    stay: Annotated[bool | None, Field(description=STAY)] = None
    token_file: Annotated[File | None, Field(description="file whose first line is the access token")] = None
    tls: Annotated[bool, Field(description="require TLS: certfile and keyfile")] = False
    certfile: Annotated[File | None, Field(description="TLS certificate chain, PEM")] = None
    keyfile: Annotated[File | None, Field(description="TLS private key, PEM")] = None
    plain: Annotated[bool, Field(description="allow other addresses without TLS, for a TLS proxy in front")] = False
    hosts: Annotated[
        list[str], Field(description="host names that browsers may use, besides localhost and IP addresses")
    ] = Field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = Context()
        if self.tls and self.certfile is None:
            raise ValueError("https:// needs a certificate: set certfile and keyfile, or write http://")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile must be set together")
        if is_loopback(self.host):
            return
        host = redact_secrets(self.host)
        if self.token_file is None and not os.environ.get(TOKEN_ENV):
            raise ValueError(f"host {host} is reachable by other machines: set token_file or {TOKEN_ENV}")
        if self.certfile is None and not self.plain:
            raise ValueError(f"host {host} needs TLS: set certfile and keyfile, or plain: true behind a TLS proxy")

    @classmethod
    def argument(cls, text: str) -> dict[str, object] | None:
        """Return the keys for a command-line OUTPUT: http://HOST:PORT, or https:// with `certfile` and `keyfile`.

        None for an output that is no URL. Raises ConfigError for a URL of another form.
        """
        if "://" not in text:
            return None
        with suppress(ValueError):
            url = urlsplit(text)
            plain = url.path in ("", "/") and not (url.query or url.fragment or "@" in url.netloc)
            if url.scheme in ("http", "https") and url.hostname and url.port is not None and plain:
                return {"host": url.hostname, "port": url.port, **({"tls": True} if url.scheme == "https" else {})}
        raise ConfigError("an output URL must be the URL of a page: http://HOST:PORT, such as http://127.0.0.1:8080")

    def bind(self, context: Context) -> Serve:
        """Return the stage with the context of a graph, and with `pace` and `stay` resolved."""
        bound = replace(self, pace=resolve_pace(self.pace, context), stay=resolve_stay(self.stay, context))
        bound.context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        try:
            from stream_seg.web.server import serve_page
            from stream_seg.web.state import PageState
        except ImportError as error:
            raise OutputError(f"serve: {error}; install it with: {install_hint('[web]')}") from error
        token = read_token(self.token_file, TOKEN_ENV, where="serve", error=OutputError)
        page = PageState(
            self.context.streams,
            self.context.ended,
            opacity=self.opacity,
            shown=self.classes,
            stalls=self.context.stalls,
        )
        playback = Playback(self.context, pace=bool(self.pace))
        with serve_page(self, token, self.context.registry, page) as url:
            self.context.announce(f"page at {url}")
            for frame in frames:
                playback.hold(frame)
                page.put(frame)
                yield frame
            page.end()
            if self.stay and not self.context.stopping():
                self.context.announce(f"ended; page stays at {url}, Ctrl-C to quit")
                playback.wait_while(page.check)
