"""Checks of who can reach a robot's perception: settings of ROS, open ports, sockets and key files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from sensebind.commands.doctor.findings import Check, Finding, guarded

GUIDE = "see docs/security.md"
DEFAULT_KEYS = Path("keys")  # where `sensebind keys` puts them
SECRET_FILES = ("*.key_secret", "*key.pem")  # of CURVE (pyzmq), and of a keystore of SROS2
MAX_ENTRIES = 20_000  # files and folders in a folder of keys: a keystore has about ten for each node
OTHERS_READ, OTHERS_WRITE = stat.S_IRGRP | stat.S_IROTH, stat.S_IWGRP | stat.S_IWOTH
# Values of ROS_AUTOMATIC_DISCOVERY_RANGE → who is discovered. Iron and later; the default is SUBNET.
DISCOVERY_RANGES = {"OFF": "no process", "LOCALHOST": "this computer", "SUBNET": "every computer of the network"}


def check_security(key_folders: Sequence[Path] | None) -> Iterator[Finding]:
    """All findings, as they are found. `key_folders`: folders with keys; None: the default one, if it exists."""
    environment = dict(os.environ)
    for check in (
        Check("ROS", partial(ros_access, environment), required=False),
        Check("open ports", open_ports),
        Check("keys", partial(key_files, environment, key_folders)),
    ):
        yield from guarded(check, ())


def ros_access(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Who can publish to the nodes and read from them, by the environment variables of ROS."""
    domain = environment.get("ROS_DOMAIN_ID", "0")
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        reach = "LOCALHOST"
    else:
        reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET").upper()
    who = DISCOVERY_RANGES.get(reach, reach)
    if environment.get("ROS_SECURITY_ENABLE") != "true":
        result = f"domain {domain}, SROS2 is off: {who} can publish to the nodes and read what they publish"
        fix = f"authenticate and encrypt with SROS2 and the policies in config/security ({GUIDE})"
        if reach not in ("OFF", "LOCALHOST"):
            fix += "; on a robot of one computer, export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
        yield Finding("ROS", result, fix, optional=True)
        return
    strategy = environment.get("ROS_SECURITY_STRATEGY", "Permissive")
    fix = ""
    if strategy != "Enforce":
        fix = "export ROS_SECURITY_STRATEGY=Enforce: otherwise a node without keys starts without security"
    yield Finding("ROS", f"domain {domain}, SROS2 is on, strategy {strategy}", fix)
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    if not Path(keystore).is_dir():
        yield Finding("keystore", f"ROS_SECURITY_KEYSTORE is '{keystore}', which is no folder", f"correct it: {GUIDE}")


def open_ports() -> Iterator[Finding]:
    """The ports and sockets on which processes of Sensebind listen. Only root sees those of other users."""
    try:
        import psutil
    except ModuleNotFoundError:
        fix = "pip install psutil, or look with `ss -lntup` and `ss -lx`"
        yield Finding("open ports", "not checked", fix, optional=True)
        return
    found = False
    for process in psutil.process_iter(["pid", "cmdline"]):
        name = executable_name(process.info["cmdline"] or [])
        if not name or process.pid == os.getpid():
            continue
        found = True
        label = f"{name}, process {process.pid}"
        try:
            yield from listening(label, process.net_connections("inet"))
            yield from unix_sockets(label, process.net_connections("unix"))
        except psutil.Error as error:  # it has ended, or belongs to another user
            yield Finding(
                label, f"not checked: {type(error).__name__}", "run this as root or as its user", optional=True
            )
    if not found:
        yield Finding("open ports", "no node of Sensebind runs here")


def executable_name(command: Sequence[str]) -> str:
    """The name of the executable of Sensebind that a command line runs, such as bridge; empty for other programs.

    For ``python -m sensebind.nodes.bridge``, ``…/lib/sensebind/bridge`` (ros2 run), and a worker process.
    """
    for part in command[:4]:
        if part.startswith("sensebind.nodes."):
            return part.split(".")[2]
        if "from sensebind.nodes." in part:
            return part.partition("from sensebind.nodes.")[2].split()[0].rpartition(".")[2]
        path = Path(part)
        if path.parent.name == "sensebind" and path.parent.parent.name == "lib":
            return path.name
    return ""


