"""The worker processes of an embedder: started, commanded, started again when one has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.inference.remote_runner import RowRequest, map_arena, open_arena, rows_in
from sensebind.fusion.inference.row_engine import RowEngine
from sensebind.fusion.stream.row_queue import RowQueue
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.nodes.robots.link import Command, Done, Link, WorkerSetup

START_TIMEOUT = 60.0  # s in which a new worker must carry out its first command: it imports PyTorch
COMMAND_TIMEOUT = 10.0  # s in which a worker must carry out any other command
STOP_TIMEOUT = 7.0  # s in which a worker must end; after 10 s, launch kills the embedder, which could not kill it then
PING_TIMEOUT = 3.0  # s without an answer after which a worker hangs
RESTART_INTERVAL = 2.0  # s from one start of a worker to the next
# Not `python -m`, because classes of a module that is run as a program cannot be sent. `end_process`: the interpreter
# would spend a second on the end of its modules, for which launch may not wait.
RUN_MAIN = (
    "import sys; from sensebind.nodes.support.run import end_process; status = main(sys.argv[1:]); "
    "sys.stdout.flush(); sys.stderr.flush(); end_process(status)"
)


class WorkerError(SensebindError):
    """A worker process cannot do its work."""


@contextmanager
def blocked_signals() -> Iterator[None]:
    """A process that is started in this block ignores Ctrl-C from its first moment: it inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerProcess:
    """One worker process, and its rows that wait for the engine.

    `module`: its `main` runs in the process. Its arguments are the descriptors of the connection and of the shared
    memory (`WorkerEnd`).
    """

    def __init__(self, name: str, module: str = "sensebind.nodes.robots.worker") -> None:
        self.name = name
        self._is_configured = False
        self._pinged_at: float | None = None  # `time.monotonic`, s, of a ping without an answer
        self._queue: RowQueue | None = None
        self._answers: SimpleQueue[Done | None] = SimpleQueue()
        program = f"from {module} import main; {RUN_MAIN}"
        ours, theirs = socket.socketpair()
        arena = open_arena()
        try:
            with blocked_signals():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", program, str(theirs.fileno()), str(arena)],
                    pass_fds=[theirs.fileno(), arena],
                    # The modules that this process would import, and no others.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONSAFEPATH": "1"},
                )
        finally:
            theirs.close()
            self._arena = map_arena(arena)
        self._link = Link(ours.detach(), self._on_message, lambda: self._answers.put(None))

    @property
    def process_id(self) -> int:
        """The id of the process."""
        return self._process.pid

    def ended(self) -> str:
        """How the process ended; empty while it runs."""
        status = self._process.poll()
        return "" if status is None else f"signal {-status}" if status < 0 else f"exit status {status}"

    def serve_rows(self, engine: RowEngine, scheduler: Scheduler) -> None:
        """Let `scheduler` embed the rows of this process."""
        self._queue = RowQueue(engine, self._link.send)
        self._notify = scheduler.notify
        scheduler.add(self._queue)

    def send(self, command: Command) -> None:
        """Send a command, and do not wait for its end."""
        self._link.send(command)

    def wait(self, command: str, since: float, timeout: float | None = None) -> Any:
        """Wait for the end of a command that was sent at `since` (`time.monotonic`, s). Returns its result. Raises
        `WorkerError` if it, or an earlier one that nothing waited for, failed or takes longer than `timeout` s (None:
        as long as a command may take)."""
        if timeout is None:
            timeout = COMMAND_TIMEOUT if self._is_configured else START_TIMEOUT
        while True:
            try:
                done = self._next_answer(max(0.0, since + timeout - time.monotonic()))
            except Empty:
                raise WorkerError(f"{self.name} did not {command} within {timeout:g} s") from None
            if done is None:
                raise WorkerError(f"{self.name} ended while it had to {command} ({self.ended() or 'no connection'})")
            if done.command == command:
                return done.result

    def check(self) -> None:
        """Raises `WorkerError` if a command failed that nothing waited for."""
        with suppress(Empty):
            while self._next_answer(0.0):
                pass

    def _next_answer(self, timeout: float) -> Done | None:
        """The answer to the next command; None if the process has ended. Raises `Empty` after `timeout` seconds, and
        `WorkerError` if the command failed."""
        answer = self._answers.get(timeout=timeout)
        if answer is None:
            self._answers.put(None)  # for the next call
            return None
        if answer.error:
            raise WorkerError(f"{self.name} could not {answer.command}: {answer.error}")
        self._is_configured = True
        if answer.command == "ping":
            self._pinged_at = None
        return answer

    def is_responding(self) -> bool:
        """Whether the process answers. Call it, after `check`, about once a second."""
        now = time.monotonic()
        if self._pinged_at is None and self._is_configured:
            self._pinged_at = now
            self.send(Command("ping"))
        return self._pinged_at is None or now - self._pinged_at < PING_TIMEOUT

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def stop(self) -> bool:
        """End the process, which publishes the remaining embeddings. Kill it if it does not end by itself, or still
        imports its modules. Returns whether no window was lost."""
        self._link.send(Command("stop"))
        try:
            self._process.wait(STOP_TIMEOUT if self._is_configured else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.discard()
        return not self._is_configured or self._process.returncode == 0

    def discard(self) -> None:
        """Forget the rows of a process that has ended."""
        self._link.close()
        if self._queue is not None:
            self._queue.clear()

    def leave(self, scheduler: Scheduler) -> None:
        """Let `scheduler` serve this process no longer."""
        if self._queue is not None:
            scheduler.remove(self._queue)

    def _on_message(self, message: Any) -> None:
        """In the receiving thread of the link."""
        if isinstance(message, RowRequest):
            assert self._queue is not None
            self._queue.put(message, rows_in(self._arena, message))
            self._notify()
        else:
            self._answers.put(message)


class Workers:
    """All workers of an embedder. Use it in one thread.

    `count`: how many are wanted; at most one for each of the `robots` is started. `log_error` is called with each
    problem.
    """

    def __init__(self, count: int, robots: int, log_error: Callable[[str], None]) -> None:
        """Start the processes. They import modules until `configure`."""
        self.restarts = 0
        self.is_stuck = False  # whether a thread of the scheduler was left behind by `close`
        self.has_lost_windows = False  # whether `close` gave windows up
        self.hanging: set[str] = set()  # names of the workers that do not answer
        self._log_error = log_error
        self._shares = [list(range(robots))[first :: min(count, robots)] for first in range(min(count, robots))]
        self._started_at = [time.monotonic()] * len(self._shares)
        self._active = False
        self._scheduler: Scheduler | None = None
        self._processes: list[WorkerProcess] = []
        try:
            for index in range(len(self._shares)):
                self._processes.append(WorkerProcess(self._name(index)))
        except BaseException:  # a signal too: nobody else knows of these processes
            self.close()
            raise

    def configure(self, setup: WorkerSetup, engine: RowEngine) -> None:
        """Make the nodes of all robots. `setup` has the namespaces of all; each worker gets some of them. Raises
        `WorkerError`."""
        self._setup, self._engine = setup, engine
        self._scheduler = Scheduler(engine)
        now = time.monotonic()
        for index in range(len(self._processes)):
            self._begin(index)
        for worker in self._processes:
            worker.wait("configure", now)

    def activate(self) -> None:
        """Subscribe to the sensors of all robots. A worker that does not answer is logged: the other robots go on."""
        self.restart_ended(0.0)  # one may have ended while the node was inactive
        self._active = True
        self._carry_out("activate")

    def deactivate(self) -> None:
        """Unsubscribe, and publish the remaining embeddings. A worker that does not answer is logged."""
        self._active = False
        self._carry_out("deactivate")

    def _carry_out(self, command: str) -> None:
        """Let all workers carry out a command at the same time."""
        now = time.monotonic()
        for worker in self._processes:
            worker.send(Command(command))
        for worker in self._processes:
            try:
                worker.wait(command, now)
            except WorkerError as error:
                self._log_error(str(error))

    def apply_values(self, values: dict[str, Any]) -> None:
        """Use new values of the parameters that take effect at once."""
        self._setup = replace(self._setup, values=values)
        for worker in self._processes:
            worker.send(Command("apply_values", values))

    def set_clock(self, use_sim_time: bool) -> None:
        """Let the nodes of all robots use the time of `/clock`, or that of the system."""
        self._setup = replace(self._setup, use_sim_time=use_sim_time)
        for worker in self._processes:
            worker.send(Command("use_sim_time", use_sim_time))

    def restart_ended(self, interval: float = RESTART_INTERVAL) -> None:
        """Start each worker again that has ended, at the earliest `interval` seconds after its last start. Call it
        about once a second."""
        for index, worker in enumerate(self._processes):
            try:
                worker.check()
            except WorkerError as error:  # that of a worker which was started again: it has no robots
                self._log_error(str(error))
                worker.kill()
            ended, now = worker.ended(), time.monotonic()
            self._note_response(worker.name, bool(ended) or worker.is_responding(), index)
            if not ended or now - self._started_at[index] < interval:
                continue
            robots = ", ".join(self._namespaces(index))
            self._log_error(f"{worker.name} for {robots} has ended ({ended}): it is started again")
            self.restarts += 1
            self._started_at[index] = now
            worker.discard()
            assert self._scheduler is not None
            worker.leave(self._scheduler)
            try:
                self._processes[index] = WorkerProcess(worker.name)
            except OSError as error:  # no memory, or no descriptors: tried again
                self._log_error(f"{worker.name} cannot be started: {error}")
                continue
            self._begin(index)
            if self._active:
                self._processes[index].send(Command("activate"))

    def _note_response(self, name: str, responds: bool, index: int) -> None:
        if responds:
            self.hanging.discard(name)
        elif name not in self.hanging:
            self.hanging.add(name)
            robots = ", ".join(self._namespaces(index))
            self._log_error(f"{name} for {robots} does not answer: it is stopped, or the machine is too busy")

    def process_ids(self) -> dict[str, int]:
        """Name → process id of each worker."""
        return {worker.name: worker.process_id for worker in self._processes}

    def close(self) -> None:
        """End all processes, and the scheduler. Takes at most a second longer than `STOP_TIMEOUT`. A worker that does
        not end in order is logged."""
        stop_waiting_at = time.monotonic() + STOP_TIMEOUT + 0.5
        with ThreadPoolExecutor(len(self._processes) or 1) as pool:
            in_order = list(pool.map(WorkerProcess.stop, self._processes))
        for worker, is_complete in zip(self._processes, in_order, strict=True):
            if not is_complete:
                self._log_error(f"{worker.name} did not end in order ({worker.ended()}): its last windows are lost")
        if self._scheduler is not None:
            self._scheduler.stop_waiting_at = stop_waiting_at
            self._scheduler.close()
            self.is_stuck = self._scheduler.is_stuck
        self.has_lost_windows = self.is_stuck or not all(in_order)

    def _begin(self, index: int) -> None:
        """Serve the rows of a process, and let it make the nodes of its robots."""
        assert self._scheduler is not None
        worker = self._processes[index]
        worker.serve_rows(self._engine, self._scheduler)
        worker.send(Command("configure", replace(self._setup, namespaces=self._namespaces(index))))

    def _namespaces(self, index: int) -> list[str]:
        return [self._setup.namespaces[robot] for robot in self._shares[index]]

    @staticmethod
    def _name(index: int) -> str:
        return f"worker {index + 1}"
