"""Targets: files that a user names."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
import yaml
from hypothesis import strategies as st

from fuzz.hostile_structures import LEAVES, changed_table, changed_tree, near_value
from fuzz.hostile_values import INTEGERS, NUMBERS, TEXTS, framed, mutated, unframed
from fuzz.sensor_targets import compressed_pixels, space
from fuzz.target import Target, Work
from helpers.field_recordings import imu_rows, record
from helpers.paths import ROOT
from sensebind.cli import is_expected
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.config.parameters import detector_parameters, embedder_parameters
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import DEPTH, SECOND, SENSOR_MODALITIES
from sensebind.fusion.events import prompt_calibration
from sensebind.fusion.io.ground_truth import read_faults, read_truth
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.sensor_files import read_windows
from sensebind.fusion.models.imagebind.weights import read_tensors
from sensebind.fusion.models.spokes import spoke
from sensebind.replay.session import Settings
from sensebind.simulation.scenario import read_scenario

MOST_MESSAGES = 100_000  # of a recording of a few kB
MOST_PARAMETERS = 2000


def in_file(suffix: str, read: Callable[[Path], Work]) -> Callable[[bytes], Work]:
    """A function of bytes that writes them into a file and reads it."""

    def run(data: bytes) -> Work:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"input{suffix}"
            path.write_bytes(data)
            return read(path)

    return run


def embed_file(modality: str, path: Path) -> Work:
    """Read a file of a sensor, and make what its encoder takes."""
    windows = read_windows(modality, path, space().trained_windows[modality])
    for window in windows:
        assert np.isfinite(space().tensor(window).float().numpy()).all()
    return {"windows": len(windows)}


@cache
def sound_files() -> list[bytes]:
    """Valid sound files."""
    found = []
    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 2))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("wav", "flac", "ogg", "mp3"):
            path = Path(folder) / f"a.{suffix}"
            soundfile.write(path, noise, 16_000)
            found.append(path.read_bytes())
    return found


def depth_files() -> list[bytes]:
    """Valid depth images."""
    depth = np.random.default_rng(0).integers(500, 4000, (24, 32)).astype(np.uint16)
    files = [cv2.imencode(suffix, depth)[1].tobytes() for suffix in (".png", ".tiff")]
    return [*files, cv2.imencode(".tiff", depth.astype(np.float32) / 1000)[1].tobytes()]


def imu_tables() -> list[bytes]:
    """Valid tables of readings."""
    rows = [f"{k / 100},0,0,9.81,0.1,0,0" for k in range(300)]
    return ["\n".join(["time,ax,ay,az,gx,gy,gz", *rows]).encode(), "\n".join(rows).encode()]


# libyaml's is faster, where PyYAML has it.
YAML_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@cache
def parsed(text: bytes) -> Any:
    """The tree of a valid YAML. It is read once, and not to be changed."""
    return yaml.safe_load(text)


def yaml_text(content: Any) -> bytes:
    """The YAML of a tree."""
    try:
        text = yaml.dump(content, Dumper=YAML_DUMPER, allow_unicode=True)
    except (yaml.YAMLError, RecursionError):  # a tree that is too deep for its writer: as JSON, which YAML contains
        text = str(content)
    return text.encode("utf-8", "replace")


def alias_bomb() -> bytes:
    """Nine levels, each with nine aliases of the level before: 9⁹ items."""
    names = "abcdefghij"
    levels = [f"{own}: &{own} [{', '.join([f'*{before}'] * 9)}]" for before, own in zip(names, names[1:], strict=False)]
    return "\n".join(["a: &a [x, x, x]", *levels]).encode()


BOMBS = [
    alias_bomb(),
    b"[" * 600,
    b"{a: " * 600,
    b"/**: {ros__parameters: {vision.hop: " + b"9" * 400 + b"}}",
    b"\xff\xfe/\x00",
    b"a: *b",
    b"a: !!python/object/apply:os.system [ls]",
    b"? [a, b]\n: c",
    b"/**:\n\tros__parameters:\n",
    b"\xef\xbb\xbf/**: {}",
    b"/**: {ros__parameters: {vision: {hop: [no]}}}",
]


@st.composite
def yaml_inputs(draw: st.DrawFn, files: list[Path], values: Callable[[], dict[str, Any]]) -> bytes:
    """Changed trees of valid files, changed texts, and known attacks.

    `values`: valid names and values, of which some are in a tree of parameters.
    """
    kind = draw(st.sampled_from(("tree", "tree", "tree", "values", "values", "text", "lines", "bomb")))
    texts = [path.read_bytes() for path in files]
    if kind == "bomb":
        return draw(mutated(BOMBS))
    if kind == "text":
        return draw(mutated(texts))
    if kind == "lines":
        return draw(changed_table(texts, [": "]))
    if kind == "tree" or not values():
        return yaml_text(draw(changed_tree([parsed(text) for text in texts])))
    chosen = draw(st.lists(st.sampled_from(sorted(values())), max_size=4))
    own = {name: draw(st.one_of(near_value(values()[name]), LEAVES, LISTS)) for name in chosen}
    names = [draw(st.sampled_from([name] * 4 + [name + "x", name.upper(), f"robot.{name}"])) for name in own]
    section = draw(st.sampled_from(["/**"] * 4 + ["embedder", "detector", "/robot1/detector", "x"]))
    return yaml_text({section: {"ros__parameters": dict(zip(names, own.values(), strict=True))}})


LISTS = st.lists(st.one_of(TEXTS, NUMBERS, INTEGERS), max_size=3)


@cache
def known_values() -> dict[str, Any]:
    """All parameters with their defaults, and some of labels and sensors."""
    found = {p.name: p.default for p in (*embedder_parameters(SENSOR_MODALITIES), *detector_parameters())}
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    return found | {
        "prompts.person": ["a person"], "prompt.onset_thresholds.person": 0.5, "modalities": ["vision", "audio"],
        "vision.sensors": ["front", "rear"], "front.topic": "/front", "gas.fields": ["data[0]"], "robots": ["a", "b"],
    }  # fmt: skip


def read_parameters(path: Path) -> Work:
    """Read and check the parameters of both nodes."""
    for node in ("embedder", "detector"):
        read_parameter_file(path, node)
    settings = Settings.read(path)
    return {"parameters": len(settings.changed_values())}


def read_scenario_file(path: Path) -> Work:
    """Read a scenario of one minute at most."""
    return {"events": len(read_scenario(path, duration=60.0).events)}


@cache
def bags(suffix: str) -> list[bytes]:
    """Valid recordings, plain and compressed, of one file each."""
    found = [bag(suffix)]
    if suffix == ".mcap":
        found += [bag(suffix, compressed=True), *(file[:-200] for file in found)]
    return found


def bag(suffix: str, compressed: bool = False) -> bytes:
    """A valid recording of an IMU and a camera in one file."""
    from rosbags.rosbag1 import Writer as Ros1Writer
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from helpers import sensor_messages as valid
    from sensebind.fusion.io import messages as m

    rows = [("/imu", m.IMU_TYPE, valid.motion()) for _ in range(20)] + [
        ("/camera/image", m.IMAGE_TYPE, valid.colour())
    ] * 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag"
        if suffix == ".bag":
            store = get_typestore(Stores.ROS1_NOETIC)
            with Ros1Writer(path.with_suffix(".bag")) as writer:
                connection = writer.add_connection("/text", "std_msgs/msg/String", typestore=store)
                for number in range(20):
                    message = store.types["std_msgs/msg/String"](f"text {number}")
                    writer.write(connection, valid.START + number, store.serialize_ros1(message, "std_msgs/msg/String"))
            return path.with_suffix(".bag").read_bytes()
        store = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.MCAP if suffix == ".mcap" else StoragePlugin.SQLITE3
        bag = Writer(path, version=9, storage_plugin=plugin)
        if compressed:
            bag.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with bag:
            known: dict[str, Any] = {}
            for number, (topic, kind, message) in enumerate(rows):
                if topic not in known:
                    known[topic] = bag.add_connection(topic, kind, typestore=store)
                bag.write(known[topic], valid.START + number * SECOND // 50, store.serialize_cdr(message, kind))
        return next(path.glob(f"*{suffix}")).read_bytes()


def read_recording(path: Path) -> Work:
    """Read every message of a recording."""
    with Recording(path) as recording:
        count = sum(1 for _ in recording.messages())
        return {"messages": count, "losses": len(recording.losses)}


def truth_files() -> list[bytes]:
    """Valid tables of truth."""
    return [
        b"onset\toffset\tlabel\n1.0\t2.5\tglass breaking\n3\t4\tperson\n",
        b"filename\tonset\toffset\tevent_label\na.wav\t0.5\t1\tdog\na.wav\t2\t3.25\tspeech\n",
        b"onset\toffset\tsensor\tfault\tlabel\n1\t2\tvision\tdark\ta\n",
        b"1.0\t2.0\tdog\n5\t6\tcat\n",
    ]


@st.composite
def folders(draw: st.DrawFn) -> bytes:
    """metadata.yaml of a recording, changed, before its file: the whole folder in one input."""
    text, name, file = described_bag()
    tree = parsed(text)
    changed = draw(
        st.one_of(
            changed_tree([tree]).map(yaml_text),
            mutated([text]),
            st.sampled_from(BOMBS),
            changed_table([text], [": "]),
        )
    )
    return framed([changed, name.encode(), file if draw(st.integers(0, 4)) else draw(mutated([file]))])


@cache
def described_bag() -> tuple[bytes, str, bytes]:
    """metadata.yaml, the name of the file, and the file of a valid recording."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag"
        record(path, imu_rows("/imu", 0.2))
        file = next(p for p in path.iterdir() if p.suffix != ".yaml")
        return (path / "metadata.yaml").read_bytes(), file.name, file.read_bytes()


