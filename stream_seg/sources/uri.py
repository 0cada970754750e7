"""What a user types as INPUT, understood once: which kind of source, how to open it, and how to show it.

drive.mp4                         file
pictures/  "pictures/*.png"  a.png  images
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
from stream_seg.files import at_home
from stream_seg.redact import SECRET, named, printable, quoted, split_user, without_secrets

Kind: TypeAlias = Literal["file", "images", "camera", "rtsp", "http", "synth"]

SCHEMES: dict[str, Kind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "synth": "synth",
}
POLICY_SCHEMES = ("rtsp", "rtsps", "http", "https", "file", "camera")
"""What a list of allowed schemes may name."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
RECORDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""An http address whose path ends so is a file on a server; any other is taken for a live stream."""

ALLOWED = "a video file, a picture, a folder or glob of pictures, /dev/videoN or a camera's number, " + ", ".join(
    f"{scheme}://" for scheme in SCHEMES
)

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_PORT_THEN_AT = re.compile(r"[^/?#@]*:\d+(/[^?#]*|[?#].*)@")
"""The path of a host, or a password that begins with digits and a slash: which host is meant, nobody can tell."""
_PLAIN_HOST = re.compile(r"(\[[^\]]*\]|[^:@/?#]*)(:\d+)?([/?#]|$)")


@dataclass(frozen=True)
class Source:
    """`address` opens it and may hold a password; `shown` never does, is one printable line, and is what logs and
    errors print. `live` cannot wait: what is not taken now is gone."""

    kind: Kind
    address: str = field(repr=False)
    shown: str
    live: bool


def parse(uri: str) -> Source:
    """Understand an INPUT without opening it. Raises ConfigError for an unknown scheme or an address without a host."""
    if not uri.strip():
        raise ConfigError(f"the input is empty; allowed are {ALLOWED}")
    scheme, mark, rest = uri.partition("://")
    if mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return _from_url(scheme.lower(), rest)
    if uri.isdecimal():
        uri = f"/dev/video{int(uri)}"
    if re.fullmatch(r"/dev/video\d+|/dev/v4l/.+", uri):
        return Source("camera", uri, printable(uri), live=True)
    try:
        path = str(at_home(Path(uri)))
        kind = _kind_of_path(path)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise ConfigError(f"the input {quoted(uri)}: {error.strerror}") from error
    return Source(kind, path, printable(without_secrets(uri)), live=False)


def _kind_of_path(text: str) -> Kind:
    path = Path(text)
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return "images"
    # A file whose name has brackets is that file, not a pattern.
    return "images" if glob.has_magic(text) and not path.exists() else "file"


def _from_url(scheme: str, rest: str) -> Source:
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown scheme {printable(scheme)}:// of the input; allowed are {ALLOWED}")
    kind = SCHEMES[scheme]
    if kind == "synth":
        query = parse_qs(rest.partition("?")[2])
        live = query.get("paced", ["no"])[-1].lower() in ("1", "true", "yes", "on")
        return Source(kind, f"synth://{rest}", printable(f"synth://{rest}"), live)
    template, rest = rest, _expanded(rest)
    if _PORT_THEN_AT.match(rest):
        raise ConfigError(
            f"the input {scheme}://…: an @ behind what reads as HOST:PORT; write it as %40, "
            "and / ? # in a password as %2F %3F %23"
        )
    user, location = _parts(rest)
    if not re.match(r"[^/?#:]", location):
        raise ConfigError(f"the input {scheme}:// names no host; write {scheme}://host/path")
    # A password with a raw / ? # or @ would end the host too early for FFmpeg.
    address = f"{quote(user, safe=':%!$&*+,;=()')}@{location}" if user else rest
    if not _reads(f"{scheme}://{address}"):
        # Without a word of the address: what it has in a port's place may be a password.
        raise ConfigError(
            f"the input {scheme}://…: its host or port cannot be read; write {scheme}://HOST:PORT/PATH, port 1 to 65535"
        )
    # Shown as it was typed, ${NAME} and all: what a variable holds is nobody's business.
    path, query_mark, _ = _parts(template)[1].partition("?")
    shown = SECRET.sub(r"\1…", path.partition("#")[0]) + ("?…" if query_mark else "")
    live = kind == "rtsp" or not re.split(r"[?#]", address)[0].lower().endswith(RECORDINGS)
    return Source(kind, f"{scheme}://{address}", printable(f"{scheme}://{shown}"), live)


def _parts(rest: str) -> tuple[str, str]:
    """(user:password, host and path); where the address reads well without a user, there is none."""
    return ("", rest) if _PLAIN_HOST.match(rest) else split_user(rest)


def _reads(address: str) -> bool:
    """Whether an address has a host, and a port that there can be, or none."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # its words quote the user and password
        return False


def _expanded(rest: str) -> str:
    """With `${NAME}` replaced by that variable of the environment, quoted where it stands before the host. Raises
    ConfigError for one that is not set."""
    host_at = rest.rfind("@")

    def value(found: re.Match[str]) -> str:
        said = os.environ.get(found[1])
        if said is None:
            raise ConfigError(f"the input names ${{{found[1]}}}, which the environment does not have")
        return quote(said, safe="") if found.start() < host_at else said

    return _VARIABLE.sub(value, rest)


def refusal(source: Source, schemes: Sequence[str] | None, hosts: Sequence[str] | None) -> str | None:
    """Why a source may not be opened, None where it may. A host is compared as it is written: an address only in its
    usual form (2130706433 is no 127.0.0.1), a name without asking anyone what it stands for."""
    scheme = source.address.partition("://")[0].lower() if source.kind in ("rtsp", "http") else source.kind
    scheme = "file" if scheme == "images" else scheme
    if scheme == "synth":
        return None
    if schemes is not None and scheme not in schemes:
        return f"{source.shown}: the scheme {scheme} is not among sources.schemes ({', '.join(schemes)})"
    if hosts is None or source.kind not in ("rtsp", "http"):
        return None
    host = (urlsplit(source.address).hostname or "").lower()
    if any(_is_host(host, allowed.lower()) for allowed in hosts):
        return None
    return f"{source.shown}: the host {host} is not among sources.hosts ({', '.join(map(without_secrets, hosts))})"


def _is_host(host: str, allowed: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(allowed)
    except ValueError:
        return host == allowed


def with_password(source: Source, path: Path) -> Source:
    """The source opened with the password in a file, as the user that its address names. Raises ConfigError."""
    scheme, mark, rest = source.address.partition("://")
    user, at, location = rest.rpartition("@")
    if source.kind not in ("rtsp", "http") or not at or ":" in user:
        raise ConfigError(f"{source.shown}: password_file needs an address with a user alone: rtsp://USER@HOST/PATH")
    try:
        password = at_home(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{named('password_file', path)}: {reason}") from error
    return replace(source, address=f"{scheme}{mark}{user}:{quote(password, safe='')}@{location}")
