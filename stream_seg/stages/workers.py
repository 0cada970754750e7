"""Threads for work that a stage does on several frames at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class Workers(Executor):
    """Call functions in `count` daemon threads, in the order of `submit`. A context manager: at its end, calls that
    have not begun are cancelled, and those under way are waited for.

    A call that hangs in foreign code hangs its stage, but not the end of the program, as it would in a
    ThreadPoolExecutor, whose threads are no daemons.
    """

    def __init__(self, count: int, *, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._futures: set[Future[Any]] = set()
        self._threads = [Thread(target=self._run, name=f"{name} {i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **keys: P.kwargs) -> Future[T]:
        """Call a function in one of the threads."""
        future: Future[T] = Future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **keys))
            except BaseException as error:  # noqa: BLE001 - raised where the result is read
                future.set_exception(error)

        self._calls.put(call)
        return future

    def __exit__(self, *_: object) -> None:
        for future in tuple(self._futures):
            future.cancel()
        for _thread in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
