"""Weight files: read without copies and without running code, refused if wrong, one space id in every precision."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sensebind.commands import weights as command
from sensebind.fusion.config.parameters import embedder_parameters
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models import digest
from sensebind.fusion.models.imagebind import weights
from sensebind.fusion.models.imagebind.network import ImageBind, modality_of_entry, state_dict_shapes
from sensebind.fusion.models.imagebind.weights import WeightsError
from sensebind.fusion.models.precision import AUTO_DTYPE, DTYPE_NAMES, torch_dtype, torch_dtypes

TINY = {
    "out_embed_dim": 16,
    "imu_embed_dim": 16, "imu_num_blocks": 1, "imu_num_heads": 2,
    "depth_embed_dim": 16, "depth_num_blocks": 1, "depth_num_heads": 2,
}  # fmt: skip
MODALITIES = ("depth", "imu")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {k: v.detach() for k, v in ImageBind(modalities=MODALITIES, **TINY).state_dict().items()}


@pytest.fixture
def pth(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def converted(pth: Path, tmp_path: Path) -> Path:
    target = tmp_path / "weights.safetensors"
    weights.convert(pth, {target: list(weights.read_entries(pth))}, torch.bfloat16)
    return target


def parse(*arguments: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return parser.parse_args(["weights", *map(str, arguments)])


# ------------------------------------------------------------------------------------------------------ reading


def test_a_file_gives_the_saved_tensors(pth: Path, state: dict[str, torch.Tensor]) -> None:
    read = weights.read_tensors(pth)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_plain_safetensors_files_are_read_too(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "plain.safetensors")
    read = weights.read_tensors(tmp_path / "plain.safetensors")
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_reading_and_converting_change_precision_in_the_same_way(
    pth: Path, state: dict[str, torch.Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    target = tmp_path / "changed.safetensors"
    weights.convert(pth, {target: list(state)}, dtype)
    direct, converted = weights.read_tensors(pth, dtype=dtype), weights.read_tensors(target)
    for name, tensor in state.items():
        wanted = tensor.to(dtype) if tensor.ndim else tensor
        assert torch.equal(direct[name], wanted) and torch.equal(converted[name], wanted)


def test_logit_scales_stay_float32(converted: Path) -> None:
    scales = [e for name, e in weights.read_entries(converted).items() if name.endswith("log_logit_scale")]
    assert scales and all(entry.dtype == torch.float32 for entry in scales)


def test_only_wanted_entries_are_read(converted: Path) -> None:
    read = weights.read_tensors(converted, lambda name: modality_of_entry(name) == "imu")
    assert read and {modality_of_entry(name) for name in read} == {"imu"}


def test_the_chunk_size_does_not_change_the_result(pth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights.read_tensors(pth, dtype=torch.bfloat16)
    monkeypatch.setattr(weights, "CHUNK_BYTES", 1000)
    chunks = weights.read_tensors(pth, dtype=torch.bfloat16)
    assert list(chunks) == list(whole) and all(torch.equal(chunks[k], whole[k]) for k in whole)


# -------------------------------------------------------------------------------------------------------- digest


def test_converted_files_store_the_digest_of_the_published_file(pth: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    names = list(weights.read_entries(pth))
    targets = {folder / f"{m}.safetensors": [n for n in names if modality_of_entry(n) == m] for m in MODALITIES}
    weights.convert(pth, targets, torch.float16)
    again = tmp_path / "again.safetensors"
    weights.convert(folder, {again: names}, torch.bfloat16)
    expected = subprocess.run(["sha256sum", pth], capture_output=True, text=True, check=True).stdout.split()[0]
    assert {weights.published_digest(p) for p in (pth, folder, folder / "imu.safetensors", again)} == {expected}


def test_the_sha_256_is_right_for_files_of_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "BLOCK_BYTES", 7)
    for content in (b"", b"a" * 7, b"0123456789" * 3):
        (tmp_path / "f").write_bytes(content)
        assert digest.sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_parameters_and_models_use_the_same_names_of_precisions() -> None:
    (parameter,) = (p for p in embedder_parameters() if p.name == "dtype")
    assert parameter.choices == (AUTO_DTYPE, *DTYPE_NAMES) and parameter.default == AUTO_DTYPE
    assert [torch_dtype(name) for name in DTYPE_NAMES] == [torch.float32, torch.bfloat16, torch.float16]
    assert torch_dtype(AUTO_DTYPE) == torch.float32 and list(torch_dtypes()) == list(DTYPE_NAMES)
    with pytest.raises(SpaceError, match="dtype 'int8' is not one of auto, float32, bf16, fp16"):
        torch_dtype("int8")


def test_files_of_two_checkpoints_in_a_folder_are_refused(
    converted: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    converted.rename(folder / "one.safetensors")
    save_file({"other": torch.ones(1)}, folder / "two.safetensors")
    with pytest.raises(WeightsError, match="one checkpoint"):
        weights.published_digest(folder)
    save_file(state, folder / "two.safetensors")
    with pytest.raises(WeightsError, match="is in both"):
        weights.read_entries(folder)


# -------------------------------------------------------------------------------------------------------- errors


def test_missing_unknown_and_misshaped_entries_are_named(state: dict[str, torch.Tensor]) -> None:
    wrong = dict(state)
    del wrong["modality_trunks.imu.blocks.0.norm_1.bias"]
    wrong["modality_trunks.imu.extra"] = torch.zeros(1)
    wrong["modality_heads.imu.3.weight"] = torch.zeros(3, 3)
    wrong["modality_heads.imu.0.bias"] = torch.zeros(16, dtype=torch.int64)
    with pytest.raises(WeightsError) as caught:
        ImageBind(modalities=["imu"], **TINY).load_checkpoint(wrong)
    for text in (
        "1 missing: 'modality_trunks.imu.blocks.0.norm_1.bias'",
        "1 unknown: 'modality_trunks.imu.extra'",
        "'modality_heads.imu.3.weight' is (3, 3) and should be (16, 16)",
        "'modality_heads.imu.0.bias' is torch.int64",
    ):
        assert text in str(caught.value)


def test_values_that_are_not_finite_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    bad = {**state, "modality_heads.imu.0.bias": torch.full((16,), torch.nan)}
    torch.save(bad, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"modality_heads\.imu\.0\.bias.*not finite"):
        weights.read_tensors(tmp_path / "nan.pth")


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, this is text", b"\x10\0\0\0\0\0\0\0{}", bytes(1000)])
def test_files_of_other_formats_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(WeightsError, match="file"):
        weights.read_tensors(tmp_path / "file")


def test_missing_files_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weight file"):
        weights.read_tensors(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="holds no .safetensors"):
        weights.read_tensors(tmp_path)


@pytest.mark.parametrize("content", [{"model": {"a": torch.ones(1)}}, [torch.ones(1)], {}, {"a": 1}])
def test_files_that_are_not_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        weights.read_tensors(tmp_path / "other.pth")


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_weight_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    if zipped:
        torch.save({"a": Payload(proof)}, tmp_path / "evil.pth")
    else:
        (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Payload(proof)}))
    with pytest.raises(WeightsError):
        weights.read_tensors(tmp_path / "evil.pth")
    assert not proof.exists()


def test_a_failed_conversion_leaves_no_file(pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError("disk full")

    monkeypatch.setattr(weights, "_crc32", fail)
    with pytest.raises(OSError, match="disk full"):
        weights.convert(pth, {tmp_path / "out.safetensors": list(weights.read_entries(pth))}, torch.bfloat16)
    assert [p.name for p in tmp_path.iterdir()] == [pth.name]


# ------------------------------------------------------------------------------------------------------- command


def test_the_command_converts_the_full_size_imu_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({k: torch.zeros(s) for k, s in state_dict_shapes(["imu"]).items()}, tmp_path / "imu.pth")
    assert command.run(parse("convert", tmp_path / "imu.pth", "--dtype", "bf16", "-o", tmp_path / "split")) == 0
    assert (tmp_path / "split" / "imu.safetensors").stat().st_size < 0.51 * (tmp_path / "imu.pth").stat().st_size
    assert command.run(parse("inspect", tmp_path / "split")) == 0
    printed = capsys.readouterr().out
    count = sum(torch.Size(shape).numel() for shape in state_dict_shapes(["imu"]).values())
    assert f"{count:,}" in printed and "bfloat16" in printed and "imagebind_huge@" in printed
    with pytest.raises(WeightsError, match="has no weights of radar"):
        command.run(parse("convert", tmp_path / "imu.pth", "-o", tmp_path / "x", "--modalities", "radar"))
    path = tmp_path / "split" / "imu.safetensors"
    with pytest.raises(ConfigError, match="is the input .*: name another place"):
        command.run(parse("convert", path, "-o", path))


def test_the_command_prints_why_a_file_cannot_be_used(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parse("inspect", pth)) == 1
    assert "of another shape" in capsys.readouterr().out
    with pytest.raises(WeightsError, match="of another shape"):
        command.run(parse("convert", pth, "-o", pth.parent / "x"))


# ---------------------------------------------------------------------------------------------------------- fuzz


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """`data` with a few changed bytes (anywhere, or in the first 4000), truncated, or without a piece."""
    array = np.frombuffer(data, np.uint8).copy()
    kind = generator.integers(4)
    if kind == 0:
        return data[: generator.integers(len(data))]
    if kind == 1:
        a, b = sorted(generator.integers(0, len(data), 2))
        return data[:a] + data[b:]
    end = len(array) if kind == 2 else min(4000, len(array))
    places = generator.integers(0, end, generator.integers(1, 6))
    array[places] ^= generator.integers(1, 256, len(places), dtype=np.uint8)
    return array.tobytes()


def check_mutated_file(file: Path, original: dict[str, torch.Tensor], digest: str) -> None:
    """The file is an error, or has the original values, or the digest of another space."""
    try:
        read, found = weights.read_tensors(file), weights.published_digest(file)
        weights.check_entries(read, {k: v.shape for k, v in original.items()})
    except WeightsError as error:
        assert str(error)
        return
    assert found != digest or all(torch.equal(read[k], original[k]) for k in original)


def fuzz(pth: Path, converted: Path, count: int) -> None:
    generator = np.random.default_rng(1)
    for source in (pth, converted):
        data, original, digest = source.read_bytes(), weights.read_tensors(source), weights.published_digest(source)
        for _ in range(count // 2):
            file = source.with_name("mutated")
            file.write_bytes(mutate(data, generator))
            check_mutated_file(file, original, digest)
            file.unlink()  # not overwritten in place, because it is mapped


def test_a_thousand_mutated_files_are_refused_or_read_correctly(pth: Path, converted: Path) -> None:
    fuzz(pth, converted, 1000)


def test_tensors_are_views_of_the_mapped_file(converted: Path) -> None:
    """In a new process: every tensor lies in the memory that the file is mapped to."""
    script = f"""
from sensebind.fusion.models.imagebind import weights
read = weights.read_tensors({str(converted)!r})
maps = open("/proc/self/maps").read().splitlines()
spans = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in maps if {converted.name!r} in line]
assert spans and all(any(a <= t.data_ptr() < b for a, b in spans) for t in read.values())
"""
    subprocess.run([sys.executable, "-c", script], check=True)
