"""A ZeroMQ PUB socket that other programs read: where it may bind, who may connect, how many do."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

import zmq
from zmq.auth import load_certificate, load_certificates
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from sensebind.fusion.core.errors import SensebindError

ZAP_DOMAIN = "sensebind"  # of authentication (ZAP, rfc.zeromq.org/spec/27)
CONNECTION_EVENT_NAMES: dict[int, str] = {  # all others that the monitor tells of are refusals
    zmq.EVENT_ACCEPTED: "opened",
    zmq.EVENT_DISCONNECTED: "closed",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "accepted",
}


class ZmqPublisherError(SensebindError):
    """An address or a key that cannot be used; the message names the parameter and says what to do."""


def is_local(address: str) -> bool:
    """Whether only programs on this machine can connect to what binds here: loopback, or a file.

    Raises `ZmqPublisherError` for an address that is neither ``tcp://HOST:PORT`` nor ``ipc://PATH``.
    """
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return True
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or not host or not (port == "*" or port.isdecimal()):
        raise ZmqPublisherError(
            f"parameter 'address' must be like tcp://127.0.0.1:7447 or ipc:///tmp/sensebind, not '{address}'"
        )
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # *, the name of an interface, or of a host


class ZmqPublisher:
    """Binds at once. A client that reads too slowly loses the newest messages past `queue_size`.

    None is ZeroMQ's own default size.

    `secret_key` is a file and `authorized_keys` a folder, both as `sensebind keys` makes them; both empty: no
    CURVE, and then `address` must be local. Raises `ZmqPublisherError`.

    For use in one thread. With keys, a thread of pyzmq's checks the clients; it shares with this object only the
    authenticator, which is set up before the socket is bound.
    """

    def __init__(
        self, address: str, secret_key: str = "", authorized_keys: str = "", queue_size: int | None = None
    ) -> None:
        keys = _load_keys(secret_key, authorized_keys)
        if keys is None and not is_local(address):
            raise ZmqPublisherError(
                f"parameter 'address' is '{address}': other machines could read it without a key. Make keys with "
                "`sensebind keys` and set 'secret_key' and 'authorized_keys', or bind to tcp://127.0.0.1"
            )
        self._counts: Counter[str] = Counter()
        self.encrypted = keys is not None
        self._context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        if queue_size is not None:
            self._socket.setsockopt(zmq.SNDHWM, queue_size)
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
            self._bind(address)
        except BaseException:
            self.close()
            raise
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        self.endpoint = endpoint.decode() if isinstance(endpoint, bytes) else str(endpoint)

    def __enter__(self) -> ZmqPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, topic: bytes, payload: bytes) -> None:
        """Send to every client that subscribes to this topic. Never waits."""
        self._socket.send_multipart([topic, payload])
        self._counts[topic.decode()] += 1

    def poll_connection_events(self) -> Counter[str]:
        """What has happened to clients since the last look, by the words of `counts`: call it now and then."""
        new_events: Counter[str] = Counter()
        while self._monitor.poll(0):
            new_events[CONNECTION_EVENT_NAMES.get(int(recv_monitor_message(self._monitor)["event"]), "refused")] += 1
        self._counts.update(new_events)
        return new_events

    @property
    def counts(self) -> Counter[str]:
        """A copy: messages by topic, and since the start: connections `opened` and `closed`, and of those opened the
        ones `accepted` and `refused`, as of the last `poll_connection_events`."""
        return self._counts.copy()

    @property
    def client_count(self) -> int:
        """How many are connected, as of the last `poll_connection_events`."""
        return self._counts["opened"] - self._counts["closed"]

    def close(self) -> None:
        """Free the address at once; what clients have not read by then is lost to them."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.term()

    def _enable_curve(self, public: bytes, secret: bytes, authorized_keys: str) -> None:
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain=ZAP_DOMAIN, location=authorized_keys)
        self._socket.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        # Should the authenticator's thread ever end, connections are refused; ZeroMQ would accept all of them.
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret)

    def _bind(self, address: str) -> None:
        is_local(address)  # for its error, which says more than ZeroMQ's
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                message = f"address '{address}' is in use already, perhaps by another bridge: stop it, or set 'address'"
            else:
                message = f"parameter 'address': '{address}' cannot be bound to: {error.strerror}"
            raise ZmqPublisherError(message) from error


def is_readable_by_others(secret_key: str | Path) -> bool:
    """Whether other users of this machine may read the file."""
    return bool(os.stat(secret_key).st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _load_keys(secret_key: str, authorized_keys: str) -> tuple[bytes, bytes] | None:
    """(public, secret) of the server, or None where no keys are wanted."""
    if not secret_key and not authorized_keys:
        return None
    if not secret_key or not authorized_keys:
        missing, use = ("authorized_keys", "folder") if secret_key else ("secret_key", "file")
        raise ZmqPublisherError(
            f"parameter '{missing}' is empty: with CURVE it must name the {use} that `sensebind keys` made"
        )
    if not zmq.has("curve"):
        raise ZmqPublisherError("this build of ZeroMQ lacks CURVE: install the pyzmq wheel, or a libzmq with libsodium")
    try:
        public, secret = load_certificate(secret_key)
    except (OSError, ValueError) as error:
        raise ZmqPublisherError(f"parameter 'secret_key': {error}; make one with `sensebind keys`") from error
    if secret is None:
        raise ZmqPublisherError(
            f"parameter 'secret_key': '{secret_key}' holds no secret key; use the file bridge.key_secret"
        )
    try:
        clients = load_certificates(authorized_keys)
    except (OSError, ValueError) as error:
        raise ZmqPublisherError(
            f"parameter 'authorized_keys': {error}; name the folder that `sensebind keys` made"
        ) from error
    if not clients:
        raise ZmqPublisherError(
            f"parameter 'authorized_keys': '{authorized_keys}' holds no *.key file, so nobody could connect; "
            "make one with `sensebind keys --client NAME`"
        )
    return public, secret
