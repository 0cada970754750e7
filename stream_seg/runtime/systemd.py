"""Notify systemd of the state of this program: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify_systemd(state: str) -> None:
    """Send a state, such as READY=1, WATCHDOG=1 or STOPPING=1, if systemd started the program. Raises nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(1.0)
        channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
