"""What may be said of what somebody typed: an address without its password, in one line, and not too long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

LONGEST_QUOTED = 80
"""Characters of a value that an error repeats."""

SECRET = re.compile(r"((?:user|login|pass|pwd|psw|pw|token|key|auth|secret|sig|cred)[^=/]*=)[^/]*", re.IGNORECASE)
_BARE_USER = re.compile(r"^[^@]*:.*@", re.DOTALL)
_CUT_SHORT = re.compile(r"^([^/?#:\[]*:)(?!\d*(?:[/?#]|$))[^/?#]+")
_WORD = re.compile(r"[^\s'\"]+")
_SCHEME = re.compile(r".*?(?<![A-Za-z0-9+.-])(?P<name>[A-Za-z][A-Za-z0-9+.-]*):/{1,2}")
_BARE = re.compile(r"^[A-Za-z][\w.+=-]*:(?!\\).*@")
_NO_USER = re.compile(r"([^/?#:@\[]+|\[[^\]]*\](:\d+)?)[/?#]")
"""A host and no port, which might be a password that begins with digits."""
_PATTERN = re.compile(r"USER(:PASSWORD)?@")
"""How our own sentences say where a user and a password belong."""


def without_secrets(text: str) -> str:
    """What somebody typed, fit to be shown: without the user and password of an address, with or without its scheme,
    and without the value of what is called like a secret."""
    # The first :// counts: a second one may stand in the password.
    scheme, mark, rest = text.partition("://")
    # Of an address that ends before its host, what reads like a port is the password.
    shown = _CUT_SHORT.sub(r"\1…", split_user(rest)[1]) if mark else _BARE_USER.sub("…@", text)
    path, query, _ = shown.partition("?")
    before = _BARE_USER.sub("…@", scheme) + mark if mark else ""
    return before + SECRET.sub(r"\1…", path) + ("?…" if query and "=" in shown else query)


def discreet(text: str) -> str:
    """A whole message without what may be a password in it: whoever wrote it may have meant a file, and had an address.

    It reads a path as well that was an address once, with one slash after its scheme. A password with a blank in it is
    for `without_secrets`, where what was typed is still one.
    """
    return _WORD.sub(lambda word: _discreet_word(word[0]), text)


def _discreet_word(word: str) -> str:
    scheme = _SCHEME.match(word)
    if scheme is None:
        return _BARE.sub("…@", word)
    if scheme["name"].lower() in ("file", "synth"):
        return word
    rest = word[scheme.end() :]
    if not (_NO_USER.match(rest) or _PATTERN.match(rest)):
        rest = re.sub("^.*@", "…@", rest)
    path, mark, query = rest.partition("?")
    return scheme[0] + SECRET.sub(r"\1…", path) + (f"{mark}…" if "=" in query else mark + query)


def quoted(value: object) -> str:
    """A value of a graph file, fit for an error: an address may stand anywhere in it, so of a mapping, and of a list
    that is more than a few numbers, only the kind is said."""
    if isinstance(value, str):
        shown = without_secrets(value)
        return repr(shown if len(shown) <= LONGEST_QUOTED else f"{shown[:LONGEST_QUOTED]}…")
    numbers = value[:5] if isinstance(value, list | tuple) else [value]
    if len(numbers) < 5 and all(one is None or isinstance(one, int | float) for one in numbers):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def split_user(rest: str) -> tuple[str, str]:
    """(user:password, host and path), in doubt taking more for the password: showing too little of an address
    is safe, too much is not."""
    user, mark, location = rest.rpartition("@")
    if mark and (":" in user or not re.search(r"[/?#]", user)):
        return user, location
    return "", rest


def printable(text: str) -> str:
    """In one line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def named(key: str, path: Path) -> str:
    """A key that names the file of a secret, and the file; without it where it may be the secret itself."""
    return f"{key}: {path}" if len(path.parts) > 1 else f"{key} (not repeated: it may be the secret itself)"
