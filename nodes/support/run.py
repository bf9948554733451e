"""Runs every executable until SIGINT or SIGTERM, and keeps the middleware up while the node finishes."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeVar

import rclpy
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions

from sensebind.fusion.config.files import check_parameter_file
from sensebind.fusion.core.errors import SensebindError, is_of_a_file, printable
from sensebind.fusion.core.freed_memory import freed_memory_returned
from sensebind.nodes.support.guards.executor import GuardedExecutor
from sensebind.nodes.support.guards.log_limit import LogLimit
from sensebind.nodes.support.parameter_files import parameter_files, with_source_file
from sensebind.nodes.support.transport import remove_shared_memory

N = TypeVar("N", bound=Node)
ACKNOWLEDGEMENT_TIMEOUT = 1.0  # s in which the last messages of a node may reach its subscribers
MAX_LINE_LENGTH = 2000  # characters of a line in the log
# s in which a process ends after its first signal, or is ended with status 1: 10 s after it, launch would kill it.
EXIT_TIMEOUT = 9.0
EXIT_STEP = 0.1  # s
ACKNOWLEDGEMENT_POLL = Duration(seconds=0.05)  # rclpy holds the interpreter lock while it waits


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived in a block that is `interruptible`. Not an `Exception`: only `run_node` handles it."""


class ArgumentError(SensebindError):
    """ROS itself refuses the command line or a parameter file."""


def rcl_reason(error: Exception) -> str:
    """The message of an error of rcl, without the places in its source."""
    text = re.sub(r", at \S+:\d+", "", " ".join(str(error).split()))
    return printable(text.removeprefix("failed to initialize rcl: "), MAX_LINE_LENGTH)


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


def end_process(status: int) -> NoReturn:
    """End this process at once. Threads that never end would keep it alive otherwise."""
    remove_shared_memory()
    os._exit(status)


@contextmanager
def exit_deadline(executable: str) -> Iterator[None]:
    """End this process with status 1 if this block still runs `EXIT_TIMEOUT` after the first signal that arrives in it.

    Python runs a signal handler in the main thread, which may be stuck in a library that loads a model, or wait for a
    thread that never ends. So a thread is woken by the signal itself. It counts steps: time in which the process is
    stopped or gets no CPU time does not count. `executable`: its name in the log.
    """
    signals, waker = os.pipe()
    os.set_blocking(waker, False)
    over = threading.Event()

    def watch() -> None:
        number = 0
        while number not in (signal.SIGINT, signal.SIGTERM):
            if not (arrived := os.read(signals, 1)):
                os.close(signals)
                return
            number = arrived[0]
        for _ in range(round(EXIT_TIMEOUT / EXIT_STEP)):
            if over.wait(EXIT_STEP):
                return
        text = f"did not end in {EXIT_TIMEOUT:g} s after {signal.Signals(number).name}: its last messages are lost"
        os.write(2, f"[FATAL] [{time.time():.9f}] [{executable}]: {text}\n".encode())  # waits for no lock
        end_process(1)

    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    threading.Thread(target=watch, name="exit deadline", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(waker)


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
    try:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # of rcl: a wrong argument, or a file that it cannot parse
            raise ArgumentError(f"ROS cannot use the arguments of this process: {rcl_reason(error)}") from error
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
    executor = GuardedExecutor(node.get_logger())
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
    are on /rosout. They may come from any thread. What fails at each window, or changes with each message, cannot fill
    the log: each place in the code has a `LogLimit`."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        self._limit = LogLimit()
        self._left_out: Counter[tuple[str, int]] = Counter()  # place in the code → records left out since its last line

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # as all handlers: a message must not end the program
            place = record.name, record.lineno
            if not self._limit.allows(place, time.monotonic()):
                self._left_out[place] += 1
                return
            text = printable(record.getMessage(), MAX_LINE_LENGTH)  # it may quote a message or a file
            if left_out := self._left_out.pop(place, 0):
                text += f"; {left_out} of this kind were not logged"
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
    destroyed and rclpy is shut down, or the process ends with status 1 (`exit_deadline`).
    """
    logger, node = get_logger(name), None
    try:
        for file in parameter_files(sys.argv if args is None else args):
            check_parameter_file(file)  # the errors of rcl name no key
        with exit_deadline(name), rclpy_context(args) as stop:
            try:
                with suppress(Interrupted):
                    with interruptible():
                        node = make()
                    logger = node.get_logger()
                    with logging_to(logger), freed_memory_returned():
                        serve(node, stop)
                if node is not None:
                    wait_for_acknowledgements(finish(node) or ())
                if stop.signal_name:
                    logger.info(f"stopped by {stop.signal_name}")
            finally:
                if node is not None:
                    node.destroy_node()
    except (SensebindError, ModuleNotFoundError) as error:
        logger.fatal(with_source_file(str(error)))
        return 1
    except OSError as error:
        if not is_of_a_file(error):
            raise
        logger.fatal(printable(error, MAX_LINE_LENGTH))
        return 1
    return 0
