"""A ZeroMQ PUB socket for other programs: checks its address and keys, and counts its clients."""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

import zmq
from zmq.auth import load_certificate, load_certificates
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from sensebind.fusion.core.errors import SensebindError, printable, require_finite_file

ZAP_DOMAIN = "sensebind"  # domain name for authentication (ZAP, rfc.zeromq.org/spec/27)
MAX_PORT = 65535
MAX_SOCKET_PATH = 107  # bytes, of Linux
MAX_COUNTS, OTHER_TOPICS = 300, "other topics"  # further topics are counted together: others may publish ever new ones
MAX_KEY_BYTES = 65536  # of a file with a key
MAX_CLIENT_BYTES = 1024  # of a message of a client: a topic to subscribe to, each byte of which takes ZeroMQ twelve
DROP_WARNING_PERIOD = 60.0  # s after messages were dropped in which `drop_warning` names it
CONNECTION_EVENT_NAMES: dict[int, str] = {  # the other events of the monitor count as refused
    zmq.EVENT_ACCEPTED: "opened",
    zmq.EVENT_DISCONNECTED: "closed",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "accepted",
}


class ZmqPublisherError(SensebindError):
    """An address or a key cannot be used. The message names the parameter and the remedy."""


def is_local(address: str) -> bool:
    """Whether only programs on the same machine can connect to this address: loopback, or a file.

    Raises `ZmqPublisherError` for an address that is neither ``tcp://HOST:PORT`` nor ``ipc://PATH``, and for a port
    that no computer has: ZeroMQ would use another one.
    """
    if address.startswith("ipc://") and len(address) > len("ipc://") and address.isprintable():
        return True
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    is_port = port == "*" or (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= MAX_PORT)
    if not address.startswith("tcp://") or not host or not is_port or any(c.isspace() for c in address):
        raise ZmqPublisherError(
            f"parameter 'address' must be like tcp://127.0.0.1:7447, with a port of 1 to {MAX_PORT} or *, or like "
            f"ipc:///tmp/sensebind, not '{printable(address, 200)}'"
        )
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # *, or the name of an interface or a host


def free_socket_path(address: str) -> Path | None:
    """The path of an address ``ipc://PATH``, at which a socket can be made now; None for an address without a file.

    A socket of this user on which no program listens is removed: a bridge that was killed has left it. ZeroMQ would
    remove any file. Raises `ZmqPublisherError` if something else is there, or a program listens.
    """
    name = address.removeprefix("ipc://")
    if not address.startswith("ipc://") or name == "*" or name.startswith("@"):
        return None
    path = Path(name)
    if len(os.fsencode(name)) > MAX_SOCKET_PATH:
        raise _path_error(address, f"a path of a socket has at most {MAX_SOCKET_PATH} bytes")
    if not path.parent.is_dir():
        raise _path_error(address, f"'{path.parent}' is no folder: make it, or name another one")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise _path_error(address, str(error.strerror)) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise _path_error(address, "there is something that is not a socket, and it is kept: name another path")
    if _is_served(path):
        raise ZmqPublisherError(f"address '{address}' is in use, perhaps by another bridge: stop it, or set 'address'")
    if found.st_uid != os.geteuid():
        raise _path_error(address, "there is a socket of another user: name another path")
    try:
        path.unlink()
    except OSError as error:
        raise _path_error(address, f"an old socket cannot be removed: {error.strerror}") from error
    return path


def _path_error(address: str, reason: str) -> ZmqPublisherError:
    return ZmqPublisherError(f"parameter 'address': cannot bind to '{address}': {reason}")


