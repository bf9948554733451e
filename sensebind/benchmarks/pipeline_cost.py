"""`sensebind bench pipeline`: CPU time of the pipeline without a model, for five sensors and for several cameras."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sensebind.benchmarks.harness import command_line
from sensebind.fusion.core.encodings import decode_depth, decode_rgb, decode_thermal
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Sample
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.io.sensor_messages.audio import AudioMessageDecoder
from sensebind.fusion.preprocess import audio, depth, image, imu
from sensebind.fusion.preprocess import thermal as heat
from sensebind.fusion.preprocess.resampling import resample_audio
from sensebind.fusion.stream.window_queue import WindowQueue
from sensebind.fusion.stream.windower import Windower
from sensebind.replay.progress import track

HEIGHT, WIDTH = 480, 640
WINDOW_SPECS = {
    VISION: WindowSpec(VISION, SECOND // 2, SECOND // 2, frames=1),
    DEPTH: WindowSpec(DEPTH, SECOND // 5, SECOND // 2, frames=1),
    THERMAL: WindowSpec(THERMAL, SECOND // 5, SECOND // 2, frames=1),
    AUDIO: WindowSpec(AUDIO, 2 * SECOND, SECOND // 2),
    IMU: WindowSpec(IMU, 5 * SECOND, SECOND // 2),
}
CAMERAS = 4
VIDEO_IMAGES = 150  # of 640 × 480 at 30 Hz
MIN_SECONDS = 6.0  # of sensor data: the longest window, and one hop
MESSAGE_PERIODS = {VISION: 1 / 30, DEPTH: 1 / 30, THERMAL: 1 / 30, AUDIO: 0.1, IMU: 1 / 200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of sensor data (default: %(default)s)")
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print and write."""
    return command_line.run_and_report(
        "pipeline", lambda args: measure(args.seconds), args, device="cpu", expected=(ValueError,)
    )


def measure(seconds: float = 20.0) -> dict[str, float]:
    """CPU time of message → sample → window → tensor by modality, with ImageBind's preprocessing (the slowest).

    Five sensors: images of 640 × 480 at 30 Hz, audio at 16 kHz, an IMU at 200 Hz; one thread. Raises `ValueError` if
    `seconds` is less than `MIN_SECONDS`.
    """
    if seconds < MIN_SECONDS:
        raise ValueError(f"--seconds must be at least {MIN_SECONDS:g}, because the longest window has 5 s")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(seconds)
    finally:
        torch.set_num_threads(threads)


def _measure(seconds: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    total = 0.0
    for modality, spec in track(WINDOW_SPECS.items(), "sensors", "sensors"):
        messages = list(_messages(modality, seconds))
        windower, windows, health = Windower(spec), 0, SensorHealthMonitor()
        tensor_time = 0.0
        _imagebind_tensor(_first_window(modality, messages))  # loads and allocates; not counted
        began = time.process_time()
        for make in messages:
            for window in windower.accept(make()):
                start = time.process_time()
                health.check(window)
                _imagebind_tensor(window)
                tensor_time += time.process_time() - start
                windows += 1
        spent = time.process_time() - began
        total += spent
        figures[f"{modality}: ms per message, windows included"] = 1e3 * spent / len(messages)
        figures[f"{modality}: ms per window (decode, tensor)"] = 1e3 * tensor_time / max(1, windows)
        figures[f"{modality}: ms per second of sensor"] = 1e3 * spent / seconds
    figures["five sensors: % of one core"] = 100 * total / seconds
    for count in (1, CAMERAS):
        figures[f"{count} × camera: % of one core"] = 100 * _measure_cameras(seconds, count) / seconds
    for codec in ("h264", "hevc") if find_spec("av") else ():
        figures[f"{codec} video: times real time on one core"] = _video_speed(codec)
    return figures


def _video_speed(codec: str) -> float:
    """How many times faster than real time one core turns the packets of a camera to samples: 640 × 480 at 30 Hz."""
    from sensebind.benchmarks.harness.video_packets import encode_video
    from sensebind.fusion.io.sensor_messages.codecs.video import VideoStream

    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 12, (HEIGHT, WIDTH, 3))
    images = (
        (np.stack([columns + 5 * i, rows, rows + columns], axis=2) % 240 + np.roll(noise, 7 * i, axis=0)).astype(
            np.uint8
        )
        for i in range(VIDEO_IMAGES)
    )
    frames = [Frame(np.frombuffer(p, np.uint8), codec, compressed=True) for p in encode_video(images, codec)]
    stream, period = VideoStream(), SECOND // 30
    began = time.process_time()
    for index, frame in enumerate(frames):
        stream.decode(Sample(VISION, SECOND + index * period, frame))
    return VIDEO_IMAGES / 30 / (time.process_time() - began)