def read_folder(data: bytes) -> Work:
    """Read every message of a recording in a folder with metadata.yaml."""
    text, name, file = (*unframed(data), b"", b"", b"")[:3]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "metadata.yaml").write_bytes(text)
        (Path(folder) / (name.decode("ascii", "replace").strip("/.") or "a")).write_bytes(file)
        return read_recording(Path(folder))


READERS: dict[str, Callable[[Path], Work]] = {
    **{modality: partial(embed_file, modality) for modality in ("vision", "depth", "thermal", "audio", "imu")},
    "parameters": read_parameters,
    "scenario": read_scenario_file,
    "truth": lambda path: {"spans": len(read_truth(path))},
    "calibration": lambda path: {"classes": len(prompt_calibration.load(path).modalities)},
    "spoke": lambda path: {"dimension": spoke.read_spec(path).dimension, "tensors": len(spoke.read_state(path))},
    "weights": lambda path: {"tensors": len(read_tensors(path))},
    "recording": read_recording,
}
SPECIAL = (
    "folder", "loop", "dangling", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/dev/null/x", "sparse",
    "empty", "pipe", "endless pipe", "a\nb", "x" * 300, "nul\0", "link to /dev/zero", "socket", "/", ".", "",
)  # fmt: skip


def special_files() -> st.SearchStrategy[bytes]:
    """The name of a reader, what kind of file it gets, and the content of those that have one."""
    contents = st.one_of(st.binary(max_size=50), mutated([*compressed_pixels()[:2], *imu_tables(), *truth_files()]))
    return st.tuples(st.sampled_from(sorted(READERS)), st.sampled_from(SPECIAL), contents).map(
        lambda parts: framed([parts[0].encode(), parts[1].encode(), parts[2]])
    )


