"""`sensebind keys`: makes CURVE key pairs for `bridge` and its clients."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.fusion.core.atomic import staged_file
from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

SERVER = "bridge"


class KeysError(SensebindError):
    """The keys cannot be made."""


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "keys",
        help="make keys for the bridge and a client on another computer",
        description="Make the CURVE key pairs of the bridge and of one client. Existing pairs are kept.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("keys"), metavar="DIR", help="folder of the keys (default: %(default)s)"
    )
    parser.add_argument("--client", default="client", metavar="NAME", help="client to authorize (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Make the missing key pairs and print how to use them. Raises `KeysError`."""
    name = args.client
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name == SERVER:
        raise KeysError(
            f"--client '{name}' must be a file name of letters, digits, '_', '-' and '.', other than '{SERVER}'"
        )
    out: Path = args.out
    authorized = out / "authorized"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        authorized.mkdir(mode=0o700, exist_ok=True)
        made = [make_pair(out, out, SERVER), make_pair(out, authorized, name)]
    except OSError as error:
        raise KeysError(f"keys cannot be written to '{out}': {error.strerror or error}") from error
    for path, new in zip((out / f"{SERVER}.key_secret", out / f"{name}.key_secret"), made, strict=True):
        print(f"{'made' if new else 'kept'} {path}")
    print(
        f"""
The bridge:  set the parameters
             secret_key: {(out / SERVER).resolve()}.key_secret
             authorized_keys: {authorized.resolve()}
The client:  copy {name}.key_secret and {SERVER}.key to it over a secure channel, then delete {name}.key_secret here.
Restart a running bridge: it reads the keys of clients when it starts."""
    )
    return 0


def make_pair(private: Path, public: Path, name: str) -> bool:
    """Write `private`/name.key_secret (mode 0600, contains both keys) and `public`/name.key, in pyzmq's format.

    Returns whether a new pair was made. An existing secret key is never overwritten. If only the public key of a
    client exists, it is kept too: its secret key is on the client. Raises `OSError` and `KeysError`.
    """
    import zmq
    from zmq.auth import load_certificate

    if not zmq.has("curve"):
        raise KeysError(
            "this build of ZeroMQ does not support CURVE: install the pyzmq wheel, or a libzmq with libsodium"
        )
    secret_file, public_file = private / f"{name}.key_secret", public / f"{name}.key"
    if secret_file.exists():
        try:
            both = load_certificate(secret_file)
        except ValueError as error:
            raise KeysError(f"'{secret_file}' is not a key file: {error}; delete it") from error
        if not public_file.exists():
            _write(public_file, 0o644, f'curve\n    public-key = "{both[0].decode()}"\n')
        return False
    if public_file.exists():
        if name == SERVER:
            raise KeysError(
                f"'{public_file}' exists, but '{secret_file}' does not: restore the second, or delete the first"
            )
        return False
    key, secret = (half.decode() for half in zmq.curve_keypair())
    pair = f'curve\n    public-key = "{key}"\n    secret-key = "{secret}"\n'
    _write(secret_file, 0o600, f"# Secret: readable by its owner alone, never to be shared.\n{pair}")
    _write(public_file, 0o644, f'curve\n    public-key = "{key}"\n')
    return True


def _write(path: Path, mode: int, text: str) -> None:
    """Create a file with this mode: no other user can read it even while it is written. After an error there is none:
    half a key would be kept as a key."""
    with (
        staged_file(path) as part,
        os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file,
    ):
        file.write(text)
