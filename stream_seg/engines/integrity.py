"""Decide whether a file of the engine cache can be trusted: by its owner and mode, and by a secret if one is set.

$STREAM_SEG_CACHE_KEY names a file with a secret. With it an engine is loaded only if its JSON, which holds the SHA-256
of the engine, carries the HMAC-SHA-256 (RFC 2104) of that secret: nothing that others put into the cache is loaded. An
older engine of the same owner that somebody put back still is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from stream_seg.engines.cache_entry import Entry
from stream_seg.errors import ConfigError
from stream_seg.files import expand_home

VARIABLE = "STREAM_SEG_CACHE_KEY"
LEAST, MOST = 16, 4096
"""Size of a secret in bytes."""


def explain_distrust(path: Path, *, folder: bool = False) -> str | None:
    """Return the reason not to trust `path`, None if it belongs to this user and nobody else can write to it."""
    status = path.lstat()
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(status.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(status.st_mode) else f"is not a {'folder' if folder else 'file'}"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid}, this is {os.geteuid()})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"is writable by others (mode {stat.S_IMODE(status.st_mode):o}); chmod go-w it, or build again"
    return None


def read_secret() -> bytes | None:
    """Return the content of the file that $STREAM_SEG_CACHE_KEY names, None if it names none. Raises ConfigError."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    path = expand_home(Path(name))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would block
        with open(descriptor, "rb") as file:
            if reason := _explain_exposure(os.fstat(descriptor)):
                raise ConfigError(f"${VARIABLE}: {path} {reason}")
            secret = file.read(MOST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"${VARIABLE}: cannot read {path}: {getattr(error, 'strerror', error)}") from error
    if not LEAST <= len(secret) <= MOST:
        raise ConfigError(f"${VARIABLE}: {path} has {len(secret)} bytes; a secret has {LEAST} to {MOST}")
    return secret


def _explain_exposure(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"is accessible to others (mode {stat.S_IMODE(status.st_mode):o}); chmod 600 it"
    return None


def seal_entry(entry: Entry, secret: bytes | None) -> Entry:
    """Return the entry with the seal of `secret`, unchanged without one."""
    return entry if secret is None else entry.model_copy(update={"seal": _compute_seal(entry, secret)})


def explain_bad_seal(entry: Entry, secret: bytes | None) -> str | None:
    """Return the reason why `secret` does not vouch for an entry; None if it does, or if there is no secret."""
    if secret is None:
        return None
    if entry.seal is None:
        return f"it was built without a key, and ${VARIABLE} is set"
    matches = hmac.compare_digest(entry.seal, _compute_seal(entry, secret))
    return None if matches else f"its seal does not match ${VARIABLE}"


def _compute_seal(entry: Entry, secret: bytes) -> str:
    return hmac.digest(secret, entry.model_dump_json(exclude={"seal"}).encode(), hashlib.sha256).hex()