def _is_served(path: Path) -> bool:
    """Whether a program listens on a socket. Also true if that is not known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


class ZmqPublisher:
    """Publishes messages on a ZeroMQ PUB socket. The socket is bound when the object is made.

    `queue_size`: number of messages that may wait for one client; further messages to this client are dropped. None:
    ZeroMQ's default. `more_ports`: if the port of a tcp address is in use, so many ports after it are tried.
    `secret_key` is a file and `authorized_keys` a folder, both made by `sensebind keys`. Both empty:
    no CURVE, and `address` must be local. Raises `ZmqPublisherError`.

    Use it in one thread. With keys, a thread of pyzmq checks the clients. It shares only the authenticator with this
    object, and the authenticator is configured before the socket is bound.
    """

    def __init__(
        self,
        address: str,
        secret_key: str = "",
        authorized_keys: str = "",
        queue_size: int | None = None,
        more_ports: int = 0,
    ) -> None:
        keys = _load_keys(secret_key, authorized_keys)
        if keys is None and not is_local(address):
            raise ZmqPublisherError(
                f"parameter 'address' is '{address}': other machines could read from it without a key. Make keys with "
                "`sensebind keys` and set 'secret_key' and 'authorized_keys', or bind to tcp://127.0.0.1"
            )
        self._counts: Counter[str] = Counter()
        self._last_drop = -math.inf  # time.monotonic()
        self._path = free_socket_path(address)
        self._file: tuple[int, int] | None = None  # device and inode of the file of the socket
        self.encrypted = keys is not None
        self._context = zmq.Context()
        self._is_closed = False
        self._authenticator: ThreadAuthenticator | None = None
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_BYTES)  # a client that sends more is disconnected
        if queue_size is not None:
            self._socket.setsockopt(zmq.SNDHWM, queue_size)
        # With this option, `send` raises `zmq.Again` if the queue of a client is full; without, it drops in silence.
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        try:
            if keys is not None:
                self._enable_curve(*keys, authorized_keys)
            self._bind(address, more_ports)
        except BaseException:
            self.close()
            raise
        if self._path is not None:
            self._file = _file_at(self._path)
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        self.endpoint = endpoint.decode() if isinstance(endpoint, bytes) else str(endpoint)

    def __enter__(self) -> ZmqPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, topic: bytes, payload: bytes) -> bool:
        """Send a message to every client that subscribes to this topic. Does not block. Returns False if the queue of a
        client became full.

        A client whose queue is full does not get it, nor further ones until it has read some. ZeroMQ does not report
        how many: only the first one is noticed and counted, as `queue_full`. The client sees all in `sequence`.
        """
        is_queued = True
        try:
            self._socket.send_multipart([topic, payload], zmq.DONTWAIT)
        except zmq.Again:
            is_queued = False
            self._socket.setsockopt(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart([topic, payload], zmq.DONTWAIT)  # to the other clients
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)
            self._counts["queue_full"] += 1
            self._last_drop = time.monotonic()
        name = topic.decode()
        self._counts[name if name in self._counts or len(self._counts) < MAX_COUNTS else OTHER_TOPICS] += 1
        return is_queued

    def poll_connection_events(self) -> Counter[str]:
        """Connection events since the last call, counted by the names in `counts`. Call it regularly."""
        new_events: Counter[str] = Counter()
        while self._monitor.poll(0):
            new_events[CONNECTION_EVENT_NAMES.get(int(recv_monitor_message(self._monitor)["event"]), "refused")] += 1
        self._counts.update(new_events)
        return new_events

    @property
    def counts(self) -> Counter[str]:
        """A copy of the counts since the start: messages by topic, beyond `MAX_COUNTS` topics as `OTHER_TOPICS`;
        `queue_full`, how often the queue of a client became full, after which messages to it were dropped; connections
        `opened`, `closed`, `accepted` and `refused`, up to the last `poll_connection_events`."""
        return self._counts.copy()

    @property
    def drop_warning(self) -> str:
        """What to do about messages that were dropped in the last minute; empty if none were."""
        if time.monotonic() - self._last_drop > DROP_WARNING_PERIOD:
            return ""
        return (
            "a client reads too slowly, and messages to it were dropped: make it faster, let it subscribe to fewer "
            "topics, or set 'client_queue_size'"
        )

    @property
    def client_count(self) -> int:
        """Number of connected clients at the last `poll_connection_events`."""
        return self._counts["opened"] - self._counts["closed"]

    def close(self) -> None:
        """Close the socket, free the address at once and remove its file. Messages that wait for clients are dropped.
        Nothing happens if it is closed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.term()
        if self._path is not None and self._file is not None and self._file == _file_at(self._path):
            self._path.unlink(missing_ok=True)

    def _enable_curve(self, public: bytes, secret: bytes, authorized_keys: str) -> None:
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain=ZAP_DOMAIN, location=authorized_keys)
        self._socket.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        # If the authenticator's thread ends, refuse connections; by default ZeroMQ would accept all of them.
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)

    def _bind(self, address: str, more_ports: int) -> None:
        is_local(address)  # raises an error that is clearer than ZeroMQ's
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            host, _, port = address.rpartition(":")
            if error.errno == errno.EADDRINUSE and more_ports and port.isdecimal():
                self._bind(f"{host}:{int(port) + 1}", more_ports - 1)
                return
            if error.errno == errno.EADDRINUSE:
                message = f"address '{address}' is in use, perhaps by another bridge: stop it, or set 'address'"
            else:
                message = f"parameter 'address': cannot bind to '{address}': {error.strerror}"
            raise ZmqPublisherError(message) from error


def _file_at(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_readable_by_others(secret_key: str | Path) -> bool:
    """Whether the file permissions allow other users to read the file."""
    return bool(os.stat(secret_key).st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _load_keys(secret_key: str, authorized_keys: str) -> tuple[bytes, bytes] | None:
    """(public, secret) key of the server; None if both arguments are empty."""
    if not secret_key and not authorized_keys:
        return None
    if not secret_key or not authorized_keys:
        missing, kind = ("authorized_keys", "folder") if secret_key else ("secret_key", "file")
        raise ZmqPublisherError(
            f"parameter '{missing}' is empty: with CURVE it must name the {kind} that `sensebind keys` made"
        )
    if not zmq.has("curve"):
        raise ZmqPublisherError("this build of ZeroMQ lacks CURVE: install the pyzmq wheel, or a libzmq with libsodium")
    try:
        _check_key_file(Path(secret_key))
        public, secret = load_certificate(secret_key)
    except (OSError, ValueError) as error:
        raise ZmqPublisherError(f"parameter 'secret_key': {error}; make one with `sensebind keys`") from error
    if secret is None:
        raise ZmqPublisherError(
            f"parameter 'secret_key': '{secret_key}' contains no secret key; use the file bridge.key_secret"
        )
    try:
        for file in Path(authorized_keys).glob("*.key"):
            _check_key_file(file)
        clients = load_certificates(authorized_keys)
    except (OSError, ValueError) as error:
        raise ZmqPublisherError(
            f"parameter 'authorized_keys': {error}; name the folder that `sensebind keys` made"
        ) from error
    if not clients:
        raise ZmqPublisherError(
            f"parameter 'authorized_keys': '{authorized_keys}' contains no *.key file, so no client could connect; "
            "make one with `sensebind keys --client NAME`"
        )
    return public, secret


def _check_key_file(file: Path) -> None:
    """Raises `OSError` for a file that cannot hold a key. pyzmq would read one of any size, and wait for a pipe."""
    require_finite_file(file)
    if file.is_file() and file.stat().st_size > MAX_KEY_BYTES:
        raise OSError(errno.EFBIG, f"'{file}' is larger than {MAX_KEY_BYTES} bytes: it is no key")
