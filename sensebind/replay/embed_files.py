"""Embeds files of images and sounds, and phrases, without a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.embeddings import l2_normalize
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.space import Space
from sensebind.fusion.io.sensor_files import FileError, read_windows
from sensebind.replay.progress import track


def embed_files(
    space: Space,
    modality: str,
    inputs: Sequence[str],
    batch_size: int = 16,
    on_error: Callable[[int, FileError], None] | None = None,
    channel: str = "",
) -> npt.NDArray[np.float32]:
    """N files, or N phrases for `text` → float32 (N, D) unit vectors; of a file, the mean over its windows.

    `on_error` is called with the index of a file that cannot be read, and its error; the vectors are then those of the
    other files. Without it, the first such file raises `FileError`. `channel`: of sounds, as the parameter
    `audio.channel`.
    """
    batches = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
    result = [np.empty((0, space.dimension), np.float32)]
    for number, batch in enumerate(track(batches, "embedding", "batches")):
        if modality == "text":
            require_utf8(batch)
            result.append(space.embed_text(batch).numpy())
            continue
        tensors, owners = [], []
        for owner, name in enumerate(batch):
            try:
                parts = _file_tensors(space, modality, name, channel)
            except FileError as error:
                if on_error is None:
                    raise
                on_error(number * batch_size + owner, error)
                continue
            tensors += parts
            owners += [owner] * len(parts)
        if not tensors:
            continue
        vectors = embed_tensors(space, modality, tensors)
        belongs = np.array(owners)
        result.append(np.stack([l2_normalize(vectors[belongs == own].mean(axis=0)) for own in dict.fromkeys(owners)]))
    return np.concatenate(result).astype(np.float32)


def _file_tensors(space: Space, modality: str, name: str, channel: str) -> list[torch.Tensor]:
    """The inputs of a file's windows. Raises `FileError`."""
    try:
        windows = read_windows(modality, name, space.trained_windows[modality], channel=channel)
        return [space.tensor(window) for window in windows]
    except (EncodingError, ValueError) as error:
        raise FileError(f"'{name}': {error}") from error


def require_utf8(phrases: Sequence[str]) -> None:
    """Raises `FileError` for a phrase with bytes of the command line that are not UTF-8."""
    for phrase in phrases:
        try:
            phrase.encode()
        except UnicodeEncodeError as error:
            raise FileError(
                f"phrase {phrase!r} is not text in UTF-8: set the encoding of the terminal to it"
            ) from error


def embed_tensors(space: Space, modality: str, tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    """N tensors → float32 (N, D). Tensors of equal shape are one batch: the shape of some encoders' input depends on
    that of the image."""
    vectors = np.empty((len(tensors), space.dimension), np.float32)
    for shape in dict.fromkeys(tensor.shape for tensor in tensors):
        places = [place for place, tensor in enumerate(tensors) if tensor.shape == shape]
        vectors[places] = space.embed(modality, torch.stack([tensors[place] for place in places])).numpy()
    return vectors
