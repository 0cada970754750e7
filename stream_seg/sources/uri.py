"""Parse an INPUT into its kind of source, its address and its display name.

drive.mp4                         file
images/  "images/*.png"  a.png    images
/dev/video0  0                    camera
rtsp://user:password@host/path    rtsp (rtsps)
http://host/drive.mp4             http (https)
synth://road                      synth, drawn by stream_seg.stages.synthetic
"""

from __future__ import annotations

import glob
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import parse_qs, quote, urlsplit

from stream_seg.errors import ConfigError
from stream_seg.files.writing import expand_home
from stream_seg.redact import SECRET, name_secret_file, quote_value, redact_secrets, split_user, to_one_line

Kind: TypeAlias = Literal["file", "images", "camera", "rtsp", "http", "synth"]

SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "synth": "synth"}
KNOWN_SCHEMES = ("rtsp", "rtsps", "http", "https", "file", "camera")
"""Values of `sources.schemes`."""
HEIF_SUFFIXES = (".avif", ".heic", ".heif", ".hif")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", *HEIF_SUFFIXES)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""An http address whose path ends so is a file on a server; any other counts as a live stream."""
ACCEPTED = "a video file, an image, a folder or glob of images, /dev/videoN or a camera number, " + ", ".join(
    f"{scheme}://" for scheme in SCHEMES
)

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_PORT_THEN_AT = re.compile(r"[^/?#@]*:\d+(/[^?#]*|[?#].*)@")
"""The path of a host, or a password that begins with digits and a slash: the host is ambiguous."""
_PLAIN_HOST = re.compile(r"(\[[^\]]*\]|[^:@/?#]*)(:\d+)?([/?#]|$)")


@dataclass(frozen=True)
class Source:
    """A parsed INPUT. `address` opens it and may contain a password; `display` is one printable line without it, for
    logs and errors. A `live` source does not wait: a frame that is not taken in time is lost."""

    kind: Kind
    address: str = field(repr=False)
    display: str
    live: bool


def parse_source(uri: str) -> Source:
    """Parse an INPUT without opening it. Raises ConfigError for an unknown scheme or an address without a host."""
    if not uri.strip():
        raise ConfigError(f"the input is empty; allowed are {ACCEPTED}")
    scheme, mark, rest = uri.partition("://")
    if mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return _parse_url(scheme.lower(), rest)
    if uri.isdecimal():
        uri = f"/dev/video{int(uri)}"
    if re.fullmatch(r"/dev/video\d+|/dev/v4l/.+", uri):
        return Source("camera", uri, to_one_line(uri), live=True)
    try:
        path = expand_home(Path(uri))
        # A file whose name contains brackets is that file, not a pattern.
        pattern = glob.has_magic(str(path)) and not path.exists()
        kind: Kind = "images" if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES or pattern else "file"
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ConfigError(f"the input {quote_value(uri)}: {error.strerror}") from error
    return Source(kind, str(path), to_one_line(redact_secrets(uri)), live=False)


def _parse_url(scheme: str, rest: str) -> Source:
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown scheme {to_one_line(scheme)}:// of the input; allowed are {ACCEPTED}")
    kind = SCHEMES[scheme]
    if kind == "synth":
        query = parse_qs(rest.partition("?")[2])
        live = query.get("paced", ["no"])[-1].lower() in ("1", "true", "yes", "on")
        return Source(kind, f"synth://{rest}", to_one_line(f"synth://{rest}"), live)
    template, rest, where = rest, _expand_variables(rest), f"the input {scheme}://…"
    if _PORT_THEN_AT.match(rest):
        raise ConfigError(f"{where}: an @ after HOST:PORT; write it as %40, and / ? # in a password as %2F %3F %23")
    user, location = _split_user(rest)
    if not re.match(r"[^/?#:]", location):
        raise ConfigError(f"the input {scheme}:// names no host; write {scheme}://host/path")
    # A password with a raw / ? # or @ would end the host too early for FFmpeg.
    address = f"{quote(user, safe=':%!$&*+,;=()')}@{location}" if user else rest
    if not _is_valid_url(f"{scheme}://{address}"):
        # Without any part of the address: the text in place of the port may be a password.
        raise ConfigError(f"{where}: invalid host or port; write {scheme}://HOST:PORT/PATH, port 1 to 65535")
    # Displayed as typed, with ${NAME}: the value of a variable is secret.
    path, query_mark, _ = _split_user(template)[1].partition("?")
    display = SECRET.sub(r"\1…", path.partition("#")[0]) + ("?…" if query_mark else "")
    live = kind == "rtsp" or not re.split(r"[?#]", address)[0].lower().endswith(VIDEO_SUFFIXES)
    return Source(kind, f"{scheme}://{address}", to_one_line(f"{scheme}://{display}"), live)


def _split_user(rest: str) -> tuple[str, str]:
    """Return (user:password, host and path). An address that is valid without a user has none."""
    return ("", rest) if _PLAIN_HOST.match(rest) else split_user(rest)


def _is_valid_url(url: str) -> bool:
    """Return True if a URL has a host and a valid port or none."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # its message quotes the user and password
        return False


def _expand_variables(rest: str) -> str:
    """Replace `${NAME}` by that environment variable, percent-encoded before the host. Raises ConfigError."""
    host_start = rest.rfind("@")

    def expand(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(f"the input names ${{{match[1]}}}: the environment variable is not set")
        return quote(value, safe="") if match.start() < host_start else value

    return _VARIABLE.sub(expand, rest)


def explain_refusal(source: Source, schemes: Sequence[str] | None, hosts: Sequence[str] | None) -> str | None:
    """Return why a source may not be opened, None if it may. None as `schemes` or `hosts` allows all.

    Hosts are compared as they are written: an address only in its usual form (2130706433 is not 127.0.0.1), a name
    without resolving it.
    """
    remote = source.kind in ("rtsp", "http")
    scheme = source.address.partition("://")[0].lower() if remote else source.kind.replace("images", "file")
    if scheme == "synth":
        return None
    if schemes is not None and scheme not in schemes:
        return f"{source.display}: the scheme {scheme} is not among sources.schemes ({', '.join(schemes)})"
    if hosts is None or not remote:
        return None
    host = (urlsplit(source.address).hostname or "").lower()
    if any(_is_host(host, allowed.lower()) for allowed in hosts):
        return None
    return f"{source.display}: the host {host} is not among sources.hosts ({', '.join(map(redact_secrets, hosts))})"


def _is_host(host: str, allowed: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(allowed)
    except ValueError:
        return host == allowed


def add_password(source: Source, path: Path) -> Source:
    """Return the source with the password in a file, for the user that its address names. Raises ConfigError."""
    scheme, mark, rest = source.address.partition("://")
    user, at, location = rest.rpartition("@")
    if source.kind not in ("rtsp", "http") or not at or ":" in user:
        raise ConfigError(f"{source.display}: password_file needs an address with a user only: rtsp://USER@HOST/PATH")
    try:
        password = expand_home(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{name_secret_file('password_file', path)}: {reason}") from error
    return replace(source, address=f"{scheme}{mark}{user}:{quote(password, safe='')}@{location}")