def read_special(data: bytes) -> Work:
    """Read what is no regular file, or has a strange name. `FileNotFoundError` and the like name the file: the command
    line shows them without a traceback."""
    reader, kind, content = (*unframed(data), b"", b"", b"")[:3]
    read = READERS.get(reader.decode("ascii", "replace"), read_parameters)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        special_file(Path(folder), kind.decode("utf-8", "replace"), content) as path,
    ):
        try:
            return read(path)
        except OSError as error:
            assert is_expected(error), "the command line would print a traceback"
            raise SensebindError(str(error)) from error


@contextmanager
def special_file(folder: Path, kind: str, content: bytes) -> Iterator[Path]:
    """A path of this kind. A pipe has a writer, as in `<(command)` of a shell."""
    path = folder / "input"
    if kind == "folder":
        path.mkdir()
        (path / "a.safetensors").write_bytes(content)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(folder / "missing")
    elif kind == "link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.write(content)
            file.truncate(3 * 2**30)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif "pipe" in kind:
        os.mkfifo(path)
        with writer_of(path, content, endless=kind != "pipe"):
            yield path
        return
    elif kind == "empty" or "/" not in kind:
        path = folder / (kind or "input")
        if "\0" not in kind and len(kind) < 200 and not path.exists():
            path.write_bytes(content if kind != "empty" else b"")
    else:
        path = Path(kind)
    yield path


