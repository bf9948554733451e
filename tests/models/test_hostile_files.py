"""Files of weights, spokes and calibrations of any origin: an error of one line, before memory is used."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.events import prompt_calibration
from sensebind.fusion.events.prompt_calibration import CalibrationError
from sensebind.fusion.models.imagebind import weights
from sensebind.fusion.models.spokes import spoke
from sensebind.fusion.models.starter.space import StarterSpace

SPEC = {"modality": "gas", "kind": "series", "hub": "starter@0", "dimension": 2080, "rate": 10.0, "channels": 3}
NESTED = "[" * 100_000
DEEP = f'{{"a": {NESTED}'


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self._path,)


def peak_memory() -> int:
    """The largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def header(content: object) -> bytes:
    """The header of a safetensors file."""
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


def hostile_files(folder: Path) -> list[Path]:
    """Files that are no weights."""
    entry = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}
    found = {
        "empty": b"",
        "short": b"\x08\0\0",
        "huge_header": (2**62).to_bytes(8, "little") + b"{",
        "huge_shape": header({"a": entry}) + bytes(4),
        "huge_offset": header({"a": {**entry, "shape": [1], "data_offsets": [0, 2**60]}}) + bytes(4),
        "overflow": header({"a": {**entry, "shape": [2**62, 8]}}) + bytes(4),
        "negative": header({"a": {**entry, "shape": [-1]}}) + bytes(4),
        "truncated": safetensors.numpy.save({"a": np.zeros(1000, np.float32)})[:-100],
        "nested": (len(DEEP)).to_bytes(8, "little") + DEEP.encode(),
        "pickle": pickle.dumps(Bomb(folder / "pwned")),
    }
    for name, data in found.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    torch.save({"a": Bomb(folder / "pwned")}, folder / "torch.pth")
    return [*(folder / f"{name}.safetensors" for name in found), folder / "torch.pth"]


def test_files_that_are_no_weights_are_refused_without_code_and_memory(tmp_path: Path) -> None:
    files, before = hostile_files(tmp_path), peak_memory()
    for path in files:
        with pytest.raises(SpaceError) as refused:
            weights.read_tensors(path)
        assert path.name in str(refused.value) and "\n" not in str(refused.value)
        for read in (spoke.read_spec, spoke.read_state):
            with pytest.raises(SpaceError, match=path.name):
                read(path)
        with pytest.raises(CalibrationError, match=path.name):
            prompt_calibration.load(path)
    assert not (tmp_path / "pwned").exists() and peak_memory() - before < 200e6


