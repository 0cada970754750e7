"""Whether a file of the engine cache may be believed: whose it is, and for who holds a secret, what that says of it.

$STREAM_SEG_CACHE_KEY names a file with a secret. With it an engine is loaded only where its JSON, and so the SHA-256 in
it, carries the HMAC-SHA-256 (RFC 2104) of that secret: in a cache that others reach, nothing of theirs is believed. An
older engine of ours that they put back is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from stream_seg.engines.cache_entry import Entry
from stream_seg.errors import ConfigError
from stream_seg.files import at_home

VARIABLE = "STREAM_SEG_CACHE_KEY"
LEAST, MOST = 16, 4096
"""Bytes of a secret."""


def doubt(path: Path, *, folder: bool = False) -> str | None:
    """Why what is at `path` must not be believed, None where it may: it is ours, and nobody else can write it."""
    found = path.lstat()
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(found.st_mode) else f"is no {'folder' if folder else 'file'}"
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}, this is {os.geteuid()})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w it, or build again"
    return None


def secret() -> bytes | None:
    """What is in the file that $STREAM_SEG_CACHE_KEY names, None where it names none. Raises ConfigError."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = at_home(Path(named))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for
        with open(descriptor, "rb") as file:
            if reason := _open_to_others(os.fstat(descriptor)):
                raise ConfigError(f"${VARIABLE}: {path} {reason}")
            held = file.read(MOST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"${VARIABLE}: cannot read {path}: {getattr(error, 'strerror', error)}") from error
    if not LEAST <= len(held) <= MOST:
        raise ConfigError(f"${VARIABLE}: {path} holds {len(held)} bytes; {LEAST} to {MOST} make a secret")
    return held


def _open_to_others(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to another user (uid {found.st_uid})"
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):o}); chmod 600 it"
    return None


def sealed(entry: Entry, held: bytes | None) -> Entry:
    """The entry with the seal of a secret, as it is without one."""
    return entry if held is None else entry.model_copy(update={"seal": _seal(entry, held)})


def seal_doubt(entry: Entry, held: bytes | None) -> str | None:
    """Why a secret does not vouch for an entry, None where it does or there is none."""
    if held is None:
        return None
    if entry.seal is None:
        return f"it was built without a key, and ${VARIABLE} is set"
    return None if hmac.compare_digest(entry.seal, _seal(entry, held)) else f"its seal is not that of ${VARIABLE}"


def _seal(entry: Entry, held: bytes) -> str:
    said = entry.model_dump_json(exclude={"seal"})
    return hmac.digest(held, said.encode(), hashlib.sha256).hex()
