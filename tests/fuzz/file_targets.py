"""Targets: files that a user names."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from hypothesis import strategies as st

from fuzz.hostile_values import INTEGERS, NUMBERS, TEXTS, mutated
from fuzz.sensor_targets import compressed_pixels, space
from fuzz.target import Target, Work
from helpers.paths import ROOT
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.core.samples import DEPTH, SECOND
from sensebind.fusion.events import prompt_calibration
from sensebind.fusion.io.ground_truth import read_truth
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.sensor_files import read_windows
from sensebind.fusion.models.spokes import spoke
from sensebind.replay.session import Settings
from sensebind.simulation.scenario import read_scenario

MOST_MESSAGES = 100_000  # of a recording of a few kB


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


# YAML: trees of keys that the reader knows, with values of every kind, and text that is edited.
def trees(keys: list[str]) -> st.SearchStrategy[Any]:
    """Trees of mappings and lists, whose keys are often known ones."""
    leaves = st.one_of(
        st.none(), st.booleans(), INTEGERS, NUMBERS, TEXTS, st.dates(), st.just("1e999"), st.binary(max_size=3)
    )
    names = st.one_of(st.sampled_from(keys), TEXTS)
    return st.recursive(
        leaves,
        lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(names, below, max_size=4)),
        max_leaves=12,
    )


def yaml_text(content: Any) -> bytes:
    """The YAML of a tree."""
    import yaml

    return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "replace")


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


def yaml_inputs(files: list[Path], keys: list[str], wrap: Callable[[Any], Any]) -> st.SearchStrategy[bytes]:
    """Edited files, trees, and known attacks."""
    texts = [path.read_bytes() for path in files]
    return st.one_of(mutated(texts), trees(keys).map(lambda tree: yaml_text(wrap(tree))), st.sampled_from(BOMBS))


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
def calibrations() -> list[bytes]:
    """The shipped calibration without its large tensors."""
    import safetensors
    import safetensors.numpy

    path = prompt_calibration.calibration_file("starter")
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    small = {name: value for name, value in tensors.items() if value.nbytes < 20_000}
    return [safetensors.numpy.save(small, metadata), safetensors.numpy.save({}, metadata)]


def safetensors_file(header: Any, size: int) -> bytes:
    """A file of safetensors with any header: JSON after its length, then zeros."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


@st.composite
def tensor_files(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """Edited files, and headers that claim any types, shapes and places."""
    if draw(st.booleans()):
        return draw(mutated(valid))
    length = int.from_bytes(valid[0][:8], "little")
    header = json.loads(valid[0][8 : 8 + length])
    if metadata := header.get("__metadata__"):
        for key in draw(st.lists(st.sampled_from(sorted(metadata)), max_size=3)):
            metadata[key] = draw(
                st.one_of(TEXTS, trees(sorted(metadata)).map(lambda tree: json.dumps(tree, default=str)))
            )
    for name in draw(st.lists(st.sampled_from(sorted(header)), max_size=3)):
        if name != "__metadata__":
            header[name] = {
                "dtype": draw(st.sampled_from(["F32", "F16", "I64", "U8", "BOOL", "?"])),
                "shape": draw(st.lists(st.integers(0, 2**40), max_size=3)),
                "data_offsets": draw(st.lists(st.integers(0, 2**40), min_size=2, max_size=2)),
            }
    return safetensors_file(header, draw(st.sampled_from([0, len(valid[0]) - 8 - length])))


def read_calibration(path: Path) -> Work:
    """Read a calibration."""
    found = prompt_calibration.load(path)
    return {"classes": len(found.classifiers.class_names) if found.classifiers else 0}


@cache
def spokes() -> list[bytes]:
    """The smallest spoke that the package ships."""
    folder = ROOT / "fusion" / "models" / "starter" / "spokes"
    return [min(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size).read_bytes()]


def read_spoke(path: Path) -> Work:
    """Read the description and the weights of a spoke."""
    spec = spoke.read_spec(path)
    state = spoke.read_state(path)
    return {"tensors": len(state), "dimension": spec.dimension if hasattr(spec, "dimension") else 0}


@cache
def bags(suffix: str) -> list[bytes]:
    """A valid recording of an IMU and a camera in one file."""
    from rosbags.rosbag1 import Writer as Ros1Writer
    from rosbags.rosbag2 import StoragePlugin, Writer
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
            return [path.with_suffix(".bag").read_bytes()]
        store = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.MCAP if suffix == ".mcap" else StoragePlugin.SQLITE3
        with Writer(path, version=9, storage_plugin=plugin) as bag:
            known: dict[str, Any] = {}
            for number, (topic, kind, message) in enumerate(rows):
                if topic not in known:
                    known[topic] = bag.add_connection(topic, kind, typestore=store)
                bag.write(known[topic], valid.START + number * SECOND // 50, store.serialize_cdr(message, kind))
        return [next(path.glob(f"*{suffix}")).read_bytes()]


def read_recording(path: Path) -> Work:
    """Read every message of a recording."""
    with Recording(path) as recording:
        count = sum(1 for _ in recording.messages())
        return {"messages": count, "losses": len(recording.losses)}


def truth_files() -> list[bytes]:
    """Valid tables of truth."""
    return [b"onset,offset,label\n1.0,2.5,glass breaking\n3,4,person\n", b"1.0\t2.0\tdog\n"]


PARAMETER_KEYS = [
    "/**", "embedder", "detector", "ros__parameters", "vision", "vision.hop", "hop", "modalities", "prompts", "person",
    "detectors", "space", "robots", "vision.sensors", "audio.channel", "prompt.threshold", "depth.unit",
    "fusion_timeout",
]  # fmt: skip
SCENARIO_KEYS = [
    "duration", "events", "distractors", "ground", "faults", "places", "dark", "path", "noise", "onset", "label",
    "kind", "sensor", "clips", "thermal_camera", "motor", "occluded",
]  # fmt: skip
TARGETS = [
    Target("image_files", mutated(compressed_pixels()), in_file(".png", partial(embed_file, "vision")), {"windows": 1}),
    Target("depth_files", mutated(depth_files()), in_file(".tiff", partial(embed_file, DEPTH)), {"windows": 1}),
    Target("sound_files", mutated(sound_files()), in_file(".wav", partial(embed_file, "audio")), {"windows": 10}),
    Target("imu_tables", mutated(imu_tables()), in_file(".csv", partial(embed_file, "imu")), {"windows": 10}),
    Target(
        "parameter_files",
        yaml_inputs(
            sorted((ROOT / "config").glob("*.yaml")), PARAMETER_KEYS, lambda tree: {"/**": {"ros__parameters": tree}}
        ),
        in_file(".yaml", read_parameters),
    ),
    Target(
        "scenario_files",
        yaml_inputs(sorted((ROOT / "config" / "scenarios").glob("*.yaml")), SCENARIO_KEYS, lambda tree: tree),
        in_file(".yaml", read_scenario_file),
    ),
    Target("truth_files", mutated(truth_files()), in_file(".csv", lambda path: {"spans": len(read_truth(path))})),
    Target("calibration_files", tensor_files(calibrations()), in_file(".safetensors", read_calibration)),
    Target("spoke_files", tensor_files(spokes()), in_file(".safetensors", read_spoke)),
    *(
        Target(name, mutated(bags(suffix)), in_file(suffix, read_recording), {"messages": MOST_MESSAGES})
        for name, suffix in (("mcap_files", ".mcap"), ("db3_files", ".db3"), ("ros1_files", ".bag"))
    ),
]
