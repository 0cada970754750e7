"""Redact credentials from URLs and user input before they are logged or shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MAX_QUOTED = 80
"""Characters of a value that an error repeats."""

SECRET = re.compile(r"((?:user|login|pass|pwd|psw|pw|token|key|auth|secret|sig|cred)[^=/]*=)[^/]*", re.IGNORECASE)
"""A parameter whose name suggests a secret, and its value."""
_BARE_USER = re.compile(r"^[^@]*:.*@", re.DOTALL)
_TRUNCATED = re.compile(r"^([^/?#:\[]*:)(?!\d*(?:[/?#]|$))[^/?#]+")
_WORD = re.compile(r"[^\s'\"]+")
_SCHEME = re.compile(r".*?(?<![A-Za-z0-9+.-])(?P<name>[A-Za-z][A-Za-z0-9+.-]*):/{1,2}")
_BARE = re.compile(r"^[A-Za-z][\w.+=-]*:(?!\\).*@")
_NO_USER = re.compile(r"([^/?#:@\[]+|\[[^\]]*\](:\d+)?)[/?#]")
"""A host without a port: a port might be a password that begins with digits."""
_PATTERN = re.compile(r"USER(:PASSWORD)?@")
"""The form in which messages of this package show a user and a password."""


def redact_secrets(text: str) -> str:
    """Return user input without the user and password of an address, which may lack its scheme, and without values of
    secret parameters."""
    # The first :// counts: a second one may be part of the password.
    scheme, mark, rest = text.partition("://")
    # In an address that ends before its host, the text in place of the port is the password.
    shown = _TRUNCATED.sub(r"\1…", split_user(rest)[1]) if mark else _BARE_USER.sub("…@", text)
    path, query, _ = shown.partition("?")
    before = _BARE_USER.sub("…@", scheme) + mark if mark else ""
    return before + SECRET.sub(r"\1…", path) + ("?…" if query and "=" in shown else query)


def redact_message(text: str) -> str:
    """Return a whole message without possible passwords: it may quote an address where a file was expected.

    Also recognizes an address that was normalized as a path, with one slash after its scheme. A password that contains
    a space is left to `redact_secrets`, which is applied to the input itself.
    """
    return _WORD.sub(lambda word: _redact_word(word[0]), text)


def _redact_word(word: str) -> str:
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


def quote_value(value: object) -> str:
    """Return a value of a graph file for an error message. An address may be anywhere in it, so mappings, and lists
    other than a few numbers, are named by their type only."""
    if isinstance(value, str):
        shown = redact_secrets(value)
        return repr(shown if len(shown) <= MAX_QUOTED else f"{shown[:MAX_QUOTED]}…")
    numbers = value[:5] if isinstance(value, list | tuple) else [value]
    if len(numbers) < 5 and all(item is None or isinstance(item, int | float) for item in numbers):
        return repr(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def split_user(rest: str) -> tuple[str, str]:
    """Return (user:password, host and path) of an address without its scheme. In doubt a part counts as password: it is
    safe to show too little of an address, but not too much."""
    user, mark, location = rest.rpartition("@")
    if mark and (":" in user or not re.search(r"[/?#]", user)):
        return user, location
    return "", rest


def to_one_line(text: str) -> str:
    """Replace unprintable characters, line breaks among them, by question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def name_secret_file(key: str, path: Path) -> str:
    """Return a key and the path of its secret file, for a message; without the path if it may be the secret itself."""
    return f"{key}: {path}" if len(path.parts) > 1 else f"{key} (not repeated: it may be the secret itself)"
