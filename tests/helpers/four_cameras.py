"""A recording of a robot with four cameras, two IMUs and a microphone array of four channels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.simulation.messages import SIMULATION_START, image_message

CAMERAS = ("front", "left", "rear", "right")
IMUS = {"base_imu": 50, "head_imu": 100}  # sensor → rate in Hz
SENSORS = {**dict.fromkeys(CAMERAS, "vision"), "microphones": "audio", **dict.fromkeys(IMUS, "imu")}
TOPICS = [*(f"/{name}/image" for name in CAMERAS), *(f"/{name}/imu" for name in IMUS), "/array/audio"]
IMAGE_RATE, SOUND_RATE, BLOCK = 5, 16_000, 1600  # Hz, Hz, samples
SIZE = 320, 240  # px, width and height


def settings_file(path: Path) -> Path:
    """Write a parameter file that names all these sensors, for any namespace."""
    path.write_text(
        f"""/**:
  ros__parameters:
    device: cpu
    modalities: [vision, audio, imu]
    deadline: 0.0  # no window is dropped, and no tick fused, because a busy machine is late
    fusion_timeout: 5.0
    tick_timeout: 6.0
    vision: {{sensors: [{", ".join(CAMERAS)}], hop: 0.5}}
    imu: {{sensors: [{", ".join(IMUS)}]}}
    audio: {{sensors: [microphones]}}
    microphones:
      {{topic: array/audio, channel: loudest, sample_format: S16LE, sample_rate: 16000, channels: 4}}
    detectors: [prompt, fault]
    fault: {{expected: [configured]}}
    prompts: {{cat: [a cat], fire: [a fire]}}
""",
        encoding="utf-8",
    )
    return path


def record_four_cameras(
    path: Path, seconds: float, *, cat: str = "front", covered: str = "", covered_at: float = 0.0, seed: int = 14
) -> None:
    """Write the bag. The camera `cat` sees a cat. The camera `covered` is dark from `covered_at` s on."""
    noise = np.random.default_rng(seed)
    with BagWriter(path) as bag:
        rows = [(t, "image", name) for name in CAMERAS for t in _stamps(seconds, IMAGE_RATE)]
        rows += [(t, "imu", name) for name, rate in IMUS.items() for t in _stamps(seconds, rate)]
        rows += [(t, "sound", "microphones") for t in _stamps(seconds, SOUND_RATE // BLOCK)]
        scenes = {name: _scene("cat" if name == cat else name) for name in CAMERAS}
        for stamp, kind, name in sorted(rows):
            if kind == "image":
                dark = name == covered and stamp - SIMULATION_START >= covered_at * SECOND
                _write_image(bag, stamp, name, np.zeros_like(scenes[name]) if dark else scenes[name], noise, dark)
            elif kind == "imu":
                _write_reading(bag, stamp, name, noise)
            else:
                _write_sound(bag, stamp, noise)


def _stamps(seconds: float, rate: int) -> list[int]:
    return [SIMULATION_START + number * SECOND // rate for number in range(round(seconds * rate))]


def _scene(name: str) -> npt.NDArray[np.uint8]:
    """RGB pixels: a cat, or a plain wall whose colour depends on the camera."""
    if name == "cat":
        from skimage.data import chelsea

        return np.asarray(cv2.resize(chelsea(), SIZE, interpolation=cv2.INTER_AREA), np.uint8)
    width, height = SIZE
    shade = np.linspace(60, 160, width)[None, :, None] * np.ones((height, 1, 3))
    tint = np.array({"front": (1.0, 1.2, 1.0), "left": (1.2, 1.0, 0.8), "rear": (0.8, 1.0, 1.2)}.get(name, (1, 1, 1)))
    return np.asarray(np.clip(shade * tint, 0, 255), np.uint8)


def _write_image(
    bag: BagWriter,
    stamp: int,
    camera: str,
    scene: npt.NDArray[np.uint8],
    noise: np.random.Generator,
    dark: bool,
) -> None:
    pixels = np.clip(scene + noise.normal(0, 0.5 if dark else 3.0, scene.shape), 0, 255).astype(np.uint8)
    message = image_message(bag.message_factory, stamp, f"{camera}_optical", "rgb8", pixels)
    bag.write(f"/{camera}/image", messages.IMAGE_TYPE, stamp, message)


def _write_reading(bag: BagWriter, stamp: int, name: str, noise: np.random.Generator) -> None:
    make = bag.message_factory.make
    values = noise.normal(0, 0.02, 6) + [0, 0, 9.81, 0, 0, 0]
    acceleration, rate = (
        make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z)) for x, y, z in (values[:3], values[3:])
    )
    message = make(
        messages.IMU_TYPE,
        header=messages.header_message(bag.message_factory, stamp, f"{name}_link"),
        orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.array([-1.0, *[0.0] * 8]),
        angular_velocity=rate,
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=acceleration,
        linear_acceleration_covariance=np.zeros(9),
    )
    bag.write(f"/{name}/imu", messages.IMU_TYPE, stamp, message)


def _write_sound(bag: BagWriter, stamp: int, noise: np.random.Generator) -> None:
    """A block of four channels, of which the third is the loudest."""
    make = bag.message_factory.make
    samples = (noise.normal(0, 200, (BLOCK, 4)) * [1, 1, 4, 1]).astype(np.int16)
    header = messages.header_message(bag.message_factory, stamp, "array")
    data = make("audio_common_msgs/msg/AudioData", data=samples.astype("<i2").view(np.uint8).reshape(-1))
    message = make("audio_common_msgs/msg/AudioDataStamped", header=header, audio=data)
    # A block is sent after its last sample was recorded.
    bag.write("/array/audio", "audio_common_msgs/msg/AudioDataStamped", stamp + BLOCK * SECOND // SOUND_RATE, message)
