"""The answer of /healthz, of the page and of the metrics server."""

from __future__ import annotations

from collections.abc import Sequence


def answer_health(stalls: Sequence[str], *, secret: bool) -> tuple[int, str]:
    """Return status and text: 200, or 503 with a line for each stage that makes no progress.

    With `secret`, the text names no stage: a server with a token answers /healthz without it.
    """
    if not stalls:
        return 200, "ok\n"
    return 503, "a stage makes no progress; the log names it\n" if secret else "".join(f"{line}\n" for line in stalls)