def _measure_cameras(seconds: float, count: int) -> float:
    """CPU seconds of a window queue with `count` cameras: message → sample → window → tensor, and the sensor checks."""
    names = [f"camera{number}" for number in range(count)]
    queue = WindowQueue({n: replace(WINDOW_SPECS[VISION], sensor=n) for n in names}, [VISION], fusion_timeout=SECOND)
    health = {name: SensorHealthMonitor() for name in names}
    messages = list(_messages(VISION, seconds))
    spent = time.process_time()
    for make in messages:
        for name in names:
            queue.accept(replace(make(), sensor=name))
        for window in queue.dequeue().windows:
            health[window.sensor].check(window)
            _imagebind_tensor(window)
    return time.process_time() - spent


def _messages(modality: str, seconds: float) -> Iterator[Callable[[], Sample]]:
    """Messages as a subscriber receives them: functions without arguments, each decodes one message to a sample."""
    from sensebind.fusion.io.sensor_messages.images import image_sample
    from sensebind.fusion.io.sensor_messages.imu import imu_sample
    from sensebind.fusion.io.sensor_options import AudioFormat

    noise = np.random.default_rng(0)
    microphone = AudioMessageDecoder("audio_common_msgs/msg/AudioDataStamped", AudioFormat("S16LE", 16000, 1))
    images = [_image_fields(modality, noise) for _ in range(4)]
    for index in range(int(seconds / MESSAGE_PERIODS[modality])):
        stamp = 1_700_000_000 * SECOND + round(index * MESSAGE_PERIODS[modality] * SECOND)
        header = SimpleNamespace(stamp=SimpleNamespace(sec=stamp // SECOND, nanosec=stamp % SECOND), frame_id=modality)
        if modality == AUDIO:
            data = noise.integers(-9000, 9000, 1600).astype("<i2").tobytes()
            message = SimpleNamespace(header=header, audio=SimpleNamespace(data=data))
            yield partial(_only_sample, microphone, message)
        elif modality == IMU:
            a, w = noise.standard_normal((2, 3))
            message = SimpleNamespace(
                header=header,
                linear_acceleration=SimpleNamespace(x=a[0], y=a[1], z=a[2]),
                angular_velocity=SimpleNamespace(x=w[0], y=w[1], z=w[2]),
                linear_acceleration_covariance=[0.0],
                angular_velocity_covariance=[0.0],
            )
            yield partial(imu_sample, IMU, message)
        else:
            message = SimpleNamespace(header=header, **images[index % len(images)])
            yield partial(image_sample, modality, message)


def _only_sample(microphone: AudioMessageDecoder, message: SimpleNamespace) -> Sample:
    """The sample of a message that contains one."""
    (sample,) = microphone.decode(message, 0)
    return sample


def _image_fields(modality: str, noise: np.random.Generator) -> dict[str, Any]:
    if modality == VISION:
        pixels, encoding = noise.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8), "rgb8"
    else:
        pixels, encoding = noise.integers(500, 9000, (HEIGHT, WIDTH)).astype(np.uint16), "16UC1"
    return {
        "data": pixels.tobytes(),
        "encoding": encoding,
        "height": HEIGHT,
        "width": WIDTH,
        "step": pixels.strides[0],
        "is_bigendian": 0,
    }


def _first_window(modality: str, messages: list[Callable[[], Sample]]) -> Window:
    windower = Windower(WINDOW_SPECS[modality])
    return next(window for make in messages for window in windower.accept(make()))


def _imagebind_tensor(window: Window) -> torch.Tensor:
    if window.modality == AUDIO:
        return audio.imagebind_tensor(torch.from_numpy(resample_audio(window, audio.SAMPLE_RATE)))
    if window.modality == IMU:
        return imu.imagebind_tensor(window)
    frame = window.samples[-1].data
    assert isinstance(frame, Frame)
    if window.modality == VISION:
        return image.imagebind_tensor(decode_rgb(frame))
    if window.modality == DEPTH:
        return depth.imagebind_tensor(decode_depth(frame, window.calibration), window.calibration)
    return heat.imagebind_tensor(decode_thermal(frame, window.calibration))
