"""The check of a device detects wrong vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensebind.benchmarks.encoders import correctness
from sensebind.benchmarks.encoders.spaces import TINY_SIZES, SyntheticImageBind
from sensebind.benchmarks.harness import sensor_load
from sensebind.fusion.config.build import make_window_specs
from sensebind.fusion.config.parameters import embedder_values
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.imagebind.space import ImageBindSpace

MODALITIES = tuple(sensor_load.MESSAGE_RATES)
SPECS = make_window_specs(embedder_values({"modalities": MODALITIES}), ImageBindSpace.trained_windows)


def windows(modality: str, count: int = 8) -> list[Window]:
    return sensor_load.distinct_windows({modality: SPECS[modality]}, count)[modality]


def space(modality: str, dtype: torch.dtype = torch.float32, kind: type = SyntheticImageBind) -> Any:
    return kind([modality], "cpu", dtype, TINY_SIZES)


def last(fast: Any, modality: str) -> dict[str, Any]:
    wanted = correctness.reference_vectors(space(modality), windows(modality))
    *_, found = correctness.check_space(fast, wanted, batches_per_thread=12, seconds=60)
    return found


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_correct_device_passes_and_windows_are_distinct(modality: str) -> None:
    found = last(space(modality), modality)
    assert found["passed"] and found["device_path"]["batches"] == 2 * 12
    assert found["windows"] >= 4 and found["cosine_between_windows"]["max"] <= correctness.MAX_DISTINCT_COSINE


def test_lower_precision_passes() -> None:
    assert last(space("audio", torch.bfloat16), "audio")["passed"]


class Wrong(SyntheticImageBind):
    """A device that computes batches of more than one row wrongly."""

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        encode = super().encoder(modality)
        return lambda rows: self.spoil(encode(rows)) if len(rows) > 1 else encode(rows)

    def spoil(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError


class Swapped(Wrong):
    def spoil(self, vectors: Tensor) -> Tensor:
        return vectors.roll(1, 0)


class NotFinite(Wrong):
    def spoil(self, vectors: Tensor) -> Tensor:
        return vectors / 0 * 0


class Inaccurate(Wrong):
    def spoil(self, vectors: Tensor) -> Tensor:
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(vectors + 0.02 * noise, dim=1)


@pytest.mark.parametrize("kind", [Swapped, NotFinite, Inaccurate])
def test_swapped_nonfinite_or_inaccurate_rows_fail(kind: type) -> None:
    found = last(space("imu", kind=kind), "imu")
    assert found["batches_of_one"]["wrong_window"] == 0, "batches of one row are correct"
    assert not found["passed"]
    if kind is not Inaccurate:
        assert found["device_path"]["wrong_window"] > 0 and found["device_path_batch_32"]["wrong_window"] > 0


def test_windows_with_similar_vectors_are_left_out() -> None:
    vectors = torch.eye(4)[[0, 1, 1, 2, 0, 3]]
    assert correctness.distinct_rows(vectors) == [0, 1, 3, 5]


def test_similar_windows_only_are_an_error() -> None:
    wanted = correctness.reference_vectors(space("imu"), [windows("imu", 1)[0]] * 4)
    with pytest.raises(ValueError, match="same vector"):
        next(correctness.check_space(space("imu"), wanted, batches_per_thread=6, seconds=1))


class Overwritten(SyntheticImageBind):
    """A device that is correct for one modality, and swaps rows if the previous batch had another modality."""

    previous = ""

    def encoder(self, modality: str) -> Callable[[Tensor], Tensor]:
        encode = super().encoder(modality)

        def encode_or_swap(rows: Tensor) -> Tensor:
            swapped, self.previous = self.previous not in ("", modality), modality
            return encode(rows).roll(int(swapped), 0)

        return encode_or_swap


def test_modalities_that_overwrite_each_other_in_a_shared_runner_fail() -> None:
    both = ["audio", "imu"]
    wanted = [correctness.reference_vectors(space(m), windows(m)) for m in both]
    for item in wanted:
        alone = correctness.check_device_path(
            Overwritten(both, sizes=TINY_SIZES), [item], batches_per_thread=12, seconds=60
        )
        assert alone["passed"], "one modality alone is correct"
    together = correctness.check_device_path(
        Overwritten(both, sizes=TINY_SIZES), wanted, batches_per_thread=12, seconds=60
    )
    assert not together["passed"] and together["device_path"]["wrong_window"] > 0
    correct = correctness.check_device_path(
        SyntheticImageBind(both, sizes=TINY_SIZES), wanted, batches_per_thread=12, seconds=60
    )
    assert correct["passed"] and correct["device_path"]["batches"] == 24


def test_a_failed_earlier_check_is_kept_and_fails_the_check() -> None:
    wanted = correctness.reference_vectors(space("imu"), windows("imu"))
    known = {"reference_on_cpu": {"min_cosine": 0.9995, "wrong_window": 0, "passed": False}}
    *_, found = correctness.check_space(space("imu"), wanted, batches_per_thread=6, seconds=60, earlier_checks=known)
    assert found["reference_on_cpu"] == known["reference_on_cpu"] and not found["passed"]


def test_a_device_that_is_wrong_in_every_precision_differs_from_a_cpu() -> None:
    reference, other = space("imu"), space("imu")
    wanted = correctness.reference_vectors(reference, windows("imu"))
    assert correctness.reference_on_cpu(reference, wanted)["passed"]
    with torch.no_grad():
        for parameter in other.load_encoder("imu").parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert not correctness.reference_on_cpu(other, wanted)["passed"]


def test_a_vector_closest_to_another_reference_is_counted_as_wrong_window() -> None:
    truth = torch.eye(3)
    assert correctness.compare_with_reference(truth[[2, 0]], truth, [2, 0]) == {"min_cosine": 1.0, "wrong_window": 0}
    assert correctness.compare_with_reference(truth[[1, 0]], truth, [2, 0]) == {"min_cosine": 0.0, "wrong_window": 1}


@pytest.mark.parametrize("modality", MODALITIES)
def test_distinct_windows_are_reproducible_and_all_different(modality: str) -> None:
    def contents(window: Window) -> bytes:
        datas: list[Any] = [sample.data for sample in window.samples]
        return b"".join(np.asarray(getattr(d, "data", getattr(d, "values", None))).tobytes() for d in datas)

    first, again = windows(modality), windows(modality)
    assert [contents(w) for w in first] == [contents(w) for w in again]
    assert len({contents(w) for w in first}) == len(first)
