"""A few bytes that decompress to gigabytes cost a bounded amount of memory and disk."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from sensebind.fusion.io.recordings import bag_file, folder, mcap_file
from sensebind.fusion.io.recordings.bag_file import DamageError, RecordingError, decompress, decompress_message
from sensebind.fusion.io.recordings.ros1_file import _chunk_records

MIB = 2**20


def zeros(size: int) -> bytes:
    """A stream of zstd with `size` zeros, a multiple of 128 KiB: blocks of one repeated byte (RFC 8878, 3.1.1)."""
    blocks = size // 2**17
    head = b"\x28\xb5\x2f\xfd" + b"\x00\x58"  # no checksum, a window of 2 MiB
    body = [struct.pack("<I", (2**17 << 3) | 2 | (number == blocks - 1))[:3] + b"\0" for number in range(blocks)]
    return head + b"".join(body)


class Peak:
    """The largest amount of memory that is allocated in a block."""

    def __enter__(self) -> Peak:
        tracemalloc.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def test_a_compressed_file_is_decompressed_in_small_parts(tmp_path: Path) -> None:
    """8 kB become 256 MB on the disk."""
    path = tmp_path / "big.db3.zstd"
    path.write_bytes(zeros(256 * MIB))
    assert path.stat().st_size < 10_000
    with ExitStack() as stack, Peak() as peak:
        result, damage = folder._decompressed(path, stack)
        assert result.stat().st_size == 256 * MIB and not damage
    assert peak.bytes < 16 * MIB


def test_a_compressed_file_without_space_on_the_disk_is_refused_by_name_and_limit(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "big.mcap.zstd"
    path.write_bytes(zeros(64 * MIB))
    free = folder.MIN_FREE_BYTES + 3 * MIB
    monkeypatch.setattr(folder, "shutil", SimpleNamespace(disk_usage=lambda place: SimpleNamespace(free=free)))
    with ExitStack() as stack, pytest.raises(RecordingError) as error:
        folder._decompressed(path, stack)
    assert "big.mcap.zstd" in str(error.value) and f"{3 * MIB:,}" in str(error.value)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "bz2"])
def test_a_chunk_that_claims_more_than_the_limit_is_not_decompressed(compression: str) -> None:
    with Peak() as peak, pytest.raises(DamageError, match=f"{bag_file.MAX_DECOMPRESSED_BYTES:,}"):
        decompress(zeros(64 * MIB), compression, bag_file.MAX_DECOMPRESSED_BYTES + 1)
    assert peak.bytes < MIB


def test_a_chunk_is_decompressed_to_its_claimed_size_at_most(monkeypatch) -> None:
    with Peak() as peak:
        contents, problem = decompress(zeros(256 * MIB), "zstd", MIB)
    assert len(contents) == MIB and problem
    assert peak.bytes < 8 * MIB
    monkeypatch.setattr(bag_file, "MAX_DECOMPRESSED_BYTES", 4 * MIB)
    record = struct.pack("<BQQQQI", mcap_file.CHUNK, 0, 0, 0, 2**62, 0) + struct.pack("<I", 4) + b"zstd"
    with pytest.raises(DamageError, match="4,194,304"):
        mcap_file._chunk_records(record + struct.pack("<Q", 20) + bytes(20))
    fields = b"".join(
        struct.pack("<I", len(f)) + f for f in (b"op=\x05", b"compression=lz4", b"size=" + struct.pack("<I", 2**31))
    )
    with pytest.raises(DamageError, match="4,194,304"):
        _chunk_records(struct.pack("<I", len(fields)) + fields + struct.pack("<I", 8) + bytes(8))


def test_a_message_that_was_compressed_alone_is_bounded_and_the_error_names_the_file(monkeypatch) -> None:
    assert decompress_message(zeros(MIB), "a.db3") == bytes(MIB)
    monkeypatch.setattr(bag_file, "MAX_DECOMPRESSED_BYTES", 4 * MIB)
    with Peak() as peak, pytest.raises(RecordingError, match=r"'a\.db3'.*4,194,304"):
        decompress_message(zeros(256 * MIB), "a.db3")
    assert peak.bytes < 16 * MIB


def test_the_decompressor_of_python_3_10_is_bounded_too() -> None:
    """Its library returns all that its input becomes: here 128 kB for each 4 bytes."""

    class Library:
        def decompress(self, data: bytes) -> bytes:
            return bytes(len(data) // 4 * 2**17)

    with Peak() as peak:
        part = bag_file._Zstandard(Library())
        first = part.decompress(bytes(100_000), MIB)
        assert len(first) == MIB
        total = len(first)
        for _ in range(40):
            total += len(part.decompress(b"", MIB))
    assert total == 41 * MIB and peak.bytes < 64 * MIB
