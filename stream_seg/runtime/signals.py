"""End of a program on SIGINT and SIGTERM, at any moment of its life."""

from __future__ import annotations

import os
import signal
from threading import Event, Lock, Thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Handle SIGINT and SIGTERM while the body runs. A second signal ends the program at once.

    The first one sets the event `stop`. As long as there is none, the program has opened nothing, and ends with exit
    code 0. A thread handles them: Python's own handlers wait for the main thread, which may be inside of a library.
    """

    def __init__(self, stop: Event | None = None) -> None:
        self._lock, self._stop, self._received = Lock(), stop, 0

    def __enter__(self) -> StopSignals:
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = Thread(target=self._read, args=(reading,), name="signals", daemon=True)
        self._thread.start()
        self._descriptor = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        os.close(self._writing)
        self._thread.join()

    def stop_with(self, stop: Event) -> None:
        """Set `stop` at a signal from now on: whoever waits for it closes what is open, and the program ends."""
        with self._lock:
            self._stop = stop

    def _read(self, descriptor: int) -> None:
        """Handle the signals whose numbers the system's handler writes to the pipe, until the pipe is closed."""
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] in SIGNALS:
                    self._handle(number[0])

    def _handle(self, number: int) -> None:
        with self._lock:
            self._received += 1
            if self._received > 1:
                os._exit(128 + number)
            if self._stop is None:
                os._exit(0)
            self._stop.set()