def listening(label: str, connections: Sequence[Any]) -> Iterator[Finding]:
    """One finding for each TCP port of a process, and one for all its UDP ports, which are those of the middleware."""
    udp = set()
    for item in connections:
        if not item.laddr:
            continue
        if item.status == "LISTEN":
            fix = ""
            if not ip_address(item.laddr.ip).is_loopback:
                fix = "other computers can connect; the bridge accepts only clients with an authorized key"
            yield Finding(label, f"tcp {item.laddr.ip}:{item.laddr.port}", fix, optional=True)
        elif item.type.name == "SOCK_DGRAM":
            udp.add((item.laddr.ip, item.laddr.port))
    if udp:
        reachable = sorted({port for ip, port in udp if not ip_address(ip).is_loopback})
        local = len({port for _, port in udp} - set(reachable))
        ports = " ".join(map(str, reachable)) or "none"
        yield Finding(label, f"udp of the middleware: other computers can send to ports {ports}; {local} local ones")


def unix_sockets(label: str, connections: Sequence[Any]) -> Iterator[Finding]:
    """One finding for each socket file of a process. Who may write to the file may connect."""
    for path in sorted({str(item.laddr) for item in connections if item.laddr and str(item.laddr).startswith("/")}):
        try:
            mode = Path(path).stat().st_mode
        except OSError:
            continue  # the file is gone
        fix = "" if not mode & stat.S_IWOTH else f"every user of this computer can connect: chmod o-w '{path}'"
        yield Finding(label, f"socket {path} ({stat.filemode(mode)})", fix)


def key_files(environment: Mapping[str, str], folders: Sequence[Path] | None) -> Iterator[Finding]:
    """Whether secret keys can be read by their owner alone."""
    if folders is None:
        folders = [DEFAULT_KEYS] if DEFAULT_KEYS.is_dir() else []
    keystore = environment.get("ROS_SECURITY_KEYSTORE", "")
    for folder in [*folders, *([Path(keystore)] if keystore and Path(keystore).is_dir() else [])]:
        if not folder.is_dir():
            yield Finding("keys", f"'{folder}' is not a folder", "correct --keys, or make keys with `sensebind keys`")
            continue
        secrets, is_complete = secret_files(folder)
        if not is_complete:
            text = f"'{folder}' has more than {MAX_ENTRIES} files and folders: only some were checked"
            yield Finding("keys", text, "name the folder of the keys with --keys")
        if not secrets:
            yield Finding("keys", f"'{folder}' has no secret keys", "correct --keys", optional=True)
        for path in secrets:
            yield key_file(path)
        for place in sorted({path.parent for path in secrets}):
            if place.stat().st_mode & OTHERS_WRITE:
                yield Finding("keys", f"others can replace the files of '{place}'", f"chmod go-w '{place}'")
    if not folders and not keystore:
        yield Finding("keys", "no folder of keys is named (--keys DIR), and ./keys does not exist")


def secret_files(folder: Path) -> tuple[list[Path], bool]:
    """The secret keys in a folder and its subfolders, and whether all its files were looked at. Links to folders are
    not followed."""
    found: list[Path] = []
    count = 0
    for place, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > MAX_ENTRIES:
            return sorted(found), False
        found += [Path(place) / name for name in names if any(fnmatch(name, pattern) for pattern in SECRET_FILES)]
    return sorted(found), True


def key_file(path: Path) -> Finding:
    """Whether only its owner can read and change a secret key."""
    mode = path.stat().st_mode
    open_to_others = mode & (OTHERS_READ | OTHERS_WRITE)
    fix = f"other users can read or change it: chmod 600 '{path}', and make new keys if others had access"
    return Finding("key", f"{path} ({stat.filemode(mode)})", fix if open_to_others else "")
