"""A thread for work that takes too long for the executor's thread, which receives the messages of the sensors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class BackgroundThread:
    """Does work in a thread of its own, one piece after the other. The thread does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Do `work` after all earlier work. The future has its result or its error."""
        future: Future[Any] = Future()
        self._queue.put((work, future))
        return future

    def close(self, seconds: float) -> bool:
        """End the thread after the work that was submitted. Waits at most `seconds`; returns whether it has ended."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:  # of a model; the caller reports it
                future.set_exception(error)
            del item, work, future  # they hold the model