@contextmanager
def writer_of(path: Path, content: bytes, endless: bool) -> Iterator[None]:
    """A thread that writes into a pipe until its reader has closed it."""

    def write() -> None:
        with suppress(OSError), path.open("wb", buffering=0) as pipe:
            pipe.write(content)
            while endless and not is_over.is_set():
                pipe.write(bytes(2**16))

    is_over, thread = threading.Event(), threading.Thread(target=write, daemon=True)
    thread.start()
    yield
    is_over.set()
    with suppress(OSError):  # a reader that never opened the pipe: its writer still waits
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    thread.join(5)


YAML_CHECKS = frozenset({"read_text", "parse_yaml"})
IMAGE_CHECKS = frozenset({"_check_declared_size", "placeholder_text"})
TABLES = [",", "\t"]
CONFIG = ROOT / "config"
TARGETS = [
    Target(
        "image_files",
        mutated(compressed_pixels()),
        in_file(".png", partial(embed_file, "vision")),
        {"windows": 1},
        IMAGE_CHECKS,
    ),
    Target(
        "depth_files",
        mutated(depth_files()),
        in_file(".tiff", partial(embed_file, DEPTH)),
        {"windows": 1},
        IMAGE_CHECKS,
    ),
    Target(
        "sound_files",
        mutated(sound_files()),
        in_file(".wav", partial(embed_file, "audio")),
        {"windows": 10},
        frozenset({"_open"}),
    ),
    Target(
        "imu_tables",
        mutated(imu_tables()) | changed_table(imu_tables(), TABLES),
        in_file(".csv", partial(embed_file, "imu")),
        {"windows": 10},
        frozenset({"read_bytes", "_table_of"}),
    ),
    Target(
        "parameter_files",
        yaml_inputs(sorted(CONFIG.glob("*.yaml")), known_values),
        in_file(".yaml", read_parameters),
        {"parameters": MOST_PARAMETERS},
        YAML_CHECKS,
    ),
    Target(
        "scenario_files",
        yaml_inputs(sorted((CONFIG / "scenarios").glob("*.yaml")), dict),
        in_file(".yaml", read_scenario_file),
        {"events": 10_000},
        YAML_CHECKS,
    ),
    Target(
        "truth_files",
        mutated(truth_files()) | changed_table(truth_files(), ["\t"]),
        in_file(".tsv", lambda path: {"spans": len(read_truth(path)) + len(read_faults(path))}),
        {"spans": 4000},
        frozenset({"read_text"}),
    ),
    *(
        Target(
            name,
            st.deferred(lambda suffix=suffix: mutated(bags(suffix))),
            in_file(suffix, read_recording),
            {"messages": MOST_MESSAGES},
            frozenset({"open_file", "_open_files"}),
        )
        for name, suffix in (("mcap_files", ".mcap"), ("db3_files", ".db3"), ("ros1_files", ".bag"))
    ),
    Target("recording_folders", folders(), read_folder, {"messages": MOST_MESSAGES}),
    Target("special_files", special_files(), read_special, {"windows": 10, "messages": MOST_MESSAGES}),
]
