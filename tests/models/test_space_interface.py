"""The contract of a space: what a space of another package must define, and the defaults that it inherits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.toy_space import ToySpace
from sensebind.fusion.core.futures import CompletedFuture, DeferredFuture
from sensebind.fusion.core.samples import SECOND, VISION, Frame, Sample
from sensebind.fusion.core.space import (
    REQUIRED_ATTRIBUTES,
    Hub,
    Space,
    SpaceError,
    encoder_ids,
    limited_competences,
    limited_modalities,
    nearest_recognisable,
    suggested_phrases,
    validate_space,
)
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.models import registry

FRAME = Frame(np.arange(192, dtype=np.uint8), "rgb8", 8, 8, 24)
WINDOW = Window(VISION, SECOND, 2 * SECOND, 1.0, (Sample(VISION, SECOND, FRAME, "camera"),))


class Structural:
    """Has the attributes of a space but does not derive from `Space`."""

    id, dimension, licence, modalities, logit_scales, trained_windows = "other@0", 2, "none", ("text",), {}, {}

    def tensor(self, window: Window) -> torch.Tensor:
        return torch.zeros(1)


class EntryPoint:
    """An installed package's entry point."""

    name = "other"

    def __init__(self, space: object) -> None:
        self._space = space

    def load(self) -> Any:
        return lambda **options: self._space


def test_the_error_for_a_space_without_the_base_class_names_the_base_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(Structural())])
    with pytest.raises(SpaceError, match=r"'other' is a Structural: derive it from sensebind\.fusion\.core\.space"):
        registry.load_without_spokes("other")


@pytest.mark.parametrize("name", REQUIRED_ATTRIBUTES)
def test_the_error_for_a_space_without_a_required_attribute_names_the_attribute(name: str) -> None:
    given = {n: v for n, v in vars(Structural).items() if not n.startswith("__") and n != name}
    methods = {n: vars(ToySpace)[n] for n in ("tensor", "embed", "embed_text")}
    space = type("Incomplete", (Space,), {**given, **methods})()
    with pytest.raises(SpaceError, match=name):
        validate_space(space, "incomplete")


def test_a_registered_space_is_loaded_and_runs_on_a_cpu_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(ToySpace())])
    space = registry.load_space("other")
    assert GpuRunner.for_space(space) is None and not space.graph_capturable(VISION) and not space.compiled_modalities
    assert not isinstance(space, Hub) and space.dtype == torch.float32
    row = space.tensor(WINDOW)
    assert torch.equal(space.device_input(WINDOW), row)
    future = space.embed_async(VISION, row[None])
    assert isinstance(future, CompletedFuture) and future.compute_seconds is not None and future.compute_seconds >= 0
    assert torch.equal(future.fetch(), space.embed(VISION, row[None]))
    assert torch.equal(space.encoder(VISION)(row[None]), space.embed(VISION, row[None]))


def test_without_a_statement_of_its_own_a_space_has_one_encoder_id_full_competence_and_no_suggestions() -> None:
    space = ToySpace()
    assert encoder_ids(space) == dict.fromkeys(("text", "vision", "audio", "imu"), "toy@0")
    assert limited_competences(space, ["a dog"]) == {} and limited_modalities(space) == frozenset()
    assert space.nearest_phrases("vision", "a dog") == []


def test_the_first_phrase_of_each_list_is_suggested_first() -> None:
    near = [["a by sight", "anything", "more"], [], ["a by motion", "anything"]]
    assert suggested_phrases(near) == ["a by sight", "a by motion", "anything"]
    assert suggested_phrases([[], []]) == [] == suggested_phrases([])


def test_near_phrases_are_listed_for_the_phrases_that_a_modality_cannot_recognise() -> None:
    class Limited(ToySpace):
        def nearest_phrases(self, modality: str, phrase: str) -> list[str]:
            return [f"{phrase} by {modality}"]

    competences = {"imu": np.array([0.0, 0.5, 0.4], np.float32)}
    found = nearest_recognisable(Limited(), ["a", "b", "c"], competences)
    assert found == {"imu": [["a by imu"], [], ["c by imu"]]}


@pytest.mark.parametrize("deferred", [False, True])
def test_vectors_that_are_not_finite_are_a_failure_for_every_type_of_future(deferred: bool) -> None:
    class Broken(ToySpace):
        def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
            return super().embed(modality, batch) * torch.nan

        def embed_async(self, modality: str, batch: torch.Tensor) -> Any:
            return (
                DeferredFuture(lambda: self.embed(modality, batch))
                if deferred
                else super().embed_async(modality, batch)
            )

    (result,) = Engine(Broken()).embed([WINDOW])
    assert isinstance(result, Failure) and result.cause == "failure" and "not finite" in result.message


def test_the_error_for_a_device_that_is_a_string_names_the_torch_device() -> None:
    space = ToySpace()
    space.device = "cpu"  # type: ignore[assignment]  # as the factory gets it
    with pytest.raises(SpaceError, match=r"torch\.device\('cpu'\)"):
        validate_space(space, "toy")


def test_the_default_encoder_copies_a_batch_to_the_cpu_before_it_calls_embed() -> None:
    """A space may call `.numpy()` on the batch."""
    batch = ToySpace().tensor(WINDOW)[None]

    class OnDevice:
        """A tensor on a GPU."""

        def cpu(self) -> torch.Tensor:
            return batch

    space = ToySpace()
    assert torch.equal(space.encoder(VISION)(OnDevice()), space.embed(VISION, batch))  # type: ignore[arg-type]
