"""`sensebind bench windows`: processor time of each processing step of a window, by modality, on a CPU.

The steps of the engine and of the baseline (eager float32, one window at a time) alternate. Processor time of all
threads depends less on other processes of the machine than elapsed time does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sensebind.benchmarks.harness import command_line, sensor_load
from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import embedder_values
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.models import registry
from sensebind.replay.progress import track

SENSOR_SECONDS = 12.0  # sensor data from which windows are cut
MEASURED_WINDOWS = 10  # the last ones: earlier ones are incomplete


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    command_line.add_space_options(parser)
    command_line.add_hop(parser)
    parser.add_argument(
        "--rounds", type=int, default=7, help="number of rounds; the median counts (default: %(default)s)"
    )
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("windows", measure, args)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Processor time in ms by modality and step, and the lowest cosine of the engine's vectors with the baseline's."""
    modalities = tuple(sensor_load.MESSAGE_RATES)
    values = embedder_values({"modalities": modalities, **{f"{m}.hop": args.hop for m in modalities}})
    optimized_space, plain = (
        registry.load_space(args.space, modalities=modalities, device="cpu", weights=args.weights, dtype=dtype)
        for dtype in ("auto", "float32")
    )
    pipeline = build.make_pipeline(values, plain)
    samples = list(sensor_load.sample_stream(sensor_load.sensors(), SENSOR_SECONDS))
    began = time.process_time()
    for sample in samples:
        pipeline.accept(sample)
    windowing = (time.process_time() - began) / SENSOR_SECONDS
    cut = pipeline.dequeue().windows
    streams = {m: [w for w in cut if w.modality == m] for m in modalities if m in optimized_space.modalities}
    return {
        "input": sensor_load.input_digest(),
        "space": optimized_space.id,
        "compiled": ", ".join(sorted(optimized_space.compiled_modalities)) or "nothing",
        "threads": torch.get_num_threads(),
        "windowing_ms_per_s": round(1e3 * windowing, 2),
        "window_ms": {m: _modality_cost(optimized_space, plain, stream, args.rounds) for m, stream in streams.items()},
    }


def _modality_cost(fast: Space, plain: Space, stream: Sequence[Window], rounds: int) -> Mapping[str, float]:
    modality, health, windows = stream[0].modality, SensorHealthMonitor(), stream[-MEASURED_WINDOWS:]
    ready = [fast.tensor(window) for window in windows]
    rows = [plain.tensor(window) for window in windows]
    steps: dict[str, Callable[[], Any]] = {
        "health": lambda: [health.check(window) for window in windows],
        "prepare": lambda: [fast.tensor(window) for window in windows],
        "embed": lambda: [fast.embed(modality, row[None]) for row in ready],
        "plain_prepare": lambda: [plain.tensor(window) for window in windows],
        "plain_embed": lambda: [plain.embed(modality, row[None]) for row in rows],
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(rounds + 1), modality, "rounds"):
        for name, work in steps.items():
            began = time.process_time()
            work()
            times[name].append(time.process_time() - began)
    result = {n: round(1e3 * sorted(t[1:])[rounds // 2] / len(windows), 2) for n, t in times.items()}
    both = result["plain_prepare"] + result["plain_embed"], result["prepare"] + result["embed"]
    cosines = [
        float(fast.embed(modality, a[None])[0] @ plain.embed(modality, b[None])[0])
        for a, b in zip(ready, rows, strict=True)
    ]
    return result | {"times_plain": round(both[0] / both[1], 2), "cosine": round(min(cosines), 6)}
