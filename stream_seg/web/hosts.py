"""Which addresses only this machine reaches, and which names of it a request may use."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def in_address(host: str) -> str:
    """A host as an address with a port has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def known_host(host: str, names: Collection[str]) -> bool:
    """Whether a `Host` is localhost, an address (which no foreign name can pretend to be) or one of the names."""
    name = re.sub(r":\d+$", "", host).lower()
    if name == "localhost" or name in {n.lower() for n in names}:
        return True
    try:
        return bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
