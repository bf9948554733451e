"""The connection between an embedder and a process that works for it: messages in order, in both directions."""

from __future__ import annotations

import signal
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.threads import set_switch_interval
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.inference.remote_runner import RemoteRunner, RemoteSpace, RowReply, SpaceDescription, map_arena
from sensebind.fusion.stream.memory.budget import WorkerPart


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker process needs for its robots.

    `values`: the embedder's parameters. `memory`: the part of each worker. `node_name`, `namespaces`: of the nodes, one
    for each robot. `ros_arguments`: those for the nodes, such as remapping rules. `process_arguments`: those of the
    embedder's process, without parameter files.
    """

    values: Mapping[str, Any]
    memory: WorkerPart
    space: SpaceDescription
    node_name: str
    namespaces: Sequence[str]
    ros_arguments: Sequence[str]
    process_arguments: Sequence[str]
    use_sim_time: bool


@dataclass(frozen=True, slots=True)
class Command:
    """What a worker must do: `configure` (argument: `WorkerSetup`), `activate`, `deactivate`, `apply_values` (argument:
    values), `use_sim_time` (a boolean), `ping` (nothing) or `stop`. It answers each with `Done`, except `stop`."""

    name: str
    argument: Any = None


@dataclass(frozen=True, slots=True)
class Done:
    """A command has been carried out, with its `result`. `error`: why it could not be; empty if it was."""

    command: str
    error: str = ""
    result: Any = None


class Link:
    """Sends and receives Python objects in threads of its own, so that `send` never waits for the other process.

    `on_message` is called with each object, and `on_end` once after the last, both in the receiving thread.
    """

    def __init__(
        self, descriptor: int, on_message: Callable[[Any], None], on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._connection = Connection(descriptor)
        self._on_message, self._on_end = on_message, on_end
        self._outgoing: SimpleQueue[Any] = SimpleQueue()
        self._sender = threading.Thread(target=self._send_loop, name="sending", daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive_loop, name="receiving", daemon=True).start()

    def send(self, message: Any) -> None:
        """Send an object after all earlier ones. Objects for a process that has ended are lost."""
        self._outgoing.put(message)

    def close(self) -> None:
        """Send what waits, then close the connection."""
        self._outgoing.put(None)

    def _receive_loop(self) -> None:
        try:
            while True:
                self._on_message(self._connection.recv())
        except (EOFError, OSError):
            pass
        finally:
            shut_down(self._connection)
            self._outgoing.put(None)
            self._on_end()
            # Neither thread uses the descriptor any more: its number may be given to another file.
            self._sender.join()
            self._connection.close()

    def _send_loop(self) -> None:
        try:
            while (message := self._outgoing.get()) is not None:
                self._connection.send(message)
        except (OSError, ValueError):  # the other process has ended
            pass
        finally:
            shut_down(self._connection)  # ends the receiving thread too


def shut_down(connection: Connection) -> None:
    """End a connection for both processes, without closing its descriptor. Does nothing if it has ended."""
    with suppress(OSError):
        both = socket.socket(fileno=connection.fileno())
        try:
            both.shutdown(socket.SHUT_RDWR)
        finally:
            both.detach()


def open_worker_end(arguments: Sequence[str]) -> WorkerEnd:
    """The worker's end of the link, by the arguments of the process, which is prepared for work: it ignores SIGINT and
    SIGTERM, which are blocked when it starts, because the other process ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    set_switch_interval()
    torch.set_num_threads(1)  # the cores are for the other workers and for the encoders
    return WorkerEnd(int(arguments[0]), int(arguments[1]))


class WorkerEnd:
    """A worker's end of the link to the process that has the space.

    `connection`, `arena`: descriptors of the connection and of the shared memory, from the command line.
    """

    def __init__(self, connection: int, arena: int) -> None:
        self.commands: SimpleQueue[Command] = SimpleQueue()  # the last is `stop`, also if the other process ends
        self._arena = map_arena(arena)
        self._runner: RemoteRunner | None = None
        self._link = Link(connection, self._on_message, self._on_end)

    def make_engine(self, description: SpaceDescription, batch_size: int) -> Engine:
        """The engine of this process. Its windows are embedded by the other process. Call it once."""
        space = RemoteSpace(description)
        self._runner = RemoteRunner(space, self._arena, self._link.send)
        return Engine(space, batch_size, self._runner)

    def carry_out(self, command: Command, work: Callable[[Command], Any]) -> None:
        """Carry out a command with `work`, which returns its result, and report the result or the error."""
        try:
            done = Done(command.name, result=work(command))
        except SensebindError as error:
            done = Done(command.name, str(error))
        except Exception:  # of any kind: the other process reports it
            done = Done(command.name, traceback.format_exc())
        self._link.send(done)

    def close(self) -> None:
        """Send what waits, then close the connection."""
        self._link.close()

    def _on_message(self, message: Any) -> None:
        if isinstance(message, RowReply):
            assert self._runner is not None
            self._runner.on_reply(message)
        else:
            self.commands.put(message)

    def _on_end(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self.commands.put(Command("stop"))