def write_spec(path: Path, description: str) -> Path:
    path.write_bytes(safetensors.numpy.save({}, {"format": spoke.SPOKE_FORMAT, "spoke": description}))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 10**9}, {"length": 1e12}, {"rate": 1e12}, {"rate": float("nan")}, {"length": float("inf")},
        {"dimension": 10**12}, {"dimension": "2080"}, {"dimension": True}, {"channels": -3}, {"channels": 2.5},
        {"channels": 0}, {"rank": 10**9}, {"frames": -1}, {"frames": 10**9}, {"logit_scale": -1}, {"about": 5},
        {"kind": "other"}, {"method": []}, {"modality": 5}, {"hub": None}, {"unknown": 1}, {"length": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_a_spoke_that_asks_for_too_much_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    spoke.read_spec(write_spec(tmp_path / "good.safetensors", json.dumps(SPEC)))
    path = write_spec(tmp_path / "bad.safetensors", json.dumps({**SPEC, **change}))
    with pytest.raises(SpaceError, match="spoke file '.*bad.safetensors' is damaged: ") as refused:
        spoke.read_spec(path)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("description", ["", "5", "[]", "null", '{"modality": 1}', NESTED])
def test_a_spoke_without_a_description_is_refused(tmp_path: Path, description: str) -> None:
    with pytest.raises(SpaceError, match="is damaged"):
        spoke.read_spec(write_spec(tmp_path / "bad.safetensors", description))


def test_a_spoke_with_numbers_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    shipped = next(iter(StarterSpace.shipped_spokes))
    with safetensors.safe_open(shipped, "np") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(shipped)
    name = sorted(tensors)[0]
    tensors[name] = np.full_like(tensors[name], np.nan)
    (tmp_path / "nan.safetensors").write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(SpaceError, match="numbers in spoke file .* are damaged"):
        spoke.read_state(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(("kind", "bits"), [("F4", 4), ("F4", 8), ("C64", 64), ("F6_E2M3", 6)])
def test_numbers_of_a_type_that_is_only_stored_are_refused(tmp_path: Path, kind: str, bits: int) -> None:
    path, size = tmp_path / "odd.safetensors", bits
    head = json.dumps({"a": {"dtype": kind, "shape": [8], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(size))
    with pytest.raises(SpaceError, match=r"odd\.safetensors"):
        spoke.read_state(path)
    if kind != "C64":  # which the check of entries names
        with pytest.raises(SpaceError, match=r"odd\.safetensors"):
            weights.read_tensors(path)


def calibration() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and description of a calibration with one classifier."""
    tensors = {
        "phrase_vectors": np.eye(2, 4, dtype=np.float16),
        "audio.weights": np.ones((2, 4), np.float16),
        "audio.biases": np.array([0.5, np.nan], np.float32),
        "audio.mean": np.zeros(4, np.float16),
        "audio.principal_directions": np.eye(1, 4, dtype=np.float16),
    }
    described = {
        "space": "toy@0",
        "prior": 0.1,
        "max_negative_evidence": 1.0,
        "modalities": {"audio": {"deviation_weight": 1.0, "margin_weight": 1.0, "bias": 0.0, "reliability": 1.0}},
        "classifiers": {
            "class_names": ["a", "b"], "phrase_classes": [0, 1], "min_similarity": 0.5, "prior": 0.1,
            "residual_thresholds": {"audio": 0.5}, "rank_weights": [1.0],
        },
    }  # fmt: skip
    return tensors, described


def write_calibration(path: Path, tensors: dict[str, np.ndarray], described: Any) -> Path:
    text = described if isinstance(described, str) else json.dumps(described)
    metadata = {"format": prompt_calibration.CALIBRATION_FORMAT, "calibration": text}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    return path


def test_a_calibration_with_wrong_numbers_is_refused(tmp_path: Path) -> None:
    tensors, described = calibration()
    assert prompt_calibration.load(write_calibration(tmp_path / "good", tensors, described)).fitted_modalities
    nan = np.full((2, 4), np.nan, np.float16)
    for number, change in enumerate((
        {"phrase_vectors": nan}, {"phrase_vectors": np.zeros((0, 4), np.float16)}, {"audio.weights": nan},
        {"phrase_vectors": np.zeros((2, 4, 4), np.float16)}, {"audio.mean": np.full(4, np.inf, np.float16)},
        {"audio.mean": np.zeros(5, np.float16)}, {"audio.biases": np.array([np.inf, 0], np.float32)},
        {"audio.principal_directions": np.full((1, 4), np.nan, np.float16)},
        {"audio.weights": np.ones((2, 4), np.int8)},
    )):  # fmt: skip
        path = write_calibration(tmp_path / f"tensors{number}", {**tensors, **change}, described)
        with pytest.raises(CalibrationError, match=path.name):
            prompt_calibration.load(path)
    classifiers, curve = described["classifiers"], described["modalities"]["audio"]
    for number, other in enumerate((
        {**described, "prior": float("nan")}, {**described, "prior": 10**400}, {**described, "prior": []},
        {**described, "max_negative_evidence": float("inf")}, {**described, "modalities": 5}, DEEP, "", "[1]",
        {**described, "modalities": {"audio": {**curve, "margin_weight": float("nan")}}},
        {**described, "modalities": {"audio": {**curve, "bias": 10**400}}},
        {**described, "classifiers": {**classifiers, "rank_weights": [float("nan")]}},
        {**described, "classifiers": {**classifiers, "residual_thresholds": {"audio": float("nan")}}},
        {**described, "classifiers": {**classifiers, "phrase_classes": [0, 10**30]}},
        {**described, "classifiers": {**classifiers, "phrase_classes": []}},
        {**described, "classifiers": {**classifiers, "min_similarity": float("nan")}},
        {**described, "classifiers": {**classifiers, "prior": 0}},
        {**described, "naming": {"audio": {"similarity_weight": 1, "margin_weight": 1, "bias": 10**400, "source": ""}}},
    )):  # fmt: skip
        path = write_calibration(tmp_path / f"described{number}", tensors, other)
        with pytest.raises(CalibrationError, match=path.name):
            prompt_calibration.load(path)
