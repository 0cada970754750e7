"""Loopback addresses, and the host names that a request may use."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def format_host(host: str) -> str:
    """Return a host for a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_allowed_host(host: str, names: Collection[str]) -> bool:
    """Return True if a `Host` header is localhost, an IP address, which DNS rebinding cannot fake, or one of `names`.

    Starlette's TrustedHostMiddleware cannot express "any IP address", and the metrics server is no ASGI application.
    """
    name = re.sub(r":\d+$", "", host).lower()
    try:
        return name in {"localhost", *(n.lower() for n in names)} or bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
