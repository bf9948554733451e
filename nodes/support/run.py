"""Runs every executable until SIGINT or SIGTERM, and keeps the middleware up while the node finishes."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions

from sensebind.fusion.config.files import section_names
from sensebind.fusion.core.errors import SensebindError, printable
from sensebind.nodes.support.parameter_files import parameter_files

N = TypeVar("N", bound=Node)
ACKNOWLEDGEMENT_TIMEOUT = 1.0  # s in which the last messages of a node may reach its subscribers
MAX_LINE_LENGTH = 2000  # characters of a line in the log
ACKNOWLEDGEMENT_POLL = Duration(seconds=0.05)  # rclpy holds the interpreter lock while it waits


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived in a block that is `interruptible`. Not an `Exception`: only `run_node` handles it."""


class StopFlag:
    """A flag that a signal handler may set. Threads wait for it.

    A handler interrupts the main thread anywhere, also inside `wait`. `threading.Event` would then wait for its own
    lock for ever. `SimpleQueue.put` is reentrant and takes no lock that the interrupted thread may hold.
    """

    def __init__(self) -> None:
        self.signal_name = ""  # of the signal that set it
        self.raises = False  # whether a signal raises `Interrupted` in the main thread
        self._is_set = False
        self._wakers: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Set the flag. It stays set."""
        self._is_set = True
        self._wakers.put(None)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, for at most `seconds`; returns whether it is."""
        if not self._is_set:
            try:
                self._wakers.get(timeout=max(0.0, seconds))
            except Empty:
                return self._is_set
            self._wakers.put(None)  # for other threads that wait
        return True


_process_stop: StopFlag | None = None  # the flag that signals set; there is one, because a process has one handler


@contextmanager
def rclpy_context(args: list[str] | None = None) -> Iterator[StopFlag]:
    """Initialise rclpy, and shut it down at the end of the block. Yields a `StopFlag` that SIGINT and SIGTERM set.

    rclpy's own handlers would shut the middleware down at once, and a node could not publish its last messages.
    """
    global _process_stop
    _process_stop = stop = StopFlag()

    def on_signal(number: int, frame: object) -> None:
        first, stop.signal_name = not stop.is_set(), signal.Signals(number).name
        stop.set()
        if first and stop.raises:
            raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield stop
    finally:
        # Launch and the terminal may both send a signal: the second one must not abort a clean shutdown.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        rclpy.try_shutdown()
        _process_stop = None


@contextmanager
def interruptible() -> Iterator[None]:
    """In this block, the first SIGINT or SIGTERM raises `Interrupted`, also one that arrived before it.

    For long work that `run_node` cannot wait for, such as loading a model. Does nothing outside of `run_node`.
    """
    stop = _process_stop
    if stop is None:
        yield
        return
    stop.raises = True
    try:
        if stop.is_set():
            raise Interrupted
        yield
    finally:
        stop.raises = False


def spin(node: Node, stop: StopFlag, begin: Callable[[], None] = lambda: None) -> None:
    """Serve the node's callbacks in this thread until `stop` is set. `begin` runs before, when the node has its
    executor."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        begin()
        while not stop.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.remove_node(node)
        executor.shutdown()


def wait_for_acknowledgements(publishers: Iterable[Publisher], timeout: float = ACKNOWLEDGEMENT_TIMEOUT) -> None:
    """Wait until the subscribers of these reliable publishers have acknowledged all messages, for at most `timeout` s.

    Destroying a publisher drops the messages that were not acknowledged. Fast DDS asks for acknowledgements every 3 s,
    so this mostly waits for the whole timeout, in which a busy subscriber receives the messages.
    """
    deadline = time.monotonic() + timeout
    for publisher in publishers:
        while publisher.get_subscription_count() and time.monotonic() < deadline:
            if has_acknowledgements(publisher, ACKNOWLEDGEMENT_POLL):
                break


def has_acknowledgements(publisher: Publisher, timeout: Duration) -> bool:
    """Wait until the subscribers of a reliable publisher have acknowledged all messages, for at most `timeout`. Returns
    whether they have. True at once if the middleware has no acknowledgements."""
    try:
        return bool(publisher.wait_for_all_acked(timeout))
    except RuntimeError:  # not every middleware has acknowledgements
        return True


class RosLogHandler(logging.Handler):
    """Passes records of Python's logging to a logger of ROS: then they have a time, a level and the node's name, and
    are on /rosout. They may come from any thread."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # as all handlers: a message must not end the program
            text = printable(record.getMessage(), MAX_LINE_LENGTH)  # it may quote a message or a file
            if record.levelno >= logging.ERROR:  # rclpy wants one line of code for each level
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            else:
                self._logger.info(text)


@contextmanager
def logging_to(logger: Any) -> Iterator[None]:
    """Pass the records of all `sensebind` packages to `logger` during the block."""
    handler, source = RosLogHandler(logger), logging.getLogger("sensebind")
    before, source.propagate = source.propagate, False
    source.addHandler(handler)
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.propagate = before


def run_node(
    name: str,
    make: Callable[[], N],
    args: list[str] | None = None,
    *,
    serve: Callable[[N, StopFlag], None] = spin,
    finish: Callable[[N], Iterable[Publisher] | None] = lambda node: None,
) -> int:
    """Run an executable from start to end; returns its exit status.

    `make` builds the node. `serve(node, stop)` runs it, and returns once `stop` is set or its work is done. Then
    `finish(node)` runs while the middleware is still up; it may return publishers whose last messages must arrive.
    `name` is the name of the logger until the node exists. The status is 0, or 1 after a `SensebindError` or a
    `ModuleNotFoundError`, whose message is logged without a traceback. A signal is logged in one line and may arrive at
    any time, also during `make` and while `serve` configures the node (`interruptible`). In every case the node is
    destroyed and rclpy is shut down.
    """
    try:
        for file in parameter_files(sys.argv if args is None else args):
            section_names(file)  # rclpy would end with a traceback if it cannot read the file
    except SensebindError as error:
        get_logger(name).fatal(str(error))
        return 1
    with rclpy_context(args) as stop:
        logger, node = get_logger(name), None
        try:
            with suppress(Interrupted):
                with interruptible():
                    node = make()
                logger = node.get_logger()
                with logging_to(logger):
                    serve(node, stop)
            if node is not None:
                wait_for_acknowledgements(finish(node) or ())
            if stop.signal_name:
                logger.info(f"stopped by {stop.signal_name}")
        except (SensebindError, ModuleNotFoundError) as error:
            logger.fatal(str(error))
            return 1
        finally:
            if node is not None:
                node.destroy_node()
    return 0
